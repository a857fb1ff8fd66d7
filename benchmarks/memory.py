"""Peak memory of `videodeblur run` against the length of the video, or of `videodeblur calibrate` against the number of windows.

Neither should grow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.shared.arguments import count, size
from benchmarks.shared.made_clip import make_clip
from runtime.command_line import USER_ERROR, command
from runtime.errors import BackendError
from runtime.machine.hardware import cpu_name

GOAL = 150  # MB, how much more the longest run may take than the shortest
TOLERANCE = 0.10  # how much more the most windows may take than the fewest
ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import sys
sys.path[0] = sys.argv.pop(1)
from runtime.machine.memory import peak
from videodeblur import main
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


@dataclass(frozen=True)
class CalibrationPeak:
    """What one calibration took."""

    windows: int
    peak: float  # MB
    seconds: float


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints. Status 1 when a calibration's peak grows by more than TOLERANCE."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/memory.py", description=__doc__, epilog="Other options go to videodeblur run, or calibrate."
    )
    parser.add_argument("video", type=Path, help="any video; it is scaled, and repeated until it is long enough")
    parser.add_argument(
        "--frames", type=count, nargs="+", default=[30, 300], help="lengths to compare, in frames (default: 30 300)"
    )
    parser.add_argument("--size", default="1280x720", metavar="WxH", help="pixels (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--calibrate", type=Path, metavar="MODEL", help="fp32 ONNX file to calibrate on the video, instead of a run"
    )
    parser.add_argument("--windows", type=count, nargs="+", default=[8, 64], help="numbers of windows to compare (default: 8 64)")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.calibrate:
        calibrations = [measure_calibration(arguments.video, arguments.calibrate, number, rest) for number in arguments.windows]
        growth = max(each.peak for each in calibrations) / calibrations[0].peak - 1
        print(calibration_table(calibrations, growth))
        _write(arguments.json, calibrations)
        return USER_ERROR if growth > TOLERANCE else 0
    width, height = size(arguments.size)
    options = MemoryOptions(arguments.video, tuple(arguments.frames), width, height, tuple(rest))
    peaks = measure(options)
    print(table(peaks, options))
    _write(arguments.json, peaks)
    return 0


def measure(options: MemoryOptions) -> list[Peak]:
    """Runs each length in a process of its own. Raises BackendError when one fails."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for frames in options.lengths:
            clip = Path(folder) / f"{frames}.mp4"
            make_clip(options.video, frames, options.width, options.height, clip)
            said, peak = _child("run", clip, clip.with_suffix(".out.mp4"), "--json", "--no-progress", *options.arguments)
            told = json.loads(said)
            peaks.append(Peak(told["frames"], peak, told["fps"]))
        return peaks


def measure_calibration(data: Path, model: Path, windows: int, arguments: Sequence[str]) -> CalibrationPeak:
    """Calibrates in a process of its own. Raises BackendError when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        output, begun = Path(folder) / "ranges.json", time.perf_counter()
        said, peak = _child("calibrate", data, "--onnx", model, "--output", output, "--windows", windows, *arguments)
        return CalibrationPeak(int(said.split()[0]), peak, time.perf_counter() - begun)


def table(peaks: Sequence[Peak], options: MemoryOptions) -> str:
    """The figures as text."""
    growth = max(peak.peak for peak in peaks) - min(peak.peak for peak in peaks)
    lines = [f"{options.width}x{options.height} on {cpu_name()}", f"{'frames':>8}{'peak MB':>10}{'fps':>8}"]
    lines += [f"{peak.frames:8}{peak.peak:10.0f}{peak.fps:8.1f}" for peak in peaks]
    return "\n".join([*lines, f"difference {growth:.0f} MB (goal: at most {GOAL})"])


def calibration_table(found: Sequence[CalibrationPeak], growth: float) -> str:
    """The figures as text."""
    lines = [f"on {cpu_name()}", f"{'windows':>8}{'peak MB':>10}{'seconds':>9}{'s/window':>10}"]
    lines += [f"{row.windows:8}{row.peak:10.0f}{row.seconds:9.1f}{row.seconds / row.windows:10.2f}" for row in found]
    return "\n".join([*lines, f"the peak grows by {growth:.1%}, at most {TOLERANCE:.0%} allowed"])


def _child(name: str, *arguments: object) -> tuple[str, float]:
    """(what the command printed, MB that its process took). Raises BackendError when it fails, or the system does not say."""
    command_line = [sys.executable, "-c", CHILD, str(ROOT), name, *map(str, arguments)]
    done = subprocess.run(command_line, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BackendError(f"videodeblur {name} ended with status {done.returncode}, see above")
    said, _, peak = done.stdout.rstrip().rpartition("\n")
    if not peak.isdigit():
        raise BackendError("this system does not say how much memory a process took: measure on another")
    return said, int(peak) / 1e6


def _write(path: Path | None, peaks: Sequence[Peak | CalibrationPeak]) -> None:
    if path:
        path.write_text(json.dumps({"cpu": cpu_name(), "peaks": [asdict(peak) for peak in peaks]}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main(None))
