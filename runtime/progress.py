"""How a long run tells what it does: sentences, and a bar on a terminal or a plain line now and then elsewhere."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Optional, TextIO

BAR_WIDTH = 24  # characters
REDRAW_EVERY = 0.1  # seconds, on a terminal
LINE_EVERY = 10.0  # seconds, elsewhere
PACE_OVER = 20.0  # seconds of the past that the time left is estimated from
SETTLED = 2.0  # seconds after the first frame; until then a pace means nothing, since frames come in windows

Progress = Callable[[int, Optional[int]], None]  # (done, expected, None when unknown)
Say = Callable[[str], None]  # a sentence for the user, before or beside the progress


class ProgressBar:
    """Shows (done, total) as `callable(done, total)`; a context manager that leaves the cursor on a fresh line.

    On a terminal one line is redrawn in place, with frames per second and time left; elsewhere a line is printed every ten
    seconds, so that a log stays short. `total` may be None, or smaller than `done` when it was
    an estimate. `unit` names what is counted.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, unit: str = "frames") -> None:
        self._stream = stream or sys.stderr or io.StringIO()  # a program without a console has no stderr
        self._clock, self._terminal, self._unit = clock, self._stream.isatty(), unit
        self._history: deque[tuple[float, int]] = deque()  # (time, done), from the first frame on: the start is no measure
        self._shown = clock()
        self._drawn = ""

    def __call__(self, done: int, total: int | None) -> None:
        """Notes that `done` of `total` frames are finished, and shows it when it is time to."""
        now = self._clock()
        self._history.append((now, done))
        while len(self._history) > 2 and self._history[1][0] < now - PACE_OVER:
            self._history.popleft()
        if now - self._shown >= (REDRAW_EVERY if self._terminal else LINE_EVERY):
            self._shown = now
            self._show(self._line(done, total))

    def close(self) -> None:
        """Wipes the bar from the terminal, so that what is printed next stands alone; calling it again does nothing."""
        if self._drawn:
            self._stream.write("\r" + " " * len(self._drawn) + "\r")
            self._stream.flush()
            self._drawn = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _line(self, done: int, total: int | None) -> str:
        pace = self._pace()
        rate = f"{pace:.1f} fps" if self._unit == "frames" else f"{pace:.2f} {self._unit}/s"
        speed = f"  {rate}" if pace else ""
        if not total or total < done:
            return f"{done} {self._unit}{speed}"
        bar = ("#" * (BAR_WIDTH * done // total)).ljust(BAR_WIDTH, "-") + " " if self._terminal else ""
        left = f"  {clock_text((total - done) / pace)} left" if pace else ""
        return f"{100 * done // total:3d} % {bar}{done}/{total} {self._unit}{speed}{left}"

    def _pace(self) -> float:
        """Frames per second lately; 0 while that is not known."""
        (since, before), (now, done) = self._history[0], self._history[-1]
        return (done - before) / (now - since) if now - since >= SETTLED else 0.0

    def _show(self, line: str) -> None:
        if not self._terminal:
            print(line, file=self._stream, flush=True)
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + line.ljust(len(self._drawn)))
        self._stream.flush()
        self._drawn = line


def clock_text(seconds: float) -> str:
    """H:MM:SS, or M:SS under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
