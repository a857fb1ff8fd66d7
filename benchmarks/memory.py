"""Peak memory of `videodeblur run` against the length of the video: it should not grow."""

from __future__ import annotations

import argparse
import json
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

from benchmarks.shared.arguments import count, size
from runtime.command_line import command
from runtime.errors import BackendError, InputError
from runtime.machine.hardware import cpu_name

GOAL = 150  # MB, how much more the longest run may take than the shortest
RATE = 25  # frames per second of the made clips
ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import sys
sys.path[0] = sys.argv.pop(1)
from benchmarks.shared.peak_memory import peak
from runtime.deblur_video import main
status = main(sys.argv[1:])
print(peak())
raise SystemExit(status)
"""


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
    parser.add_argument("--frames", type=count, nargs="+", default=[30, 300], help="lengths to compare (default: 30 300)")
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
    command_line = [sys.executable, "-c", CHILD, str(ROOT), str(clip), str(output), "--json", "--no-progress", *arguments]
    done = subprocess.run(command_line, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BackendError(f"videodeblur run ended with status {done.returncode}, see above")
    summary, peak = done.stdout.splitlines()
    told = json.loads(summary)
    return Peak(told["frames"], int(peak) / 1e6, told["fps"])


def _again_and_again(path: Path) -> Iterator[av.VideoFrame]:
    while True:
        try:
            with av.open(str(path)) as container:
                yield from container.decode(video=0)
        except (av.FFmpegError, IndexError) as error:
            raise InputError(f"{path} cannot be decoded as a video: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main(None))
