"""Which type each convolution really runs in: asked of OpenVINO, or read from the layers that TensorRT-RTX built.

videodeblur types model_int8.onnx                           on this machine's CPU with OpenVINO
videodeblur types model_int8.onnx --layer-log layers.txt    from a build with detailed verbosity
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import onnx

from calibration.onnx_file import load_onnx
from export.engine.built_types import agreed, inspector_types
from export.graph.layer_precision import asked_precisions, layer_sizes, layers
from runtime.command_line import USER_ERROR, command
from runtime.errors import InputError

LEAST_GRANTED = 0.95  # share of the convolution FLOPs that must run in the type that the file asks for
SIZE = (184, 320)  # H, W
OPENVINO_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
OPENVINO_SUFFIXES = r"(/WithoutBiases|_original)+$"  # that its transformations add to the names of nodes
TENSORRT_TYPES = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "Int8": "int8", "FP8": "fp8"}
RUNS_CONVOLUTION = {"correlation", "runtime_fusion"}  # TensorRT-RTX's kinds of layers that hold a filter
FILTER_RANK = 4  # outputs, inputs, height, width
NOT_FOUND = "not found"  # a node that the runtime does not name, though it names all that it runs
NOT_READ = "not read"  # a node whose type the runtime does not tell


@dataclass(frozen=True)
class LayerType:
    """One convolution of the network."""

    layer: str  # module path
    macs: int  # multiply-add pairs a window
    asked: str  # the type that the file says: "fp32", "fp16", "bf16", "int8" or "fp8"
    ran: str  # the type that the runtime took, NOT_FOUND or NOT_READ

    @property
    def granted(self) -> bool:
        """Whether it runs in the type that the file asks for."""
        return self.asked == self.ran


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, reads, prints; status 1 when less than 95 % of what asked for a type got it."""
    parser = argparse.ArgumentParser(
        prog="videodeblur types", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX file, typed or not")
    parser.add_argument("--layer-log", type=Path, help="what TensorRT says of its layers, instead of asking OpenVINO")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="OpenVINO's arithmetic for fp32 nodes")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the window (default: the file's, or 184 320)")
    parser.add_argument("--layers", action="store_true", help="also print every convolution")
    options = parser.parse_args(argv)
    model = load_onnx(options.model)
    size = options.size or fixed_size(model)
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


def layer_types(
    model: onnx.ModelProto, ran: Mapping[str, str], height: int, width: int, missing: str = NOT_FOUND
) -> list[LayerType]:
    """Every convolution with what it asked for and what it got; `ran` gives types by the names of Conv nodes, `missing` is what
    the others got.

    A layer with several nodes got what the first node that differs from the asked type got, NOT_READ only where none else differs.
    """
    asked, macs = asked_precisions(model), layer_sizes(model, height, width)
    rows = []
    for name, layer in layers(model).items():
        differing = [word for word in (ran.get(node, missing) for node in layer.nodes) if word != asked[name]]
        differing.sort(key=lambda word: word == NOT_READ)
        rows.append(LayerType(name, macs[name], asked[name], differing[0] if differing else asked[name]))
    return rows


def fixed_size(model: onnx.ModelProto) -> tuple[int, int]:
    """Height and width that a graph is fixed at, SIZE where they are free."""
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:4])
    return height or SIZE[0], width or SIZE[1]


def openvino_types(path: Path, precision: str = "fp32", height: int = SIZE[0], width: int = SIZE[1]) -> dict[str, str]:
    """The type of every Conv node of an ONNX file that OpenVINO compiled for one window of this size on this CPU.

    `precision` is the arithmetic of what the file has in fp32. Raises what `OpenVinoRunner` raises.
    """
    from runtime.backends.openvino_runner import OpenVinoRunner  # heavy, and not always there
    from runtime.files.contract import read_contract

    contract = read_contract(path)
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


def tensorrt_types(layer_log: str) -> dict[str, str]:
    """The type of every Conv node, and of the nodes fused with it, in TensorRT-RTX's list of layers, which its builder logs at
    detailed verbosity.

    A convolution runs in the type of its data, a filter may be stored smaller than it is used; see `agreed` for engines of several
    profiles. Raises InputError when the text is no such list.
    """
    found = agreed(pair for line in layer_log.splitlines() for pair in _logged_types(line))
    if not found:
        raise InputError(
            "no convolution is in this list of layers, expected TensorRT-RTX's: build with --profilingVerbosity=detailed"
        )
    return found


def _logged_types(line: str) -> Iterator[tuple[str, str]]:
    kind = re.search(r", LayerType: (\w+)", line)
    if kind is None or kind[1] not in RUNS_CONVOLUTION:
        return
    data, filters = _types(line, "Inputs"), _types(line, "Constants", FILTER_RANK)
    if data and filters:
        for name in re.findall(r"\[ONNX Layer: ([^]]+)\]", line):
            yield name, TENSORRT_TYPES.get(data[0], data[0])


def _types(line: str, part: str, rank: int | None = None) -> list[str]:
    """The types of a layer's inputs or constants, in order; of those of a rank alone where one is named."""
    listed = re.search(rf"{part}: \[ (.*?)\}}\]", line)
    tensors = re.findall(r"Dimensions: \[([^]]*)\].*?Datatype: (\w+)", listed[1]) if listed else []
    return [kind for dimensions, kind in tensors if rank is None or len(dimensions.split(",")) == rank]


def shares(rows: Iterable[LayerType], asked: bool = False) -> dict[str, float]:
    """The share of the convolution FLOPs by the type that ran, or was asked for; the largest first."""
    sums: dict[str, int] = {}
    for row in rows:
        word = row.asked if asked else row.ran
        sums[word] = sums.get(word, 0) + row.macs
    whole = sum(sums.values())
    return {word: macs / whole for word, macs in sorted(sums.items(), key=lambda item: -item[1])}


def granted_share(rows: Sequence[LayerType]) -> float:
    """The share of the FLOPs that asked for less than fp32 and got it, of those whose type was read; 1 when none asked."""
    lowered = [row for row in rows if row.asked != "fp32" and row.ran != NOT_READ]
    whole = sum(row.macs for row in lowered)
    return sum(row.macs for row in lowered if row.granted) / whole if whole else 1.0


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
