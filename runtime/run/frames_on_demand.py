"""`FramesOnDemand`: any sharp frame of a clip, in any order, each equal to what `StreamDeblurrer` makes of its scene."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError
from runtime.pixels.strength import blend, checked_strength
from runtime.streaming import RunsWindows, mean, mirrored

Frame = npt.NDArray[Any]

BEYOND = 4  # windows kept beside those of one frame: what several requests at a time, and small steps back, ask for again
READ_BACK = 32  # frames looked at together on the way back to the start of a scene, since decoders read forwards
UNKNOWN, INSIDE, START = b"\0\1\2"  # what is known of a frame


class Source(Protocol):
    """Where blurry frames come from, by their number from 0."""

    count: int  # frames

    @property
    def color_range(self) -> str | None:
        """ "limited" or "full", see `Engine.run`; asked after the frames of a window."""
        ...

    def luma(self, number: int) -> Frame:
        """(H, W), all of one shape and dtype, those of `Engine.run`."""
        ...

    def starts_scene(self, number: int) -> bool:
        """Whether a cut lies between frame `number`, 1 or more, and the one before it; asked once for each."""
        ...


class FramesOnDemand:
    """Runs the windows that a frame needs when it is asked for, and keeps the last few.

    Windows start every `stride` frames from the start of the frame's scene, so seeking into a scene asks the source about every
    frame from there back to its start, once, and about the next frames up to the end of a window. `strength` is that of
    `runtime.pixels.strength`. May be called from several threads; one frame is served after the other.
    """

    def __init__(
        self, engine: RunsWindows, source: Source, stride: int | None = None, strength: float = 1.0, bits: int | None = None
    ) -> None:
        self._engine, self._source, self._size, self._bits = engine, source, engine.contract.frames, bits
        self._stride = self._size if stride is None else stride
        if self._stride not in range(1, self._size + 1):
            raise InputError(f"stride is {stride!r}, expected 1 to {self._size} (the frames of a window)")
        self._strength = checked_strength(strength)
        self._known = bytearray([START])  # of the frames so far
        self._window = lru_cache(math.ceil(self._size / self._stride) + BEYOND)(self._run_window)
        self._lock = threading.Lock()

    def frame(self, number: int) -> Frame:
        """The sharp luma of frame `number`, 0 to count - 1; shared, so not to be changed. Raises what the source and engine do."""
        if not 0 <= number < self._source.count:
            raise InputError(f"got frame {number}, expected 0 to {self._source.count - 1}")
        with self._lock:
            blurry = self._source.luma(number)
            start = self._start_of_scene(number)
            windows = self._windows(start, number)
            end = self._end_of_scene(number, windows[-1] + self._size)
            estimates = [
                self._window(first, start, min(end, first + self._size))[number - first]
                for first in windows
                if first == start or first - self._stride + self._size < end  # the one before did not reach the end
            ]
            return blend(blurry, mean(estimates), self._strength)

    def _windows(self, start: int, number: int) -> range:
        """Where the windows begin that hold frame `number` of a scene without an end."""
        before = max(0, number - start - self._size + 1)
        return range(start - (-before // self._stride) * self._stride, number + 1, self._stride)

    def _run_window(self, first: int, start: int, end: int) -> Frame:
        numbers = (start + mirrored(number - start, end - start) for number in range(first, first + self._size))
        window = np.stack([self._source.luma(number) for number in numbers])[None]
        sharp: Frame = self._engine.run(window, self._bits, self._source.color_range)[0]
        return sharp

    def _end_of_scene(self, number: int, at_most: int) -> int:
        """The first frame of the next scene, or `at_most`, or the frames of the clip, whichever comes first."""
        stop = min(at_most, self._source.count)
        self._look_at(range(number + 1, stop))
        cut = self._known.find(START, number + 1, stop)
        return stop if cut < 0 else cut

    def _start_of_scene(self, number: int) -> int:
        self._know_up_to(number + 1)
        while True:
            start = self._known.rfind(START, 0, number + 1)
            gap = self._known.rfind(UNKNOWN, start, number + 1)
            if gap < 0:
                return start
            self._look_at(range(max(start + 1, gap + 1 - READ_BACK), gap + 1))

    def _look_at(self, numbers: range) -> None:
        self._know_up_to(numbers.stop)
        for number in numbers:
            if self._known[number] == UNKNOWN:
                self._known[number] = START if self._source.starts_scene(number) else INSIDE

    def _know_up_to(self, stop: int) -> None:
        """Only so far, since a player's clip has no end."""
        self._known.extend(bytes(max(0, stop - len(self._known))))
