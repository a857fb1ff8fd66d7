"""trtexec on the same ONNX file, in a process of its own and with its own clock. Not yet run on a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.shared.timing import Effort
from runtime.errors import BackendError

WITH_COPIES = "--includeDataTransfers"  # of TensorRT 11


def measure(model: Path, shape: Sequence[int], effort: Effort) -> list[dict[str, float]]:
    """What its --exportTimes writes, a call each: computeMs without and latencyMs with the copies in and out.

    TensorRT 11 builds the types that the file has, so this is fp32 with TF32; earlier versions likewise, since no other flag is
    given. Raises BackendError when there is no trtexec, or it fails.
    """
    program = shutil.which("trtexec")
    if program is None:
        raise BackendError("trtexec is not on the PATH; the wheels do not bring it: measure with videodeblur trtexec instead")
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        command = [
            program,
            f"--onnx={model}",
            f"--shapes=blurry:{'x'.join(map(str, shape))}",
            f"--iterations={effort.iterations}",
            f"--warmUp={effort.warmup:g}",
            f"--duration={effort.duration:g}",
            f"--exportTimes={times}",
        ]
        flags = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
        if WITH_COPIES in flags:  # earlier versions time the copies in any case, and refuse the flag
            command.append(WITH_COPIES)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not times.is_file():
            raise BackendError(f"trtexec failed: {((done.stderr or done.stdout).strip().splitlines() or ['it said nothing'])[-1]}")
        return read_times(times.read_text())


def read_times(text: str) -> list[dict[str, float]]:
    """The calls in a file of --exportTimes. Raises BackendError when it is none."""
    try:
        calls = [{key: float(call[key]) for key in ("computeMs", "latencyMs")} for call in json.loads(text)]
        if not calls:
            raise ValueError("it has no calls")
        return calls
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"this is no file of trtexec's --exportTimes ({error!r})") from error
