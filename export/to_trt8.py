"""An ONNX file -> one that TensorRT 8.6's parser reads: opset 17, and weights that are quantised in the graph, not in the file."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.fingerprints import model_hash
from calibration.onnx_file import brief, load_model
from export.compare.parity import compared
from export.graph.opset17 import lower_to_opset17
from runtime.command_line import command, quoted
from runtime.engine import Engine
from runtime.errors import ModelError
from runtime.files.contract import METADATA_KEY, Contract
from runtime.files.on_disk import check_not_input, partial_onnx, refusals
from runtime.pixels.sample_codes import from_unit

SIZE = (64, 96)  # H, W, where they are free
LEAST_EQUAL = 80.0  # dB
NOT_IN_17 = ("saturate", "block_size", "output_dtype", "precision")  # attributes of Q and DQ


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, writes."""
    parser = argparse.ArgumentParser(prog="export/to_trt8.py", description=__doc__)
    text = "fp32 or INT8 file, for a machine whose TensorRT has no onnx beside it"
    parser.add_argument("--onnx", type=Path, required=True, help=text)
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    given = parser.parse_args(argv)
    decibels = to_trt8(given.onnx, given.output)
    print(f"{decibels:.1f} dB of {given.onnx} on ONNX Runtime")
    build = quoted("videodeblur", "build", f"--onnx={given.output}", "--runtime", "tensorrt", "--for", "720p")
    print(f"wrote {given.output}; next, there: {build}")
    return 0


def to_trt8(source: Path, output: Path) -> float:
    """Writes the file, which appears as `output` once ONNX Runtime computed the same with both; returns how near it came, in dB.

    Raises ModelError where opset 17 has no such graph or it computes something else, InputError when `output` cannot be written.
    """
    check_not_input(output, source)
    read, contract = load_model(source)
    try:
        model = for_tensorrt_8(read)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"opset 17 has no form of {source} ({brief(error)}): quantise with --rest fp32, 8.6 lowers the rest"
        ) from error
    helper.set_model_props(
        model, {**_properties(model), METADATA_KEY: replace(contract, parity={}, graph_sha256=model_hash(model)).to_json()}
    )
    noise = _noise(contract)
    with partial_onnx(output) as partial:
        with refusals(output.parent):
            onnx.save(model, partial)
        with Engine(source, "onnxruntime") as engine:
            expected = engine.run(noise)
        with Engine(partial, "onnxruntime") as engine:
            decibels = compared(engine, engine.run(noise), expected).decibels
        if not decibels >= LEAST_EQUAL:
            raise ModelError(f"{output} comes to {decibels:.1f} dB of {source}, expected {LEAST_EQUAL:.0f}: export it again")
    return decibels


def _properties(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _noise(contract: Contract) -> npt.NDArray[Any]:
    """A window in the model's own types."""
    shape = contract.batch or 1, contract.frames, contract.height or SIZE[0], contract.width or SIZE[1]
    noise = np.random.default_rng(0).random(shape, np.float32)
    return noise if contract.io == "f32" else from_unit(noise, contract.bits, contract.color_range)


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
