"""`videodeblur run` in a process of its own: seconds to its first sharp window, before and after it has chosen a bundle's file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shared.made_clip import make_clip
from runtime.default_model import ROOT
from runtime.errors import BackendError

WINDOW = 5  # frames
CACHE = "XDG_CACHE_HOME"
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # an installed program has its bytecode, the second start of any other too
FRAME = b"FRAME"  # what each begins with in y4m


@dataclass(frozen=True)
class FirstWindow:
    """Seconds from the start of each process to the first sharp frame in its standard output; files are in the system's cache."""

    width: int
    height: int
    cold: tuple[float, ...]  # with an empty cache: every way to run the bundle is timed first
    warm: tuple[float, ...]  # once more, with what that process left there


def measure(video: Path, model: Path, height: int, width: int, rounds: int) -> FirstWindow:
    """Runs `model` as `--model` names it on one window of the video, scaled. Raises BackendError with a run's last words."""
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(video, WINDOW, width, height, clip)
        for _ in range(rounds):
            with empty_cache():
                cold.append(_seconds(clip, model))
                warm.append(_seconds(clip, model))
    return FirstWindow(width, height, tuple(cold), tuple(warm))


@contextmanager
def empty_cache() -> Iterator[None]:
    """What was chosen on this machine before is not known in here, nor in processes that are started here."""
    before = os.environ.get(CACHE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            del os.environ[CACHE]
            os.environ.update({} if before is None else {CACHE: before})


def _seconds(clip: Path, model: Path) -> float:
    program = [sys.executable, str(ROOT / "videodeblur"), "run", str(clip), "-", "--model", str(model), "--no-progress"]
    environment = {name: value for name, value in os.environ.items() if name != NO_BYTECODE}
    with tempfile.TemporaryFile("w+") as complaints:
        begun = time.perf_counter()
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=complaints, env=environment) as process:
            found = any(line.startswith(FRAME) for line in process.stdout or ())
            seconds = time.perf_counter() - begun
            process.communicate()
        if process.returncode or not found:
            complaints.seek(0)
            raise BackendError(f"videodeblur run failed: {(complaints.read().strip().splitlines() or ['it said nothing'])[-1]}")
        return seconds
