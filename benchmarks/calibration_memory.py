"""Peak memory and time of `videodeblur calibrate` by the number of windows: the peak must not grow with it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import USER_ERROR, command
from runtime.errors import BackendError
from runtime.machine.hardware import cpu_name

TOLERANCE = 0.10  # how much more the most windows may take than the fewest
MIB = 1 << 20
RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of ru_maxrss
CALIBRATE = Path(__file__).resolve().parents[1] / "videodeblur.py"


@dataclass(frozen=True)
class Run:
    """One calibration in a process of its own."""

    windows: int  # asked for
    measured: int  # that the data gave
    peak: int  # bytes, of resident memory
    seconds: float


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints. Status 1 when the peak grows by more than TOLERANCE."""
    parser = argparse.ArgumentParser(prog="benchmarks/calibration_memory.py", description=__doc__)
    parser.add_argument("data", type=Path, help="clips, as for videodeblur calibrate")
    parser.add_argument("--onnx", type=Path, required=True, help="model in fp32, from export/to_onnx.py")
    parser.add_argument("--windows", type=int, nargs="+", default=[8, 64], help="numbers of windows (default 8 64)")
    parser.add_argument("--crop", default="256x448", help="as for videodeblur calibrate (default %(default)s), or full")
    options = parser.parse_args(argv)
    print(f"crop {options.crop}, on {cpu_name()}\n{'windows':>8} {'peak MiB':>9} {'seconds':>8} {'s/window':>9}")
    runs = []
    for windows in options.windows:
        run = measure(options.data, options.onnx, windows, options.crop)
        print(f"{run.measured:8} {run.peak / MIB:9.0f} {run.seconds:8.1f} {run.seconds / run.measured:9.2f}", flush=True)
        runs.append(run)
    growth = max(run.peak for run in runs) / runs[0].peak - 1
    print(f"peak grows by {growth:.1%}, at most {TOLERANCE:.0%} allowed")
    return USER_ERROR if growth > TOLERANCE else 0


def measure(data: Path, onnx: Path, windows: int, crop: str) -> Run:
    """Calibrates in a new process. Raises BackendError with its message when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "ranges.json"
        settings = ["--onnx", str(onnx), "--output", str(output), "--windows", str(windows), "--crop", crop]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(CALIBRATE), "calibrate", str(data), *settings], stdout=subprocess.PIPE, text=True
        )
        with process:
            said = process.stdout.read() if process.stdout else ""
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BackendError(f"videodeblur calibrate ended with status {process.returncode}: see its message above")
        return Run(windows, int(said.split()[0]), usage.ru_maxrss * RUSAGE_UNIT, time.perf_counter() - begin)


if __name__ == "__main__":
    raise SystemExit(main(None))
