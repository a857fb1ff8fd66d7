"""`FrameTimes`: gives every frame a time after the one before it."""

from __future__ import annotations

import heapq
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from runtime.errors import VideoError
from runtime.video.format import is_format

HICCUP = Fraction(1)  # seconds; a frame that is no more than this before the one it follows is moved behind it
DECODING_TIMES_ONLY = {"avi"}


class FrameTimes:
    """Of one video, from its start or from a keyframe on.

    AVI says in which order pictures are coded, and not when they are shown: there the n-th picture gets the n-th of the times of
    decoding, as FFmpeg has it too. Two frames at one time, which bad cuts and cameras make, are a tick apart. Frames without any
    time stay so.
    """

    def __init__(self, path: Path, container: InputContainer) -> None:
        self.moved = 0  # frames whose time had been before
        self._path = path
        self._before: int | None = None
        self._decoding: list[int] | None = [] if is_format(container, DECODING_TIMES_ONLY) else None

    def take(self, packet: av.Packet[Any]) -> None:
        """A packet of the video, before it is decoded."""
        if self._decoding is not None and packet.dts is not None and packet.size:
            heapq.heappush(self._decoding, packet.dts)

    def settle(self, frame: av.VideoFrame, number: int, time_base: Fraction) -> None:
        """Sets the time of the next frame. Raises VideoError where it is far before the one before."""
        if self._decoding:
            frame.pts = heapq.heappop(self._decoding)
        if frame.pts is not None and self._before is not None and frame.pts <= self._before:
            back = (self._before - frame.pts) * time_base
            if back > HICCUP:
                raise VideoError(
                    f"{self._path}: frame {number} is shown {float(back):.2f} s before the one it follows, expected times"
                    " that rise: cut it there into two files"
                )
            frame.pts = self._before + 1
            self.moved += 1
        self._before = frame.pts
