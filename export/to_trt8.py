"""An ONNX file -> one that TensorRT 8.6's parser reads: opset 17, and weights that are quantised in the graph, not in the file."""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.onnx_file import load_onnx
from export.opset17 import lower_to_opset17
from runtime.command_line import command
from runtime.contract import read_contract

NOT_IN_17 = ("saturate", "block_size", "output_dtype", "precision")  # attributes of Q and DQ


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, writes."""
    parser = argparse.ArgumentParser(prog="export/to_trt8.py", description=__doc__)
    parser.add_argument(
        "--onnx", type=Path, required=True, help="fp32 or INT8 file, for a machine whose TensorRT has no onnx beside it"
    )
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(argv)
    read_contract(given.onnx)
    partial = given.output.with_name(f".{given.output.name}.{os.getpid()}.part")
    onnx.save(for_tensorrt_8(load_onnx(given.onnx)), partial)
    partial.replace(given.output)
    print(f"wrote {given.output}; next, there: python export/to_engine.py --onnx={given.output} --runtime tensorrt --for 720p")
    return 0


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


if __name__ == "__main__":
    raise SystemExit(main())
