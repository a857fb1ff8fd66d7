"""Hashes of a graph: one of its structure, one of its weights, and of all of a file, which tells whether it was changed."""

from __future__ import annotations

import hashlib

import onnx
from onnx import numpy_helper

from runtime.files.onnx_fields import sha256_of_graph


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
    """SHA-256 of what a file of it holds but its metadata, as a contract's `graph_sha256`."""
    return sha256_of_graph(model.SerializeToString())
