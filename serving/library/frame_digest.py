"""`FrameDigest`: whether frames were decoded as they were when the work was planned, on another machine or after a seek."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable

import numpy as np

from runtime.video import Frame

LENGTH = 16  # characters


class FrameDigest:
    """Takes frames, one by one."""

    def __init__(self, facts: Iterable[bytes] = ()) -> None:
        self._hash = hashlib.sha256()
        for each in facts:
            self._hash.update(each)

    def add(self, frame: Frame) -> None:
        """The next frame."""
        self._hash.update(facts_of(frame))

    def text(self) -> str:
        """Another for other frames, another order, or other times."""
        return self._hash.hexdigest()[:LENGTH]


def facts_of(frame: Frame) -> bytes:
    """What a digest takes of a frame: time, duration, and a checksum of every sample."""
    checksum = 0
    for plane in (frame.luma, *frame.chroma):
        checksum = zlib.crc32(np.ascontiguousarray(plane).data, checksum)
    return f"{frame.pts} {frame.duration} {checksum};".encode()
