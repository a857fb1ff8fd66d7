"""Peak memory of `videodeblur run` against the length of the video: it should not grow."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import command
from runtime.errors import BackendError, InputError
from runtime.hardware import cpu_name

GOAL = 150  # MB, how much more the longest run may take than the shortest
RATE = 25  # frames per second of the made clips


@dataclass(frozen=True)
class MemoryOptions:
    """What is run."""

    video: Path  # repeated until it is long enough
    lengths: tuple[int, ...]  # frames
    width: int  # pixels
    height: int
    arguments: tuple[str, ...]  # further arguments of `videodeblur run`


@dataclass(frozen=True)
class Peak:
    """What one run took."""

    frames: int
    peak: float  # MB (10^6 bytes) of resident memory, the highest at any time
    fps: float


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/memory.py", description=__doc__, epilog="Other options go to videodeblur run."
    )
    parser.add_argument("video", type=Path, help="any video; it is scaled, and repeated until it is long enough")
    parser.add_argument("--frames", type=int, nargs="+", default=[30, 300], help="lengths to compare (default: 30 300)")
    parser.add_argument("--size", default="1280x720", metavar="WxH", help="pixels (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    arguments, rest = parser.parse_known_args(argv)
    width, height = size(arguments.size)
    options = MemoryOptions(arguments.video, tuple(arguments.frames), width, height, tuple(rest))
    peaks = measure(options)
    print(table(peaks, options))
    if arguments.json:
        arguments.json.write_text(json.dumps({"cpu": cpu_name(), "peaks": [asdict(peak) for peak in peaks]}, indent=1) + "\n")
    return 0


def measure(options: MemoryOptions) -> list[Peak]:
    """Runs each length in a process of its own. Raises BackendError when one fails."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for frames in options.lengths:
            clip = Path(folder) / f"{frames}.mp4"
            make_clip(options, frames, clip)
            peaks.append(_run(clip, clip.with_suffix(".out.mp4"), options.arguments))
        return peaks


def make_clip(options: MemoryOptions, frames: int, path: Path) -> None:
    """Writes `frames` frames of the video, again and again from its start, at the size asked for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = options.width, options.height, "yuv420p"
        pictures = _again_and_again(options.video)
        for number in range(frames):
            picture = next(pictures).reformat(options.width, options.height, "yuv420p")
            picture.pts, picture.time_base, picture.pict_type = number, Fraction(1, RATE), 0
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def table(peaks: Sequence[Peak], options: MemoryOptions) -> str:
    """The figures as text."""
    growth = max(peak.peak for peak in peaks) - min(peak.peak for peak in peaks)
    lines = [f"{options.width}x{options.height} on {cpu_name()}", f"{'frames':>8}{'peak MB':>10}{'fps':>8}"]
    lines += [f"{peak.frames:8}{peak.peak:10.0f}{peak.fps:8.1f}" for peak in peaks]
    return "\n".join([*lines, f"difference {growth:.0f} MB (goal: at most {GOAL})"])


def _run(clip: Path, output: Path, arguments: Sequence[str]) -> Peak:
    program = Path(__file__).resolve().parents[1] / "runtime" / "deblur_video.py"
    command_line = [sys.executable, str(program), str(clip), str(output), "--json", "--no-progress", *arguments]
    process = subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BackendError(f"videodeblur run ended with status {process.returncode}, see above")
    summary = json.loads(printed)
    return Peak(summary["frames"], usage.ru_maxrss * 1024 / 1e6, summary["fps"])  # ru_maxrss is in KiB on Linux


def _again_and_again(path: Path) -> Iterator[av.VideoFrame]:
    while True:
        try:
            with av.open(str(path)) as container:
                yield from container.decode(video=0)
        except (av.FFmpegError, IndexError) as error:
            raise InputError(f"{path} cannot be decoded as a video: {error}") from error


def size(text: str) -> tuple[int, int]:
    """(width, height) in pixels of a text such as "1280x720". Raises InputError on another."""
    try:
        width, height = (int(part) for part in text.split("x"))
    except ValueError as error:
        raise InputError(f"--size is {text!r}, expected WIDTHxHEIGHT such as 1280x720") from error
    return width, height


if __name__ == "__main__":
    raise SystemExit(main(None))
