"""`videodeblur quantize`: an fp32 ONNX file and ranges.json -> one with INT8 or FP8 convolutions, as explicit Q/DQ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import onnx

from calibration.onnx_file import load_onnx
from calibration.ranges import Ranges
from calibration.scales import METHODS
from export.compare.typed_file import TypedFile, load_fp32, report, write_typed
from export.graph.layer_precision import (
    QUANTISED,
    complete_precisions,
    default_precisions,
    layers,
    matching_precisions,
    overall_precision,
    read_precisions,
    why_not,
)
from export.graph.qdq_rules import PLACEMENTS, WEIGHTS, QdqOptions, quantize
from export.graph.typed_graph import FLOATS
from export.shipped_clips import DEFAULT_CLIP
from runtime.command_line import command, quoted
from runtime.files.on_disk import check_not_input


@dataclass(frozen=True)
class QuantizeRequest:
    """What to quantise, how, and where to."""

    onnx: Path  # fp32, from videodeblur export
    ranges: Path  # from videodeblur calibrate, of this file
    output: Path
    precision: str = "int8"  # or "fp8"
    layers: str | Mapping[str, str] | None = None  # precision.json, a pattern of whole names, or a choice; None: those worth it
    clip: Path = DEFAULT_CLIP  # compared on
    how: QdqOptions = field(default_factory=QdqOptions)
    maker: str = "videodeblur quantize"  # that the file names


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, quantises, prints."""
    parser = _parser()
    settings = vars(parser.parse_args(argv))
    how = QdqOptions(**{name: settings.pop(name) for name in ("placement", "rest", "weights", "method")})
    verbose = settings.pop("verbose")
    request = QuantizeRequest(**settings, how=how)
    found = to_qdq(request)
    print(report(found))
    if request.layers is None and verbose:
        print(reasons(request))
    compare = quoted("videodeblur", "verify", request.onnx, found.path, "--clips", "YOUR_CLIPS")
    print(f"next: {compare}, and {quoted('videodeblur', 'types', found.path)}")
    return 0


def to_qdq(request: QuantizeRequest) -> TypedFile:
    """Writes the quantised file. Raises ModelError when the ranges are of another file, InputError on layers or ranges that do not
    exist, and what `write_typed` raises."""
    check_not_input(request.output, request.onnx, request.ranges, request.clip)
    model, _ = load_fp32(request.onnx)
    precisions = chosen_precisions(model, request)
    quantised = quantize(model, Ranges.load(request.ranges), precisions, request.how)
    notes = {"maker": request.maker, "default": request.how.rest, "layers": precisions, **asdict(request.how)}
    word = overall_precision(precisions, request.how.rest)
    return write_typed(quantised, request.onnx, request.output, word, request.clip, notes)


def chosen_precisions(model: onnx.ModelProto, request: QuantizeRequest) -> dict[str, str]:
    """The precision of every layer, by default, by a file, or by a pattern. Raises InputError where that names nothing."""
    if request.layers is None:
        return default_precisions(model, request.precision, request.how.rest, request.how.placement)
    if not isinstance(request.layers, str):
        return complete_precisions(model, request.layers, request.how.rest)
    if request.layers.endswith(".json"):
        return complete_precisions(model, read_precisions(Path(request.layers)), request.how.rest)
    return matching_precisions(model, request.layers, request.precision, request.how.rest)


def reasons(request: QuantizeRequest) -> str:
    """The layers that the default leaves out, with the reason, as text."""
    found = layers(load_onnx(request.onnx)).values()
    told = {layer.name: why_not(layer, request.precision, request.how.placement) for layer in found}
    return "\n".join(f"{request.how.rest}: {name}: {reason}" for name, reason in told.items() if reason)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="videodeblur quantize", description=__doc__)
    add, defaults = parser.add_argument, QdqOptions()
    add("--onnx", type=Path, required=True, help="fp32 file of videodeblur export")
    add("--ranges", type=Path, required=True, help="ranges.json of this file, made by videodeblur calibrate")
    add("--output", type=Path, required=True, help="quantised file to write")
    add("--precision", choices=QUANTISED, default="int8", help="type of the convolutions that are quantised (default %(default)s)")
    add(
        "--placement",
        choices=PLACEMENTS,
        default=defaults.placement,
        help="placement of Q/DQ: tensorrt, also good on OpenVINO, or cpu for ONNX Runtime (default %(default)s)",
    )
    add("--rest", choices=tuple(FLOATS), default=defaults.rest, help="type of everything else (default %(default)s)")
    add("--weights", choices=WEIGHTS, default=defaults.weights, help="scales of weights (default %(default)s)")
    add("--method", choices=METHODS, help="method of the activations' scales (default: the one in the ranges)")
    add("--layers", metavar="JSON|REGEX", help="layers to quantise: precision.json or a pattern (default: those worth it)")
    add("--clip", type=Path, default=DEFAULT_CLIP, help="video to compare on (default: the shipped clip)")
    add("--verbose", action="store_true", help="tell why layers were left out")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
