"""`sharpen`: frames of a video with their sharp luma, in step; and `View`, what is written of the two."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from runtime.run.comparison import Comparison

if TYPE_CHECKING:  # so that those who only import this need no PyAV
    from runtime.video import Frame, VideoInfo

Plane = npt.NDArray[Any]


class Deblurrer(Protocol):
    """What `sharpen` needs of a `StreamDeblurrer`."""

    def push(self, frame: Plane) -> list[Plane]:
        """One frame in; those that became final out, oldest first."""
        ...

    def flush(self) -> list[Plane]:
        """The rest."""
        ...

    def drain(self) -> list[Plane]:
        """Those that are at work."""
        ...

    @property
    def between_windows(self) -> bool:
        """Whether the stream may be cut here."""
        ...


class Follower(Protocol):
    """What `take_up` needs of a `StreamDeblurrer`."""

    def precede(self, frames: Sequence[Plane]) -> None:
        """What came before."""
        ...


def sharpen(frames: Iterable[Frame], deblurrer: Deblurrer, segment: int | None = None) -> Iterator[tuple[Frame, Plane]]:
    """Each frame with its sharp luma, in order, as soon as that is final. Holds the frames of the window at work, no more.

    A frame that starts a scene starts a new stream: no window holds frames of two scenes. The first frame after `segment` others
    that begins a window is marked as the start of a segment; overlapping windows are cut off at twice that.
    """
    waiting: deque[Frame] = deque()
    count = 0  # frames of this segment
    for frame in frames:
        if frame.starts_scene or (segment and count >= 2 * segment):
            for sharp in deblurrer.flush():
                yield waiting.popleft(), sharp
        if segment and count >= segment and deblurrer.between_windows:
            for sharp in deblurrer.drain():
                yield waiting.popleft(), sharp
        if segment and count >= segment and not waiting:
            frame, count = replace(frame, starts_segment=True), 0
        waiting.append(frame)
        count += 1
        for sharp in deblurrer.push(frame.luma):
            yield waiting.popleft(), sharp
    for sharp in deblurrer.flush():
        yield waiting.popleft(), sharp
    if waiting:
        raise RuntimeError(f"the deblurrer kept {len(waiting)} frames")


def take_up(frames: Iterable[Frame], deblurrer: Follower, done: int, window: int) -> Iterator[Frame]:
    """The frames after the first `done`, which an earlier run has finished up to the start of a segment.

    The deblurrer is told of the `window` frames before, where they are of the same scene, so that what comes is the same as if one
    run had done all.
    """
    left, before = iter(frames), deque[Plane](maxlen=window)
    for frame in islice(left, done):
        before.append(frame.luma)
    for frame in left:
        if done and not frame.starts_scene:
            deblurrer.precede(before)
        yield frame
        break
    yield from left


class View:
    """What is written for a frame and its sharp luma: the sharp frame, or a comparison."""

    def __init__(self, compare: str | None, info: VideoInfo) -> None:
        self._comparison = Comparison(compare, info.bits, info.chroma_step) if compare else None
        self._time_base, self._first_pts = info.time_base, info.first_pts
        self.width = self._comparison.width(info.width) if self._comparison else info.width

    def planes(self, frame: Frame, sharp: Plane) -> tuple[Plane, tuple[Plane, ...]]:
        """Luma, and the other planes."""
        if not self._comparison:
            return sharp, frame.chroma
        seconds = float((frame.pts - self._first_pts) * self._time_base)
        luma, *chroma = self._comparison.compose(frame.luma, sharp, frame.chroma, seconds)
        return luma, tuple(chroma)
