"""What a window costs by resolution, batch and threads, and a frame by the stride of the windows."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.shared.arguments import count, size
from benchmarks.shared.timing import Effort, Timing, interleave_for
from benchmarks.table.report import FEWEST
from benchmarks.table.subjects import open_engine
from runtime import Engine, StreamDeblurrer
from runtime.command_line import command
from runtime.errors import InputError
from runtime.machine.hardware import cpu_name, usable_cores
from runtime.machine.memory import memory_at_hand
from runtime.progress import Say
from runtime.run.network_memory import bytes_for

SIZES = ("256x256", "640x360", "960x540", "1280x720", "1920x1080", "3840x2160")
BATCHES = (1, 2, 4)
AXES = ("resolution", "batch", "stride", "threads")


Planes = npt.NDArray[np.float32]  # (frames, H, W)

LABELS = {"resolution": "resolution", "batch": "windows in a call", "stride": "frames between windows", "threads": "threads"}


@dataclass(frozen=True)
class ScalingOptions:
    """What is swept. Each axis but the resolution is interleaved: sizes come one after the other."""

    model: str  # FILE[@BACKEND[:PRECISION]]
    sizes: tuple[tuple[int, int], ...]  # H, W, for the resolution
    base: tuple[int, int]  # H, W, for everything else
    batches: tuple[int, ...] = BATCHES
    effort: Effort = Effort(5, 0, 0)  # noqa: RUF009 # frozen


@dataclass(frozen=True)
class Point:
    """One setting."""

    axis: str  # one of AXES
    setting: str  # "1280x720", or a number
    milliseconds: float  # median for a call, or for a frame where the stride is swept
    cost: float  # microseconds for a pixel of a window (resolution, batch, threads) or of a frame (stride)
    low: float  # 10th percentile of the cost
    high: float  # 90th
    calls: int

    @property
    def has_spread(self) -> bool:
        """Whether there were enough calls to speak of one."""
        return self.calls >= FEWEST["p90"]


@dataclass(frozen=True)
class Scaling:
    """All sweeps."""

    cpu: str
    load: float  # the system's load average when it ended
    engine: str  # what ran
    base: str  # WIDTHxHEIGHT of all sweeps but the first
    points: tuple[Point, ...]
    skipped: tuple[str, ...]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/scaling.py", description=__doc__)
    parser.add_argument("model", metavar="FILE[@BACKEND[:PRECISION]]", help="model, engine or bundle")
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, metavar="WxH", help=f"resolutions to measure (default {' '.join(SIZES)})"
    )
    parser.add_argument(
        "--base", default="320x184", metavar="WxH", help="size while batch, stride or threads change (default %(default)s)"
    )
    parser.add_argument("--batches", type=count, nargs="+", default=BATCHES, help="batches to measure (default 1 2 4)")
    parser.add_argument("--iterations", type=count, default=5, help="calls of each setting (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--chart", type=Path, help="draw a panel for each sweep, .svg or .png")
    given = parser.parse_args(argv)
    sizes = tuple(size(text)[::-1] for text in given.sizes)
    effort = Effort(given.iterations, 0, 0)
    found = measure(ScalingOptions(given.model, sizes, size(given.base)[::-1], tuple(given.batches), effort))
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    if given.chart:
        save_chart(found, given.chart)
    return 0


def measure(options: ScalingOptions, say: Say = lambda _: None) -> Scaling:
    """All four sweeps. What does not fit into memory, or the model's fixed size, is left out with the reason."""
    skipped: list[str] = []
    with _open(options, None) as engine:
        points = _resolutions(engine, options, skipped, say)
        say("cost by stride")
        points += _strides(engine, options)
        reason = engine.reason
    say("cost by batch")
    points += _batches(options)
    say("cost by threads")
    points += _threads(options)
    height, width = options.base
    in_order = sorted(points, key=lambda point: AXES.index(point.axis))
    return Scaling(cpu_name(), os.getloadavg()[0], reason, f"{width}x{height}", tuple(in_order), tuple(skipped))


def table(found: Scaling) -> str:
    """The figures as text."""
    lines = [f"{found.cpu}, load {found.load:.1f}; {found.engine}; but for the resolution at {found.base}"]
    for axis in AXES:
        lines.append(f"{axis:12}{'ms':>10}   {'us a pixel (p10 to p90)':28}{'as the first':>12}")
        points = [point for point in found.points if point.axis == axis]
        for point in points:
            lines.append(f"  {point.setting:10}{point.milliseconds:10.1f}   {_cost(point):28}{point.cost / points[0].cost:12.2f}")
    return "\n".join([*lines, *found.skipped])


def markdown(found: Scaling) -> str:
    """The figures as Markdown."""
    lines = [
        f"{found.engine}; {found.cpu}; load average {found.load:.1f}. Batch, stride and threads at {found.base}; milliseconds are "
        "of a call, and of a frame where the stride is swept.",
        "",
        "| | setting | ms | microseconds a pixel (p10 to p90) | of the first |",
        "|---|---|---|---|---|",
    ]
    first = {point.axis: point for point in reversed(found.points)}
    lines += [
        f"| {point.axis} | {point.setting} | {point.milliseconds:.1f} | {_cost(point)} | "
        f"{point.cost / first[point.axis].cost:.2f} |"
        for point in found.points
    ]
    return "\n".join([*lines, *(["", *(f"- {text}" for text in found.skipped)] if found.skipped else [])])


def save_chart(found: Scaling, path: Path) -> None:
    """Writes it; the suffix chooses the format."""
    from benchmarks.shared.chart_file import Figure, save  # matplotlib, where a chart is wanted

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(AXES)), AXES):
        points = [point for point in found.points if point.axis == axis]
        places = range(len(points))
        shown = [(point.cost - point.low, point.high - point.cost) if point.has_spread else (0.0, 0.0) for point in points]
        axes.errorbar(places, [point.cost for point in points], yerr=[*zip(*shown)], marker="o", capsize=3)
        axes.set_xticks(places, [point.setting for point in points], rotation=45 if axis == "resolution" else 0, fontsize=7)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(LABELS[axis], fontsize=8)
        axes.set_title("us for a pixel of a " + ("frame" if axis == "stride" else "window"), fontsize=8)
        axes.tick_params(axis="y", labelsize=7)
    figure.suptitle(f"{found.cpu}; {found.engine.partition(':')[0]}", fontsize=8)
    save(figure, path)


def _cost(point: Point) -> str:
    return f"{point.cost:.3f}" + (f" ({point.low:.3f} to {point.high:.3f})" if point.has_spread else "")


def _open(options: ScalingOptions, threads: int | None) -> Engine:
    return open_engine(options.model, threads)


def _call(engine: Engine, shape: tuple[int, ...]) -> Callable[[], object]:
    window = np.random.default_rng(0).random(shape, dtype=np.float32)
    return lambda: engine.run(window)


def _point(axis: str, setting: str, timing: Timing, pixels: int) -> Point:
    low, cost, high = (1000 * timing.percentile(percent) / pixels for percent in (10, 50, 90))
    return Point(axis, setting, timing.median, cost, low, high, len(timing.milliseconds))


def _resolutions(engine: Engine, options: ScalingOptions, skipped: list[str], say: Say) -> list[Point]:
    points = []
    for height, width in options.sizes:
        say(f"cost at {width}x{height}")
        needed, free = bytes_for(height * width, engine.contract, engine.precision), memory_at_hand()
        if free is not None and needed > free:
            skipped.append(f"{width}x{height} in one piece takes about {needed / 1e9:.0f} GB, {free / 1e9:.0f} are free")
            continue
        try:  # one after the other: their memories together would be too much
            (timing,) = interleave_for({"": _call(engine, (1, engine.contract.frames, height, width))}, options.effort)
        except InputError as error:
            skipped.append(f"{width}x{height}: {error}")
            continue
        points.append(_point("resolution", f"{width}x{height}", timing, height * width))
    return points


def _batches(options: ScalingOptions) -> list[Point]:
    """An engine each, since one keeps only so many shapes compiled."""
    height, width = options.base
    with ExitStack() as opened:
        engines = {str(batch): opened.enter_context(_open(options, None)) for batch in options.batches}
        calls = {name: _call(engine, (int(name), engine.contract.frames, height, width)) for name, engine in engines.items()}
        timings = interleave_for(calls, options.effort)
    return [_point("batch", timing.name, timing, int(timing.name) * height * width) for timing in timings]


def _strides(engine: Engine, options: ScalingOptions) -> list[Point]:
    """From the window's length, where every frame is computed once, down to 1; of streams that are on their way.

    A call pushes as many frames as the stride, which gives one window, and as many frames back.
    """
    height, width = options.base
    frames = np.random.default_rng(0).random((2 * engine.contract.frames, height, width), dtype=np.float32)
    strides = range(engine.contract.frames, 0, -1)
    calls = {str(stride): _under_way(StreamDeblurrer(engine, stride), stride, frames) for stride in strides}
    timings = interleave_for(calls, options.effort)
    per_frame = [Timing(each.name, tuple(spent / int(each.name) for spent in each.milliseconds)) for each in timings]
    return [_point("stride", timing.name, timing, height * width) for timing in per_frame]


def _under_way(deblurrer: StreamDeblurrer, stride: int, frames: Planes) -> Callable[[], object]:
    """A call of `stride` pushes to a stream that already got `frames`, and then those that complete a window."""
    supply = itertools.cycle(frames)
    for _ in frames:
        deblurrer.push(next(supply))
    while not deblurrer.push(next(supply)):
        pass

    def call() -> None:
        returned = sum(len(deblurrer.push(next(supply))) for _ in range(stride))
        if returned != stride:
            raise AssertionError(f"{stride} frames in, {returned} out")

    return call


def _threads(options: ScalingOptions) -> list[Point]:
    """From one core to all, an engine each."""
    height, width = options.base
    with ExitStack() as opened:
        engines = {str(count): opened.enter_context(_open(options, count)) for count in range(1, usable_cores() + 1)}
        calls = {name: _call(engine, (1, engine.contract.frames, height, width)) for name, engine in engines.items()}
        timings = interleave_for(calls, options.effort)
    return [_point("threads", timing.name, timing, height * width) for timing in timings]


if __name__ == "__main__":
    raise SystemExit(main())
