"""Finds which layers may be quantised without losing more than a budget, measured on held-out windows.

    videodeblur search --onnx model.onnx --ranges ranges.json --clips DATA --budget 0.05dB --output precision.json

1. One layer is quantised at a time, and the error that it makes at the output is measured: its sensitivity.
2. Layers are taken in order of time saved per error made, as long as the sum of their errors stays within the budget.
3. The whole is measured; it backs off, or goes on, by bisection until one more layer would break the budget.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import onnx

from calibration.ranges import Ranges
from export.compare.precision_trials import Point, PrecisionBench, SearchOptions, error_of
from export.compare.typed_file import load_fp32
from export.graph.layer_cost import total
from export.graph.layer_precision import QUANTISED, layers, why_not
from export.report.chart import layer_chart
from export.report.records import KINDS, kind_of
from export.shipped_clips import DEFAULT_PAIR
from runtime.command_line import command, quoted
from runtime.files.on_disk import partial_file, refusals
from runtime.progress import ProgressBar


@dataclass(frozen=True)
class Sensitivity:
    """One layer quantised alone, everything else in fp32."""

    layer: str
    parity: float  # dB against the fp32 graph
    macs: int  # multiply-add pairs a window
    saved: float  # share of the modelled time of all layers
    excluded: str  # why it is not a candidate; empty when it is
    chosen: bool = False


@dataclass(frozen=True)
class SearchResult:
    """The precision of every layer, and what led to it."""

    precisions: Mapping[str, str]
    sensitivities: tuple[Sensitivity, ...]
    pareto: tuple[Point, ...]  # fp32, the rest's type, every candidate quantised, and the choice

    @property
    def quantised(self) -> int:
        """Layers in low precision."""
        return sum(word in QUANTISED for word in self.precisions.values())


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, searches, writes, prints."""
    arguments = _parser().parse_args(argv)
    options = SearchOptions(
        onnx=arguments.onnx,
        ranges=arguments.ranges,
        clips=arguments.clips,
        precision=arguments.precision,
        rest=arguments.rest,
        budget=arguments.budget,
        min_psnr=arguments.min_psnr,
        truth=tuple(arguments.truth),
        limit=arguments.windows,
        crop=tuple(arguments.crop),
        every_layer=arguments.every_layer,
        times=arguments.layer_times,
    )
    with partial_file(arguments.output, "--output") as partial:
        with ProgressBar(unit="graphs") as bar:
            result = search(options, bar)
        with refusals(arguments.output.parent):
            partial.write_text(json.dumps(as_json(result, options), indent=1) + "\n")
    print(table(result, options))
    if arguments.chart:
        save_chart(arguments.chart, result.sensitivities, options.min_psnr)
        print(f"sensitivity by layer: {arguments.chart}")
    files = ("--onnx", options.onnx, "--ranges", options.ranges, "--layers", arguments.output)
    print(f"next: {quoted('videodeblur', 'quantize', *files, '--rest', options.rest, '--output', 'int8.onnx')}")
    return 0


def search(options: SearchOptions, progress: Callable[[int, int | None], None] | None = None) -> SearchResult:
    """Runs the three steps above. Raises ModelError when the ranges are of another graph, InputError when there are no windows."""
    (model, _), ranges = load_fp32(options.onnx), Ranges.load(options.ranges)
    ranges.check(model)
    with PrecisionBench(model, ranges, options, progress) as bench:
        sensitivities = _sensitivities(bench, model, options)
        order = _order(sensitivities)
        count = _largest_passing(bench, order, _predicted(order, options))
        chosen = [row.layer for row in order[:count]]
        pareto = _pareto(bench, options, [row.layer for row in order], chosen)
    marked = tuple(_marked(row, row.layer in chosen) for row in sensitivities)
    return SearchResult(bench.precisions(chosen, options.rest), marked, pareto)


def _sensitivities(bench: PrecisionBench, model: onnx.ModelProto, options: SearchOptions) -> list[Sensitivity]:
    whole = total(bench.costs, dict.fromkeys(bench.costs, options.rest))
    rows = []
    for name, layer in layers(model).items():
        saved = bench.costs[name].saved(options.precision, options.rest)
        excluded = "" if options.every_layer else why_not(layer, options.precision)
        if not excluded and saved <= 0:
            excluded = "saves no time"
        if options.rest == "fp16" and name in bench.beyond_fp16:
            excluded = "reaches beyond fp16"
        rows.append(Sensitivity(name, bench.parity([name]), bench.costs[name].macs, saved / whole, excluded))
    return rows


def _order(rows: Sequence[Sensitivity]) -> list[Sensitivity]:
    """Candidates, most time saved per error first."""
    return sorted(
        (row for row in rows if not row.excluded), key=lambda row: row.saved / max(error_of(row.parity), 1e-12), reverse=True
    )


def _predicted(order: Sequence[Sensitivity], options: SearchOptions) -> int:
    """How many layers fit if errors add up, which those of independent roundings do."""
    left, count = error_of(options.min_psnr), 0
    for row in order:
        left -= error_of(row.parity)
        if left < 0:
            break
        count += 1
    return count


def _largest_passing(bench: PrecisionBench, order: Sequence[Sensitivity], guess: int) -> int:
    """The largest count of layers that passes, by bisection from the guess; 0 when none does."""
    low, high, count = 0, len(order) + 1, guess  # low passes, high does not
    while high - low > 1:
        count = min(max(count, low + 1), high - 1)
        if bench.point("trial", [row.layer for row in order[:count]], bench.options.rest).passed:
            low = count
        else:
            high = count
        count = (low + high) // 2
    return low


def _pareto(bench: PrecisionBench, options: SearchOptions, candidates: Sequence[str], chosen: Sequence[str]) -> tuple[Point, ...]:
    points = [bench.point("fp32", [], "fp32")]
    if options.rest != "fp32":
        points.append(bench.point(options.rest, [], options.rest))
    points.append(bench.point("bf16", [], "bf16"))
    points.append(bench.point(f"{options.precision}, every candidate", candidates, options.rest))
    if 0 < len(chosen) < len(candidates):
        points.append(bench.point("mixed, within the budget", chosen, options.rest))
    return tuple(points)


def table(result: SearchResult, options: SearchOptions) -> str:
    """The result as text."""
    lines = [f"{'layer':44}{'parity alone':>14}{'time saved':>12}  "]
    for row in sorted(result.sensitivities, key=lambda row: row.parity):
        state = options.precision if row.chosen else row.excluded or options.rest
        lines.append(f"{row.layer:44}{row.parity:11.1f} dB{100 * row.saved:10.1f} %  {state}")
    lines.append(f"\n{'':30}{'layers':>7}{'parity':>11}{'PSNR lost':>13}{'modelled time':>15}")
    for point in result.pareto:
        verdict = "" if point.passed else "  over the budget"
        lines.append(
            f"{point.name:30}{point.layers:7}{point.parity:8.1f} dB{point.loss:+10.4f} dB{100 * point.time:13.0f} %{verdict}"
        )
    if not result.quantised:
        lines.append(f"no layer fits in {options.precision}: the answer is {options.rest}")
    return "\n".join(lines)


def as_json(result: SearchResult, options: SearchOptions) -> dict[str, object]:
    """The content of precision.json; `layers` is what export/to_qdq.py reads. Infinite parities are null."""
    rows = {key: [_finite(asdict(row)) for row in getattr(result, key)] for key in ("sensitivities", "pareto")}
    asked = {"budget": options.budget, "min_psnr": options.min_psnr, "precision": options.precision, "rest": options.rest}
    return {"kind": "videodeblur.precision", "schema": 1, "layers": dict(result.precisions), "asked": asked, **rows}


def save_chart(path: Path, rows: Sequence[Sensitivity], min_psnr: float) -> None:
    """Writes horizontal bars as SVG, most sensitive layer on top."""
    drawn = sorted((row for row in rows if math.isfinite(row.parity)), key=lambda row: row.parity)
    title = "parity with the fp32 graph when this layer alone is quantised, dB (the line: least parity of the whole)"
    bars = [(row.layer, row.parity, kind_of(row.chosen, row.excluded)) for row in drawn]
    with partial_file(path, "--chart") as partial:
        partial.write_text(layer_chart(title, " dB", bars, min_psnr, KINDS))


def _svg(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a name that ends with .svg")
    return Path(text)


def _marked(row: Sensitivity, chosen: bool) -> Sensitivity:
    return Sensitivity(**{**asdict(row), "chosen": chosen})


def _finite(values: dict[str, object]) -> dict[str, object]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}


def decibels(text: str) -> float:
    """The value of an option such as "0.05dB"."""
    try:
        return float(text.lower().removesuffix("db"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected decibels such as 0.05dB") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodeblur search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, defaults = parser.add_argument, SearchOptions
    add("--onnx", type=Path, required=True, help="fp32 file of videodeblur export")
    add("--ranges", type=Path, required=True, help="ranges.json of the same file, made by videodeblur calibrate")
    text = "video, folder of frames, or a folder of such; other parts than calibration's are used"
    add("--clips", type=Path, required=True, help=text)
    text = "PSNR against the truth that may be lost (default 0.05dB)"
    add("--budget", type=decibels, default=defaults.budget, metavar="DB", help=text)
    text = "least parity with the fp32 graph, on the clips and on the truth's blurry video (default %(default)s)"
    add("--min-psnr", type=float, default=defaults.min_psnr, metavar="DB", help=text)
    add(
        "--truth",
        type=Path,
        nargs=2,
        default=DEFAULT_PAIR,
        metavar=("BLURRY", "SHARP"),
        help="videos with and without blur (default: the shipped Kodak clip)",
    )
    add("--precision", choices=QUANTISED, default=defaults.precision, help="type to try (default %(default)s)")
    add("--rest", choices=("fp32", "fp16"), default=defaults.rest, help="type of the other layers (default %(default)s)")
    add("--windows", type=int, default=defaults.limit, metavar="N", help="windows of each kind (default %(default)s)")
    text = "pixels of each window's middle (default 184 320)"
    add("--crop", type=int, nargs=2, default=defaults.crop, metavar=("H", "W"), help=text)
    add("--every-layer", action="store_true", help="try the layers too that are kept high by default")
    add(
        "--layer-times",
        type=Path,
        metavar="JSON",
        help="times that were measured, {layer: {precision: milliseconds}}, instead of a model of them",
    )
    add("--output", type=Path, default=Path("precision.json"), help="precision.json to write (default %(default)s)")
    add("--chart", type=_svg, metavar="SVG", help="draw the sensitivity of each layer")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
