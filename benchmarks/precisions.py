"""Latency and parity of model files on one window of a real clip, interleaved in one run.

python benchmarks/precisions.py model.onnx@openvino:fp32 model.onnx@openvino:bf16 model_int8.onnx@openvino:bf16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.timing import Timing, interleave, ratio
from runtime import Engine
from runtime.command_line import command
from runtime.errors import InputError
from runtime.hardware import cpu_name
from runtime.metrics import psnr
from runtime.sample_codes import to_unit
from runtime.video import VideoReader

CLIP = Path(__file__).resolve().parents[1] / "export" / "clips" / "kodak_blurry.mp4"


@dataclass(frozen=True)
class Row:
    """One candidate."""

    timing: Timing
    parity: float  # dB of its output against the first candidate's; infinite where equal


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/precisions.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidates", nargs="+", metavar="FILE[@BACKEND[:PRECISION]]", help="the first is what is right")
    parser.add_argument("--clip", type=Path, default=CLIP, help="the window is from its middle (default: the shipped clip)")
    parser.add_argument("--size", type=int, nargs=2, default=(184, 320), metavar=("H", "W"), help="default 184 320")
    parser.add_argument("--rounds", type=int, default=15, help="calls of each candidate (default %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU cores (default: all)")
    options = parser.parse_args(argv)
    rows = measure(options.candidates, middle_window(options.clip, *options.size), options.rounds, options.threads)
    print(f"one window 1x5x{options.size[0]}x{options.size[1]} on {cpu_name()}, {options.rounds} rounds, interleaved")
    print(table(rows))
    return 0


def measure(candidates: Sequence[str], window: npt.NDArray[np.float32], rounds: int, threads: int | None = None) -> list[Row]:
    """Times every candidate on a window (1, F, H, W) and compares its output with the first one's."""
    with ExitStack() as opened:
        engines = {spec: opened.enter_context(_open(spec, threads)) for spec in candidates}
        outputs = {spec: engine.run(window) for spec, engine in engines.items()}
        calls = {spec: lambda engine=engine: engine.run(window) for spec, engine in engines.items()}
        timings = interleave(calls, rounds)
    return [Row(timing, psnr(outputs[timing.name], outputs[candidates[0]], 1.0)) for timing in timings]


def middle_window(clip: Path, height: int, width: int, frames: int = 5) -> npt.NDArray[np.float32]:
    """(1, frames, height, width) luma in [0, 1], from the middle of the picture and of at most 60 frames of a clip.

    Raises InputError when the clip is too short or too small, VideoError when it is no video.
    """
    with VideoReader(clip, limit=60) as reader:
        lumas = [to_unit(frame.luma, reader.info.bits, reader.info.color_range) for frame in reader]
    if len(lumas) < frames or lumas[0].shape[0] < height or lumas[0].shape[1] < width:
        raise InputError(
            f"{clip} has {len(lumas)} frames of {lumas[0].shape if lumas else 0}, expected {frames} of {height}x{width}"
        )
    first = (len(lumas) - frames) // 2
    top, left = (lumas[0].shape[0] - height) // 2, (lumas[0].shape[1] - width) // 2
    return np.stack(lumas[first : first + frames])[None, :, top : top + height, left : left + width].copy()


def table(rows: Sequence[Row]) -> str:
    """The figures as text; ratios are to the first candidate, above 1 is faster than it."""
    width = max(len(row.timing.name) for row in rows) + 2
    lines = [f"{'':{width}}{'median':>9}{'p10':>9}{'p90':>9}   {'times as fast as the first (p10 to p90)':42}parity with it"]
    for row in rows:
        middle, low, high = ratio(rows[0].timing, row.timing)
        numbers = f"{row.timing.median:9.1f}{row.timing.percentile(10):9.1f}{row.timing.percentile(90):9.1f} ms"
        lines.append(f"{row.timing.name:{width}}{numbers}{middle:8.2f} {f'({low:.2f} to {high:.2f})':33}{row.parity:7.1f} dB")
    return "\n".join(lines)


def _open(spec: str, threads: int | None) -> Engine:
    path, _, how = spec.partition("@")
    backend, _, precision = how.partition(":")
    return Engine(Path(path), backend or "auto", precision or "auto", threads)


if __name__ == "__main__":
    raise SystemExit(main())
