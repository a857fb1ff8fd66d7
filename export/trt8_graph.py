"""A graph that TensorRT 8.6's parser reads: opset 17, and weights that are quantised in the graph, not in the file."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.opset17 import lower_to_opset17

NOT_IN_17 = ("saturate", "block_size", "output_dtype", "precision")  # attributes of Q and DQ


def for_tensorrt_8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with identical outputs, up to the rounding of codes times scales.

    1. A DequantizeLinear of stored codes gets the fp32 weight and a QuantizeLinear before it: the parser of 8.6 quantises weights
       itself. 2. The rest is `lower_to_opset17`.
    """
    model = copy.deepcopy(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            nodes.append(_quantised_in_graph(node, constants))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for node in nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            kept = [attribute for attribute in node.attribute if attribute.name not in NOT_IN_17]
            del node.attribute[:]
            node.attribute.extend(kept)
    return lower_to_opset17(model)


def _quantised_in_graph(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> onnx.NodeProto:
    """Replaces the stored codes by their real values, in place; returns the QuantizeLinear that makes the codes of them."""
    codes = constants[node.input[0]]
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    scale = numpy_helper.to_array(constants[node.input[1]])
    values = numpy_helper.to_array(codes)
    steps = np.expand_dims(scale, [i for i in range(values.ndim) if i != axis]) if scale.ndim else scale
    codes.CopyFrom(numpy_helper.from_array((values * steps).astype(np.float32), codes.name))
    quantised = f"{codes.name}_q"
    quantize = helper.make_node(
        "QuantizeLinear", [codes.name, *node.input[1:]], [quantised], name=f"{codes.name}/QuantizeLinear", axis=axis
    )
    node.input[0] = quantised
    return quantize
