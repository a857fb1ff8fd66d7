"""Lowers an ONNX graph to opset 17, the newest that TensorRT 8.6 reads."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from runtime.errors import ModelError

OPSET = 17
IR_VERSION = 8  # the one that came with opset 17
NEW_IN_RESIZE = ("antialias", "keep_aspect_ratio_policy")  # opset 18
# Operators of the networks here whose meaning is the same in opsets 17 and 20, once the three rules are applied
KNOWN = {
    *("Add", "Sub", "Mul", "Div", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Conv", "MaxPool", "Concat", "Slice", "Split", "Resize"),
    *("QuantizeLinear", "DequantizeLinear", "Cast", "ReduceSum", "Shape", "Pad", "Round", "Clip", "Floor", "Unsqueeze"),
}


def lower_to_opset17(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an opset 18..20 graph in opset 17, with identical outputs.

    1. Split gets explicit sizes instead of opset 18's `num_outputs`. 2. Resize loses opset 18's attributes, which must be off.
    3. Opset and IR version are set. Raises ModelError on an operator outside `KNOWN`, whose older form nobody has checked.
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    widths = {info.name: _dimensions(info) for info in (*graph.value_info, *graph.input)}
    for node in graph.node:
        if node.op_type not in KNOWN:
            raise ModelError(f"{node.op_type} ({node.name}) was never checked in opset {OPSET}: use --opset 20")
        if node.op_type == "Split":
            _size_split(node, graph, widths)
        if node.op_type == "Resize":
            _strip_resize(node)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _size_split(node: onnx.NodeProto, graph: onnx.GraphProto, widths: dict[str, list[int]]) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
    if len(kept) < len(node.attribute):
        axis = next((attribute.i for attribute in kept if attribute.name == "axis"), 0)
        total = widths.get(node.input[0], [0] * (axis + 1))[axis]
        parts = len(node.output)
        if not total or total % parts:
            raise ModelError(f"{node.name} splits {total or 'an unknown number of'} planes into {parts} parts: use --opset 20")
        sizes = numpy_helper.from_array(np.array([total // parts] * parts, np.int64), f"{node.name}_sizes")
        graph.initializer.append(sizes)
        node.input.append(sizes.name)
    del node.attribute[:]
    node.attribute.extend(kept)


def _strip_resize(node: onnx.NodeProto) -> None:
    antialias = next((attribute.i for attribute in node.attribute if attribute.name == "antialias"), 0)
    if antialias:
        raise ModelError(f"{node.name} resizes with antialiasing, which opset {OPSET} cannot say: use --opset 20")
    kept = [copy.copy(attribute) for attribute in node.attribute if attribute.name not in NEW_IN_RESIZE]
    del node.attribute[:]
    node.attribute.extend(kept)


def _dimensions(info: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in info.type.tensor_type.shape.dim]
