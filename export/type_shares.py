"""Which type each convolution really runs in: asked of OpenVINO, or read from the layers that TensorRT-RTX built.

videodeblur types model_int8.onnx                           on this machine's CPU with OpenVINO
videodeblur types model_int8.onnx --layer-log layers.txt    from a build with detailed verbosity
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import onnx

from calibration.onnx_file import load_onnx
from export.engine.built_types import inspector_types, tensorrt_types
from export.graph.layer_types import NOT_FOUND, NOT_READ, LayerType, fixed_size, granted_share, layer_types, shares
from export.shipped_clips import SIZE_COMPARED
from runtime.command_line import USER_ERROR, command
from runtime.errors import ModelError
from runtime.pixels.padding import padded_size

LEAST_GRANTED = 0.95  # share of the convolution FLOPs that must run in the type that the file asks for
OPENVINO_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
OPENVINO_SUFFIXES = r"(/WithoutBiases|_original)+$"  # that its transformations add to the names of nodes


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, reads, prints; status 1 when less than 95 % of what asked for a type got it."""
    parser = argparse.ArgumentParser(
        prog="videodeblur types", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX file, typed or not")
    parser.add_argument("--layer-log", type=Path, help="TensorRT-RTX's list of layers to read, instead of asking OpenVINO")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="OpenVINO's arithmetic for fp32 nodes")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="pixels of the window (default: the file's, or 184 320)"
    )
    parser.add_argument("--layers", action="store_true", help="print every convolution too")
    options = parser.parse_args(argv)
    model = load_onnx(options.model)
    check_recognised(model, options.model)
    size = options.size or fixed_size(model, SIZE_COMPARED)
    missing = NOT_FOUND
    if options.layer_log:
        text = options.layer_log.read_text()
        if text.lstrip().startswith("{"):
            ran, missing = inspector_types(text), NOT_READ
        else:
            ran = tensorrt_types(text)
    else:
        ran = openvino_types(options.model, options.precision, *size)
    rows = layer_types(model, ran, *size, missing)
    print(table(rows, options.layers))
    return 0 if granted_share(rows) >= LEAST_GRANTED else USER_ERROR


def check_recognised(model: onnx.ModelProto, path: Path) -> None:
    """Raises ModelError where a graph has no convolution whose type can be told, or others beside those."""
    operators = Counter(node.op_type for node in model.graph.node)
    others = {word: count for word, count in operators.items() if "Conv" in word and word != "Conv"}
    if others or not operators["Conv"]:
        found = ", ".join(f"{count} {word}" for word, count in others.items()) or "none"
        raise ModelError(f"{path}: no convolution recognised ({found}), expected Conv alone, as videodeblur quantize writes it")


def openvino_types(path: Path, precision: str, height: int, width: int) -> dict[str, str]:
    """The type of every Conv node of an ONNX file that OpenVINO compiled for one window of this size on this CPU.

    `precision` is the arithmetic of what the file has in fp32. Raises what `OpenVinoRunner` raises.
    """
    from runtime.backends.openvino_runner import OpenVinoRunner  # heavy, and not always there
    from runtime.files.contract import read_contract

    contract = read_contract(path)
    if contract.io == "f32":  # graphs of codes pad inside
        height, width = padded_size(height, width, contract.multiple)
    shape = (contract.batch or 1, contract.frames, contract.height or height, contract.width or width)
    runner = OpenVinoRunner(path, precision)
    found: dict[str, str] = {}
    try:
        for operation in runner.compiled(shape + ((2,) if contract.io == "u16" else ())).get_runtime_model().get_ops():
            facts = {key: value.astype(str) for key, value in operation.get_rt_info().items()}
            if facts.get("layerType") == "Convolution":
                names = [re.sub(OPENVINO_SUFFIXES, "", name) for name in facts["originalLayersNames"].split(",")]
                found.update(dict.fromkeys(names, OPENVINO_TYPES.get(facts["runtimePrecision"], facts["runtimePrecision"])))
    finally:
        runner.close()
    return found


def table(rows: Sequence[LayerType], every_layer: bool = False) -> str:
    """The shares as text, and the layers."""
    lines = [f"{'of the convolution FLOPs':28}{'asked':>9}{'ran':>9}"]
    asked, ran = shares(rows, asked=True), shares(rows)
    lines += [f"{word:28}{asked.get(word, 0):9.1%}{ran.get(word, 0):9.1%}" for word in dict.fromkeys([*ran, *asked])]
    lines.append(f"{granted_share(rows):.1%} of what asked for less than fp32 got it (at least {LEAST_GRANTED:.0%})")
    whole = sum(row.macs for row in rows)
    shown = rows if every_layer else [row for row in rows if row.asked != "fp32" and not row.granted]
    lines += [f"  {row.layer:44}{row.macs / whole:7.1%}  asked {row.asked}, ran {row.ran}" for row in shown]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
