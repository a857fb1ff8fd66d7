"""A library with one and two workers of one core each, with Ray on this machine, and without Ray: frames a second, and scaling."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.shared.arguments import count, size
from benchmarks.shared.made_clip import make_clip
from benchmarks.shared.timing import Timing, interleave, ratio
from runtime.command_line import command
from runtime.errors import BackendError
from runtime.machine.hardware import cpu_name

ROOT = Path(__file__).resolve().parents[1]
ALONE, ONE, TWO = "in one process, without Ray", "Ray, 1 worker", "Ray, 2 workers"
WORKERS = {ALONE: 0, ONE: 1, TWO: 2}


@dataclass(frozen=True)
class ClusterOptions:
    """What is timed."""

    video: Path  # any; it is scaled, and repeated until it is long enough
    model: Path  # ONNX file
    clips: int  # copies of it in the library
    frames: int  # of each
    segment: int  # frames
    width: int  # pixels
    height: int
    rounds: int


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/cluster.py", description=__doc__)
    parser.add_argument("video", type=Path, help="any video; it is scaled, and repeated until it is long enough")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file from export/to_onnx.py")
    parser.add_argument("--clips", type=count, default=6, help="videos in the library (default: %(default)s)")
    parser.add_argument("--frames", type=count, default=50, help="frames of each clip (default: %(default)s)")
    parser.add_argument("--segment", type=count, default=25, help="frames of a segment (default: %(default)s)")
    parser.add_argument("--size", default="192x112", metavar="WxH", help="pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=count, default=3, help="rounds to measure (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args(argv)
    width, height = size(arguments.size)
    counts = (arguments.clips, arguments.frames, arguments.segment, width, height, arguments.rounds)
    options = ClusterOptions(arguments.video, arguments.model, *counts)
    load = os.getloadavg()[0]
    work, whole = measure(options)
    print(table(work, whole, options, load))
    if arguments.json:
        figures = {
            "cpu": cpu_name(),
            "load": load,
            "work": [asdict(each) for each in work],
            "whole": [asdict(each) for each in whole],
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(options: ClusterOptions) -> tuple[list[Timing], list[Timing]]:
    """(milliseconds from the first ready worker to the last join, as the command says them; those of the whole command)."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for number in range(options.clips):
            make_clip(options.video, options.frames, options.width, options.height, source / f"{number}.mp4")
        told: dict[str, list[float]] = {name: [] for name in WORKERS}
        whole = interleave({name: _run(name, source, options, told) for name in WORKERS}, options.rounds, warmup=1)
    return [Timing(name, tuple(times[-options.rounds :])) for name, times in told.items()], whole


def table(work: Sequence[Timing], whole: Sequence[Timing], options: ClusterOptions, load: float) -> str:
    """The figures as text; `load` is the machine's before the first run, which should be near 0."""
    frames = options.clips * options.frames
    lines = [
        f"{options.clips} clips of {options.frames} frames, {options.width}x{options.height}, in segments of {options.segment},"
        f" workers of one core, on {cpu_name()}, whose load before was {load:.1f}",
        f"{'':<30}{'fps':>8}{'seconds':>10}{'with start':>12}",
    ]
    for inside, all_of_it in zip(work, whole):
        seconds = inside.median / 1000
        lines.append(f"{inside.name:<30}{frames / seconds:8.1f}{seconds:10.1f}{all_of_it.median / 1000:12.1f}")
    by_name = {timing.name: timing for timing in work}
    for label, slower, faster in (
        ("two workers are", by_name[ONE], by_name[TWO]),
        ("Ray with one worker is", by_name[ALONE], by_name[ONE]),
    ):
        times, low, high = ratio(slower, faster)
        reference = "one" if faster.name == TWO else "no Ray"
        lines.append(f"{label} {times:.2f} times as fast as {reference} (10 to 90 %: {low:.2f} to {high:.2f})")
    return "\n".join(lines)


def _run(name: str, source: Path, options: ClusterOptions, told: dict[str, list[float]]) -> Callable[[], object]:
    network = ["--model", options.model, "--threads", 1, "--segment", options.segment, "--workers", WORKERS[name]]

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=source.parent) as output:
            command_line = [sys.executable, ROOT / "videodeblur", "library", source, output, *network, "--json", "--no-progress"]
            done = subprocess.run([*map(str, command_line)], capture_output=True, text=True)
            if done.returncode:
                raise BackendError(f"{name} failed: {done.stderr.strip()}")
            told[name].append(1000 * json.loads(done.stdout)["seconds"])

    return run


if __name__ == "__main__":
    raise SystemExit(main())
