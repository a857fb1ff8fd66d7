"""What of a graph does not fit FP16, by the ranges that were measured on real clips."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.ranges import FP16_LARGEST, Ranges
from export.graph.typed_graph import named, node_types

SAFE_SHARE = 1 / 8  # of 65504: clips that nobody measured may reach eight times as far
LEAST_NORMAL = float(np.finfo(np.float16).smallest_normal)  # below 6.1e-5 FP16 loses bits, below 3e-8 it is zero


def fp32_nodes(model: onnx.ModelProto, ranges: Ranges) -> dict[str, str]:
    """Names of the nodes that would be FP16 and must compute in fp32, with the reason.

    1. The node that makes a tensor of at least SAFE_SHARE of FP16's largest number, and all that read it.
    2. The nodes that read a constant beyond FP16's largest number.
    """
    large = {tensor.name: tensor for tensor in ranges.beyond_fp16(SAFE_SHARE)}
    constants = {tensor.name: _absmax(tensor) for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    kept: dict[str, str] = {}
    graph = named(model).graph
    lowered = {name for name, word in node_types(graph, "fp16", {}).items() if word == "fp16"}
    for node in (node for node in graph.node if node.name in lowered):
        for value in (*node.output, *node.input):
            if value in large and node.name not in kept:
                deed = "makes" if value in node.output else "reads"
                kept[node.name] = (
                    f"{deed} {value}, which reached {large[value].extent.absmax:.4g}, {large[value].fp16_share:.0%} of FP16's limit"
                )
            elif constants.get(value, 0.0) > FP16_LARGEST:
                kept.setdefault(node.name, f"reads {value}, which holds {constants[value]:.4g}")
    return kept


def subnormal_weights(model: onnx.ModelProto) -> dict[str, float]:
    """The share of values, by tensor, that FP16 holds with fewer bits or as zero; tensors without any are left out."""
    shares = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            magnitudes = np.abs(numpy_helper.to_array(tensor).astype(np.float32))
            shares[tensor.name] = float(np.mean((magnitudes > 0) & (magnitudes < LEAST_NORMAL)))
    return {name: share for name, share in shares.items() if share}


def _absmax(tensor: onnx.TensorProto) -> float:
    values = numpy_helper.to_array(tensor)
    return float(np.abs(values).max()) if values.size else 0.0
