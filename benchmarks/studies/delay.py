"""Time from a frame that goes into `videodeblur run - -` to the same frame that comes out, at every stride of --latency.

Another process writes y4m into the pipe, a frame at a time as a camera would, and reads what comes out; a frame counts from its
last byte in to its last byte out. The first frames, while the other side starts, are left out of the figures.

python benchmarks/studies/delay.py model.onnx --size 320x184 --rate 10
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.arguments import count, size
from benchmarks.shared.windows import BLURRY, SHARP, windows
from runtime import Engine, StreamDeblurrer
from runtime.command_line import command
from runtime.errors import BackendError
from runtime.machine.hardware import cpu_name, usable_cores
from runtime.pixels.metrics import psnr
from runtime.pixels.sample_codes import from_unit
from runtime.run.latency import ROOM
from runtime.run.tiling import whole_grid
from runtime.run.window_time import seconds_of_a_tile

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 10  # frames
MARK = b"FRAME\n"


@dataclass(frozen=True)
class Delay:
    """Of one stride."""

    stride: int  # frames between windows
    rate: float  # frames per second that were given
    asked: float  # milliseconds of --latency
    median: float  # milliseconds
    p99: float
    most: float
    frames: int
    behind: bool  # whether the machine was too slow for the rate
    quality: float  # dB against the truth, of frames with so many after them in their window; the clip with synthetic blur


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/studies/delay.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX file, engine or bundle")
    parser.add_argument("--size", default="320x184", metavar="WxH", help="pixels of a frame (default %(default)s)")
    parser.add_argument("--rate", type=float, metavar="FPS", help="frames per second (default: 0.7 of what stride 1 can do)")
    parser.add_argument("--strides", type=count, nargs="+", default=[1, 2, 3, 4, 5], metavar="N", help="strides to measure")
    parser.add_argument("--frames", type=count, default=100, metavar="N", help="frames of each (default %(default)s)")
    parser.add_argument("--threads", type=count, metavar="N", help="CPU cores for the network (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    given = parser.parse_args(argv)
    width, height = size(given.size)
    found = measure(given.model, (height, width), given.rate, given.strides, given.frames, given.threads)
    print(table(found, width, height))
    if given.json:
        given.json.write_text(json.dumps({"cpu": cpu_name(), "rows": [asdict(row) for row in found]}, indent=1) + "\n")
    return 0


def measure(
    model: Path, shape: tuple[int, int], rate: float | None, strides: Sequence[int], frames: int, threads: int | None
) -> list[Delay]:
    """A row for each stride, one after the other."""
    pictures = [from_unit(luma, 8, "limited") for window in windows(BLURRY, 5, shape) for luma in window[0]]
    with Engine(model, threads=threads) as engine:
        grid = whole_grid(*shape, engine.contract)
        seconds = seconds_of_a_tile(engine, grid, np.stack(pictures[:5])[None], 8, "limited") * grid.count
        rate = rate or round(0.7 / seconds, 1)
        qualities = {stride: _quality(engine, pictures, shape, stride) for stride in strides}
    rows = []
    for stride in strides:
        asked = (stride - 0.5) / rate + ROOM * seconds  # half a frame more, so that noise does not choose another stride
        chosen, times = _times(model, pictures, rate, asked, frames, threads)
        median, p99 = np.percentile(times[WARM_UP:], [50, 99])
        rows.append(
            Delay(
                stride=chosen,
                rate=rate,
                asked=asked * 1000,
                median=float(median),
                p99=float(p99),
                most=max(times[WARM_UP:]),
                frames=len(times) - WARM_UP,
                behind=seconds * rate > chosen,
                quality=qualities.get(chosen, math.nan),
            )
        )
    return rows


def _quality(engine: Engine, pictures: Sequence[np.ndarray], shape: tuple[int, int], stride: int) -> float:
    stream, sharp = StreamDeblurrer(engine, bits=8, color_range="limited", delay=stride - 1), []
    for picture in pictures:
        sharp += stream.push(picture)
    truth = [from_unit(luma, 8, "limited") for window in windows(SHARP, 5, shape) for luma in window[0]]
    return float(np.mean([psnr(a, b, 255) for a, b in zip(sharp + stream.flush(), truth)]))


def _times(
    model: Path, pictures: Sequence[np.ndarray], rate: float, latency: float, frames: int, threads: int | None
) -> tuple[int, list[float]]:
    """The stride that was chosen, and the milliseconds of each frame."""
    line = [sys.executable, "-m", "runtime.deblur_video", "-", "-", "--model", str(model), "--latency", f"{latency * 1000:.3f}ms"]
    line += ["--no-progress", "--scene-thresh", "0", *(["--threads", str(threads)] if threads else [])]
    height, width = pictures[0].shape
    pixels = height * width + 2 * (-(-height // 2) * -(-width // 2))
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        given: list[float] = []
        ready = threading.Event()
        sink, source = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        writer = threading.Thread(target=_feed, args=(sink, list(pictures), rate, frames, given, ready), daemon=True)
        writer.start()
        taken = list(_arrivals(source, pixels, ready))
        writer.join()
        said = cast("IO[bytes]", process.stderr).read().decode()
    chosen = re.search(r"a frame waits for (\d) others", said)
    if process.returncode or len(taken) != frames or not chosen:
        raise BackendError(f"{len(taken)} frames of {frames} came out: {said.strip().splitlines()[-1:]}")
    return int(chosen[1]) + 1, [(out - into) * 1000 for into, out in zip(given, taken)]


def _feed(
    sink: IO[bytes], pictures: Sequence[np.ndarray], rate: float, frames: int, given: list[float], ready: threading.Event
) -> None:
    """Writes frames at their times, from the first that came out on; those before as fast as they are taken."""
    height, width = pictures[0].shape
    gray = np.full(2 * (-(-height // 2) * -(-width // 2)), 128, np.uint8).tobytes()
    sink.write(f"YUV4MPEG2 W{width} H{height} F{round(rate * 1000)}:1000 Ip A1:1 C420jpeg\n".encode())
    due = time.perf_counter()
    for number in range(frames):
        if number == WARM_UP:
            ready.wait()
            due = time.perf_counter()
        time.sleep(max(0.0, due - time.perf_counter()))
        due += 1 / rate
        sink.write(MARK + pictures[number % len(pictures)].tobytes() + gray)
        sink.flush()
        given.append(time.perf_counter())
    sink.close()


def _arrivals(source: IO[bytes], pixels: int, ready: threading.Event) -> Iterator[float]:
    """When each frame is whole."""
    source.readline()
    while source.readline():
        left = pixels
        while left:
            left -= len(source.read(left))
        yield time.perf_counter()
        ready.set()


def table(rows: Sequence[Delay], width: int, height: int) -> str:
    """The figures as text."""
    lines = [
        f"{width}x{height} through a y4m pipe, on {cpu_name()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}",
        f"{'stride':>6}{'fps in':>8}{'--latency':>11}{'median':>10}{'p99':>10}{'most':>10}{'PSNR':>11}   frames",
    ]
    for row in rows:
        figures = "".join(f"{value:7.0f} ms" for value in (row.median, row.p99, row.most))
        slow = ", too slow for the rate" if row.behind else ""
        lines.append(f"{row.stride:6}{row.rate:8.1f}{row.asked:8.0f} ms{figures}{row.quality:8.2f} dB   {row.frames}{slow}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
