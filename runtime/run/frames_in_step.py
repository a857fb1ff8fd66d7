"""`sharpen`: frames of a video with their sharp luma, in step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from runtime.streaming import StreamDeblurrer

if TYPE_CHECKING:  # so that those who only import this need no PyAV
    from runtime.video import Frame

Plane = npt.NDArray[Any]


def sharpen(frames: Iterable[Frame], deblurrer: StreamDeblurrer, segment: int | None = None) -> Iterator[tuple[Frame, Plane]]:
    """Each frame with its sharp luma, in order, as soon as that is final. Holds the frames of the window at work, no more.

    A frame that starts a scene starts a new stream: no window holds frames of two scenes. The first frame after `segment` others
    that begins a window is marked as the start of a segment; overlapping windows are cut off at twice that. A frame that is
    passed keeps its luma, and ends the stream before it.
    """
    waiting: deque[Frame] = deque()
    count = 0  # frames of this segment
    for frame in frames:
        if frame.starts_scene or frame.passed or (segment and count >= 2 * segment):
            for sharp in deblurrer.flush():
                yield waiting.popleft(), sharp
        if segment and count >= segment and deblurrer.between_windows:
            for sharp in deblurrer.drain():
                yield waiting.popleft(), sharp
        if segment and count >= segment and not waiting:
            frame, count = replace(frame, starts_segment=True), 0
        if frame.passed:
            count += 1
            yield frame, frame.luma
            continue
        waiting.append(frame)
        count += 1
        for sharp in deblurrer.push(frame.luma):
            yield waiting.popleft(), sharp
    for sharp in deblurrer.flush():
        yield waiting.popleft(), sharp
    if waiting:
        raise RuntimeError(f"the deblurrer kept {len(waiting)} frames")


def take_up(frames: Iterable[Frame], deblurrer: StreamDeblurrer, done: int, window: int) -> Iterator[Frame]:
    """The frames after the first `done`, which an earlier run has finished up to the start of a segment.

    The deblurrer is told of the `window` frames before, where they are of the same scene, so that what comes is the same as if one
    run had done all.
    """
    left, before = iter(frames), deque[Plane](maxlen=window)
    for frame in islice(left, done):
        before.append(frame.luma)
        if frame.passed:
            before.clear()
    for frame in left:
        if done and not frame.starts_scene:
            deblurrer.precede(before)
        yield frame
        break
    yield from left
