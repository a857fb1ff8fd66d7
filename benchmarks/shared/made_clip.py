"""A clip of any length and size, made of any video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from runtime.errors import InputError

RATE = 25  # frames per second


def make_clip(video: Path, frames: int, width: int, height: int, path: Path) -> None:
    """Writes `frames` frames of the video, again and again from its start, in that size. Raises InputError when it is no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        pictures = _again_and_again(video)
        for number in range(frames):
            picture = next(pictures).reformat(width, height, "yuv420p")
            picture.pts, picture.time_base, picture.pict_type = number, Fraction(1, RATE), 0
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _again_and_again(path: Path) -> Iterator[av.VideoFrame]:
    while True:
        try:
            with av.open(str(path)) as container:
                yield from container.decode(video=0)
        except (av.FFmpegError, IndexError) as error:
            raise InputError(f"{path} cannot be decoded as a video: {error}") from error
