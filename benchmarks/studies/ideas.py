"""Ways to run the same network faster, interleaved: milliseconds for a window, and parity.

All are bare requests of OpenVINO; the first is compiled as `Engine` compiles it, and leaves out its checks and copies.

python benchmarks/studies/ideas.py model.onnx                                   OpenVINO in bf16, where the CPU has it
python benchmarks/studies/ideas.py model.onnx --graphs other_export.onnx        and other graphs of the same network

docs/performance.md says which were kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.arguments import count, size
from benchmarks.shared.timing import Effort, interleave_for
from benchmarks.shared.windows import BLURRY, read_material
from benchmarks.table.report import FEWEST, Ratio, Spread
from runtime.backends.openvino_runner import core, native_bf16, openvino, settings
from runtime.command_line import command
from runtime.errors import InputError
from runtime.machine.hardware import cpu_name, usable_cores
from runtime.pixels.metrics import decibels_for_json, psnr

TOGETHER = 2  # windows in every call, so that ways which need several can be compared
NOW = "compiled as Engine does"

Planes = npt.NDArray[np.float32]  # (TOGETHER, F, H, W)
Way = Callable[[Planes], Planes]


@dataclass(frozen=True)
class Idea:
    """One way, measured."""

    name: str
    window_ms: Spread  # of one window
    processor_ms: float  # median of the processor time of one window; on one thread it hardly feels a busy machine
    times_as_fast: Ratio  # as the first way
    parity_db: float  # of the output with that of the first way, peak 1.0; 200 where equal


@dataclass(frozen=True)
class Ideas:
    """All of one run."""

    cpu: str
    load: float  # the system's load average when it ended
    model: str
    precision: str
    height: int
    width: int
    rows: tuple[Idea, ...]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/studies/ideas.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX file with float I/O and free sizes")
    parser.add_argument("--graphs", type=Path, nargs="+", default=[], help="files of other graphs of the network, run as the first")
    parser.add_argument("--size", default="320x184", metavar="WxH", help="pixels, multiples of 16 (default %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="arithmetic (default: bf16 where the CPU has it)")
    parser.add_argument("--threads", type=count, help="CPU cores (default: left to OpenVINO, as Engine does)")
    parser.add_argument("--iterations", type=count, default=10, help="rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    given = parser.parse_args(argv)
    width, height = size(given.size)
    found = measure(given.model, given.graphs, height, width, given.iterations, given.precision, given.threads)
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    return 0


def measure(
    model: Path,
    graphs: Sequence[Path],
    height: int,
    width: int,
    iterations: int,
    precision: str | None = None,
    threads: int | None = None,
) -> Ideas:
    """Times every way on the same windows. Raises InputError when the size cannot be cut into tiles of multiples of 8."""
    if height % 16 or width % 16:
        raise InputError(f"the size is {width}x{height}, expected multiples of 16: tiles of half of it are tried, too")
    precision = precision or ("bf16" if native_bf16() else "fp32")
    windows = read_material(BLURRY, None, 1, (TOGETHER, 5, height, width)).blurry[0]
    build = _Build(windows.shape, precision, threads)
    ways = {**_ways(model, build), **{path.name: _one_by_one(path, build) for path in graphs}}
    outputs = {name: np.array(way(windows)) for name, way in ways.items()}
    calls = {name: lambda way=way: way(windows) for name, way in ways.items()}
    timings = {timing.name: timing for timing in interleave_for(calls, Effort(iterations, 0, 0))}
    rows = tuple(
        Idea(
            name,
            Spread.of([milliseconds / TOGETHER for milliseconds in timing.milliseconds]),
            float(np.median(timing.processor)) / TOGETHER,
            Ratio.of(timings[NOW], timing),
            decibels_for_json(psnr(outputs[name], outputs[NOW], 1.0)),
        )
        for name, timing in timings.items()
    )
    return Ideas(cpu_name(), os.getloadavg()[0], model.name, precision, height, width, rows)


def table(found: Ideas) -> str:
    """The figures as text."""
    lines = [
        f"{found.model} in {found.precision} on OpenVINO, {found.width}x{found.height}, {found.cpu}, load {found.load:.1f}",
        f"{'':34}{'ms a window':>12}{'p90':>9}{'processor':>11}   {'times as fast (p10 to p90)':28}{'parity':>9}",
    ]
    for row in found.rows:
        numbers = f"{row.window_ms.median:12.1f}{_p90(row):>9}{row.processor_ms:11.1f}"
        lines.append(f"{row.name:34}{numbers}   {row.times_as_fast!s:28}{row.parity_db:6.1f} dB")
    return "\n".join(lines)


def markdown(found: Ideas) -> str:
    """The figures as Markdown."""
    lines = [
        f"{found.model} in {found.precision} on OpenVINO, windows of {found.width}x{found.height}, {found.cpu}; "
        f"load average {found.load:.1f}.",
        "",
        "| way | ms a window | p90 | processor ms | times as fast (p10 to p90) | parity with the first, dB |",
        "|---|---|---|---|---|---|",
    ]
    for row in found.rows:
        words = (
            row.name,
            f"{row.window_ms.median:.1f}",
            _p90(row),
            f"{row.processor_ms:.1f}",
            str(row.times_as_fast),
            f"{row.parity_db:.1f}",
        )
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def _p90(row: Idea) -> str:
    return f"{row.window_ms.p90:.1f}" if row.window_ms.calls >= FEWEST["p90"] else "-"


@dataclass(frozen=True)
class _Build:
    """For what a network is compiled."""

    shape: tuple[int, ...]  # (TOGETHER, F, H, W)
    precision: str
    threads: int | None  # as many as OpenVINO takes when None

    def request(self, model: Path, batch: int = 1, tiles: int = 1, **properties: str) -> openvino.InferRequest:
        """Compiles for a batch, or for a window whose sides are cut into `tiles`; the hint is LATENCY unless one is given."""
        _, frames, height, width = self.shape
        network = core().read_model(model)
        network.reshape([batch, frames, height // tiles, width // tiles])
        given = {**settings(self.precision, self.threads), **properties}
        return core().compile_model(network, "CPU", given).create_infer_request()


def _ways(model: Path, build: _Build) -> dict[str, Way]:
    cores = build.threads or usable_cores()
    return {
        NOW: _one_by_one(model, build),
        f"{cores} streams of a thread": _streams(model, build, NUM_STREAMS=str(cores)),
        "throughput hint": _streams(model, build, PERFORMANCE_HINT="THROUGHPUT"),
        f"batch of {TOGETHER} windows": _batch(model, build),
        "threads not pinned": _one_by_one(model, build, ENABLE_CPU_PINNING="NO"),
        "threads pinned": _one_by_one(model, build, ENABLE_CPU_PINNING="YES"),
        "four tiles without overlap": _tiles(model, build),
    }


def _one_by_one(model: Path, build: _Build, **properties: str) -> Way:
    """One window after the other, each with all cores."""
    request = build.request(model, **properties)
    return lambda windows: np.concatenate([np.array(request.infer({0: window[None]}, share_inputs=True)[0]) for window in windows])


def _batch(model: Path, build: _Build) -> Way:
    """All windows in one tensor."""
    request = build.request(model, batch=TOGETHER)
    return lambda windows: np.array(request.infer({0: windows}, share_inputs=True)[0])


def _streams(model: Path, build: _Build, **properties: str) -> Way:
    """All windows at once, each with a share of the cores."""
    compiled = build.request(model, **properties).get_compiled_model()
    requests = [compiled.create_infer_request() for _ in range(TOGETHER)]

    def run(windows: Planes) -> Planes:
        for request, window in zip(requests, windows):
            request.start_async({0: window[None]}, share_inputs=True)
        for request in requests:
            request.wait()
        return np.concatenate([np.array(request.get_output_tensor().data) for request in requests])

    return run


def _tiles(model: Path, build: _Build) -> Way:
    """Quarters of the picture, one after the other: the most that smaller, cache-friendlier tensors could gain; seams are wrong."""
    height, width = build.shape[2] // 2, build.shape[3] // 2
    request = build.request(model, tiles=2)

    def run(windows: Planes) -> Planes:
        sharp = np.empty_like(windows)
        for window, result in zip(windows, sharp):
            for top in (0, height):
                for left in (0, width):
                    part = (slice(None), slice(top, top + height), slice(left, left + width))
                    result[part] = request.infer({0: np.ascontiguousarray(window[part])[None]}, share_inputs=True)[0][0]
        return sharp

    return run


if __name__ == "__main__":
    raise SystemExit(main())
