"""The tensors of a graph: who makes them and who reads them, in the names of the PyTorch network's layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

GRAPH_INPUT = "Input"  # stands for an operator where a tensor comes from outside
KNOWN_ABSMAX = {"Sigmoid": 1.0, "Tanh": 1.0}  # operators whose outputs have a known range
MOVES = {"Identity", "Split", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "MaxPool"}  # of their first input
FOLLOWS = {*MOVES, *KNOWN_ABSMAX, "Relu", "LeakyRelu", "Resize", "Cast", "Clip"}  # belong to the layer of their first input
READERS = {"Conv", "MaxPool"}  # operators with kernels for codes
MAKERS = {*KNOWN_ABSMAX, "Relu", "LeakyRelu"}  # operators that end a layer
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Activation:
    """A float tensor that depends on the input."""

    name: str  # in the graph
    producer: str  # operator type that makes it, or GRAPH_INPUT
    made_by: str | None  # layer whose convolution it comes from, directly or through activation, pooling, resizing and splitting
    read_by: tuple[str, ...]  # layers whose convolution it is the input of, in order of the graph
    known_absmax: float | None  # its largest possible magnitude, for sigmoid and tanh and parts of their outputs


def activations(graph: onnx.GraphProto) -> tuple[Activation, ...]:
    """Every float tensor of the graph but constants and weights, in the order in which they are made.

    `graph` has the type of every tensor in its value_info, as `onnx.shape_inference.infer_shapes` leaves it.
    """
    constant = {tensor.name for tensor in graph.initializer}
    floats = {value.name for value in typed_values(graph) if value.type.tensor_type.elem_type in FLOATS} - constant
    readers = _readers(graph)
    found = {
        value.name: Activation(value.name, GRAPH_INPUT, None, readers.get(value.name, ()), None)
        for value in graph.input
        if value.name in floats
    }
    for node in graph.node:
        sources = [found[name] for name in node.input if name in found]
        for name in node.output:
            if name in floats and node.op_type != "Constant":
                made_by, known = _layer_behind(node, sources), _known_absmax(node, sources)
                found[name] = Activation(name, node.op_type, made_by, readers.get(name, ()), known)
    return tuple(found.values())


def scaled_tensors(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the tensors that may come to stand before a QuantizeLinear, whichever kernels are to run the graph.

    These are what convolutions and poolings read, what convolutions and their activations make (but not what only a ReLU reads,
    which runs inside the convolution), and the outputs of sigmoid and tanh.
    """
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    names = {node.input[0] for node in graph.node if node.op_type in READERS}
    names |= {node.output[0] for node in graph.node if node.op_type in MAKERS}
    names |= {node.output[0] for node in graph.node if node.op_type == "Conv" and readers.get(node.output[0]) != ["Relu"]}
    return frozenset(names)


def layer_name(conv: onnx.NodeProto) -> str:
    """The path of the PyTorch module that a Conv node comes from, such as "temporal.cells.0.x_update", by its weight's name."""
    weight = conv.input[1] if len(conv.input) > 1 else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else conv.name or conv.output[0]


def typed_values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """Inputs, intermediate values and outputs."""
    yield from graph.input
    yield from graph.value_info
    yield from graph.output


def _readers(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    readers: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            readers[node.input[0]] = (*readers.get(node.input[0], ()), layer_name(node))
    return readers


def _layer_behind(node: onnx.NodeProto, sources: list[Activation]) -> str | None:
    if node.op_type == "Conv":
        return layer_name(node)
    return sources[0].made_by if node.op_type in FOLLOWS and sources else None


def _known_absmax(node: onnx.NodeProto, sources: list[Activation]) -> float | None:
    if node.op_type in KNOWN_ABSMAX:
        return KNOWN_ABSMAX[node.op_type]
    if node.op_type in MOVES and sources:
        return sources[0].known_absmax
    known = [source.known_absmax for source in sources if source.known_absmax is not None]
    joins = node.op_type == "Concat" and known and len(known) == len(node.input)
    return max(known) if joins else None
