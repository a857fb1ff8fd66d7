"""`look_ahead`: what would end a run in its middle, found before it: pictures at places all over the file are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice

import av
from av.container import InputContainer

from runtime.video.format import frames_from_here
from runtime.video.reader import VideoReader
from runtime.video.sources import STANDARD, open_source

PLACES = 8  # evenly over the video
FRAMES = 4  # looked at from each on
CLOCK = 1_000_000  # ticks per second, of av.open's seek and durations


def look_ahead(reader: VideoReader) -> None:
    """Raises VideoError where a picture is interlaced or of another size than the first, up to the reader's limit.

    A change between the places is met when the frame comes: this costs a few frames, not the decoding of the video. Standard
    input and pictures are not looked at, nor what is damaged.
    """
    info = reader.info
    if reader.path == STANDARD or reader.pictures or not info.duration:
        return
    with suppress(av.FFmpegError), open_source(reader.path, reader.playlist).container as container:
        stream = container.streams[reader.stream.index]
        if not isinstance(stream, av.VideoStream) or stream.time_base is None:
            return
        start, step = info.first_pts * info.time_base, Fraction(info.duration) / PLACES
        end = start + reader.limit / info.frame_rate if reader.limit and info.frame_rate else None
        for place in range(1, PLACES):
            for frame in _frames(container, stream, start + place * step):
                at = None if frame.pts is None else frame.pts * stream.time_base
                if at is None or end is None or at < end:
                    reader.check_kind(frame, "a later frame" if at is None else f"the frame at {float(at):.2f} s")


def _frames(container: InputContainer, stream: av.VideoStream, time: Fraction) -> Iterator[av.VideoFrame]:
    with suppress(av.FFmpegError):
        container.seek(round(time * CLOCK))
        yield from islice(frames_from_here(container, stream), FRAMES)
