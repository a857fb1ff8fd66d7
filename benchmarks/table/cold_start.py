"""One subject in a process of its own: the seconds to its first sharp window, and the most memory it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.peers import PeerInput
from benchmarks.table.subjects import open_subject
from runtime.command_line import command
from runtime.errors import BackendError
from runtime.machine.memory import peak

READY = "first window"


@dataclass(frozen=True)
class Start:
    """What the child is told, as JSON in its only argument."""

    name: str
    model: str
    checkpoint: str | None
    folder: str
    shape: tuple[int, int, int, int]
    threads: int | None


@dataclass(frozen=True)
class ColdStart:
    """What a fresh process takes."""

    seconds: float  # from its start to its first sharp window; files may be in the system's cache
    peak: float | None  # 10^6 bytes of resident memory; None where the system does not say


def measure(name: str, given: PeerInput, threads: int | None) -> ColdStart:
    """Starts the subject anew; what torch.compile keeps is not found again. Raises BackendError with its last words on failure."""
    checkpoint = str(given.checkpoint) if given.checkpoint else None
    start = Start(name, str(given.model), checkpoint, str(given.folder), given.shape, threads)
    with tempfile.TemporaryDirectory() as kept, tempfile.TemporaryFile("w+") as complaints:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(start))],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": kept},
        )
        with process:
            said = process.stdout or ()  # libraries may say something first
            line = next((line for line in said if line.startswith(READY)), "")
            seconds = time.perf_counter() - begun
        if not line:
            complaints.seek(0)
            raise BackendError(f"a fresh process failed: {(complaints.read().strip().splitlines() or ['it said nothing'])[-1]}")
        most = json.loads(line.removeprefix(READY))
        return ColdStart(seconds, None if most is None else most / 1e6)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The child: opens, runs one window, says so, and ends."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(f"usage: cold_start.py JSON\n\n{__doc__}\nIt is started by videodeblur bench.")
        return 0
    told = json.loads(arguments[0])
    shape = tuple(told["shape"])
    nothing = np.empty((0, *shape), np.float32)
    checkpoint = Path(told["checkpoint"]) if told["checkpoint"] else None
    given = PeerInput(Path(told["model"]), checkpoint, shape, Path(told["folder"]), nothing, nothing)
    with open_subject(told["name"], given, told["threads"]) as subject:
        subject.run(subject.encode(np.full(shape, 0.5, np.float32)))
        print(READY, json.dumps(peak()), flush=True)
        os._exit(0)  # some libraries take long to end, and that is nobody's cold start


if __name__ == "__main__":
    raise SystemExit(main())
