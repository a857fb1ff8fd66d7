"""Hashes of a graph: one of its structure, one of its weights, and of both, which tells whether a file was changed."""

from __future__ import annotations

import hashlib

import onnx
from onnx import numpy_helper


def graph_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of the operators, their attributes, their order and the names of all tensors; weights' values, documentation and
    metadata do not count."""
    digest = hashlib.sha256()
    for node in model.graph.node:
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        bare.doc_string = ""
        del bare.metadata_props[:]
        digest.update(bare.SerializeToString(deterministic=True))
    for value in (*model.graph.input, *model.graph.output):
        digest.update(f"{value.name}:{value.type.tensor_type.elem_type};".encode())
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name}:{tensor.data_type}:{list(tensor.dims)};".encode())
    return digest.hexdigest()


def weights_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of the names and values of all initializers, in order of their names."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        digest.update(tensor.name.encode())
        digest.update(numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()


def model_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of the two, as a contract's `graph_sha256`."""
    return hashlib.sha256(f"{graph_hash(model)} {weights_hash(model)}".encode()).hexdigest()
