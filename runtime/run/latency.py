"""`--latency`: how long a frame may wait for others, what that costs, and which frames were later all the same."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from runtime.errors import InputError

if TYPE_CHECKING:  # so that those who only import this need no PyAV
    from runtime.video import Frame

ROOM = 1.2  # of a window's time, for decoding, encoding and what else the machine does meanwhile


def longest_delay(latency: float, seconds: float, rate: Fraction | float, frames: int) -> int:
    """The most frames that one may wait for so that it is out `latency` seconds after it came; `StreamDeblurrer(delay=)`.

    A window takes `seconds` and has so many `frames`; they come at `rate` per second. The longest delay is the cheapest. Raises
    InputError where a window alone takes longer.
    """
    longest = math.floor((latency - ROOM * seconds) * float(rate) + 1e-9)
    if longest < 0:
        raise InputError(
            f"--latency is {latency * 1000:.0f} ms, a window alone takes {seconds * 1000:.0f} ms here, expected"
            f" {math.ceil(ROOM * seconds * 1000)} ms or more: allow more, or take smaller pictures or a faster model"
        )
    return min(longest, frames - 1)


def told(latency: float, seconds: float, rate: Fraction | float, delay: int) -> list[str]:
    """What a user should know before the first frame."""
    due = (delay + 1) / float(rate)
    lines = [
        f"a frame waits for {delay} others at most, and {seconds * 1000:.0f} ms for a window: a window every"
        f" {f'{delay + 1} frames' if delay else 'frame'} is within {latency * 1000:.0f} ms"
    ]
    if seconds > due:
        lines.append(
            f"a window is due every {due * 1000:.0f} ms and takes {seconds * 1000:.0f}: the source has to wait, and frames from a"
            " live one come later than asked"
        )
    return lines


class Punctuality:
    """Counts frames that are out later than asked, by the source's clock: no frame is left out.

    A live source's frames come at their times, so the delay of a frame is what it is later than the most punctual one up to it,
    also when it had to wait in a pipe before it was read.
    """

    def __init__(self, latency: float, time_base: Fraction, clock: Callable[[], float] = time.perf_counter) -> None:
        self._latency, self._time_base, self._clock = latency, time_base, clock
        self._offset = math.inf  # seconds from a frame's time to ours
        self._came: dict[int, float] = {}  # by the number of a frame, by the most punctual one's measure
        self.frames = self.late = 0
        self.latest = 0.0  # seconds

    def watch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, as they come."""
        for frame in frames:
            seconds = float(frame.pts * self._time_base)
            self._offset = min(self._offset, self._clock() - seconds)
            self._came[frame.number] = seconds + self._offset
            yield frame

    def out(self, frame: Frame) -> None:
        """A frame that is written."""
        delay = self._clock() - self._came.pop(frame.number)
        self.frames += 1
        self.late += delay > self._latency
        self.latest = max(self.latest, delay)

    def notes(self) -> Iterator[str]:
        """A line where there were any."""
        if self.late:
            yield (
                f"{self.late} of {self.frames} frames were out later than {self._latency * 1000:.0f} ms, the latest after"
                f" {self.latest * 1000:.0f} ms; none was left out"
            )
