"""The receptive field of an ONNX graph, computed from its nodes: how far an output sample can see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import onnx
from onnx import numpy_helper

from runtime.errors import ModelError
from runtime.files.contract import INPUT, OUTPUT

CHANNELS = 1  # axis
SPATIAL = (-2, -1)  # axes H and W
FAR = 2**20  # pixels; an output sample so far inside that no border is in sight


class Interval(NamedTuple):
    """Samples first..last along one axis."""

    first: int
    last: int

    def union(self, other: Interval | None) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.first, other.first), max(self.last, other.last)) if other else self


def receptive_field(model: onnx.ModelProto, multiple: int = 8, source: str = INPUT, target: str = OUTPUT) -> int:
    """The largest distance in pixels, along H or W, between a sample of `target` and the samples of `source` it depends on.

    Both have the same size in pixels; `multiple` is the network's total stride: an output sees differently far by its position
    in it, and the largest distance counts. Exact for what the operators can reach; that weights may be zero is not considered.
    Raises ModelError on an operator that it does not know.
    """
    return max(_radius(model.graph, axis, FAR * multiple + phase, source, target) for axis in SPATIAL for phase in range(multiple))


def _radius(graph: onnx.GraphProto, axis: int, position: int, source: str, target: str) -> int:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    needed: dict[str, Interval] = {target: Interval(position, position)}
    for node in reversed(graph.node):
        asked = [needed[value] for value in node.output if value in needed]
        if not asked:
            continue
        interval = _needed_by(node, _union(asked), axis, constants)
        for value in _data_inputs(node, constants):
            needed[value] = interval.union(needed.get(value))
    if source not in needed:
        raise ModelError(f"{target} does not depend on {source}: this is not a network of this project")
    return max(position - needed[source].first, needed[source].last - position)


def _needed_by(node: onnx.NodeProto, asked: Interval, axis: int, constants: dict[str, onnx.TensorProto]) -> Interval:
    if node.op_type in ELEMENTWISE:
        return asked
    if node.op_type not in RULES:
        raise ModelError(
            f"cannot see through {node.op_type} ({node.name}): teach export/graph/receptive_field.py how far it reaches"
        )
    return RULES[node.op_type](node, asked, axis, constants)


def _window(node: onnx.NodeProto, asked: Interval, axis: int, constants: dict[str, onnx.TensorProto]) -> Interval:
    """Convolution and pooling."""
    attributes = _attributes(node)
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise ModelError(f"{node.name} has auto_pad {attributes['auto_pad'].decode()}: explicit pads are needed")
    kernel = attributes.get("kernel_shape") or list(constants[node.input[1]].dims[2:])
    ones = [1] * len(kernel)
    pads = attributes.get("pads", [0] * (2 * len(kernel)))
    stride, dilation = attributes.get("strides", ones)[axis], attributes.get("dilations", ones)[axis]
    first = asked.first * stride - pads[: len(kernel)][axis]
    return Interval(first, first + (asked.last - asked.first) * stride + (kernel[axis] - 1) * dilation)


def _resize(node: onnx.NodeProto, asked: Interval, axis: int, constants: dict[str, onnx.TensorProto]) -> Interval:
    attributes = _attributes(node)
    mode, coordinates = attributes.get("mode", b"nearest"), attributes.get("coordinate_transformation_mode", b"half_pixel")
    if (mode, coordinates) != (b"linear", b"half_pixel") or attributes.get("antialias", 0):
        raise ModelError(f"{node.name} resizes {mode.decode()} {coordinates.decode()}: only linear half_pixel is known")
    if len(node.input) < 3 or node.input[2] not in constants:
        raise ModelError(f"{node.name} resizes to a size: only constant scales are known")
    scale = float(numpy_helper.to_array(constants[node.input[2]])[axis])
    first, last = ((sample + 0.5) / scale - 0.5 for sample in asked)
    return Interval(math.floor(first), math.ceil(last))


def _join(node: onnx.NodeProto, asked: Interval, axis: int, constants: dict[str, onnx.TensorProto]) -> Interval:
    """Concat and Split, which must work on the channels."""
    return _on_channels(node, [_attributes(node).get("axis", 0)], asked)


def _slice(node: onnx.NodeProto, asked: Interval, axis: int, constants: dict[str, onnx.TensorProto]) -> Interval:
    axes = [int(i) for i in numpy_helper.to_array(constants[node.input[3]])] if len(node.input) > 3 else [0]
    return _on_channels(node, axes, asked)


def _on_channels(node: onnx.NodeProto, axes: Iterable[int], asked: Interval) -> Interval:
    if set(axes) != {CHANNELS}:
        raise ModelError(f"{node.name} works on axes {sorted(axes)}: only the channels are known")
    return asked


Rule = Callable[[onnx.NodeProto, Interval, int, dict[str, onnx.TensorProto]], Interval]
RULES: dict[str, Rule] = {"Conv": _window, "MaxPool": _window, "Resize": _resize, "Concat": _join, "Split": _join, "Slice": _slice}
ELEMENTWISE = {"Add", "Sub", "Mul", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Identity"}


def _data_inputs(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[str]:
    return [value for value in node.input if value and value not in constants]


def _union(intervals: list[Interval]) -> Interval:
    result = intervals[0]
    for interval in intervals[1:]:
        result = result.union(interval)
    return result


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
