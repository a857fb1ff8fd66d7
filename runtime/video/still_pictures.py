"""Single pictures: `read_luma`, `write_gray`, `to_rgb` and `encode_png`."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from runtime.errors import VideoError
from runtime.pixels.rgb import WEIGHTS
from runtime.pixels.sample_codes import from_unit, to_unit
from runtime.video.format import FULL, plane_of
from runtime.video.sources import ONE_FILE

STRICT = {"err_detect": "explode"}  # without it a JPEG that was cut off decodes to a half grey picture


def read_luma(path: Path, alone: bool = False) -> npt.NDArray[np.float32]:
    """The BT.601 luma of a picture file (JPEG, PNG and whatever else FFmpeg knows), (H, W) float32 in [0, 1], new memory.

    YUV and gray pictures give the luma they store: a JPEG's Y plane is full-range BT.601 luma. RGB and palettes are weighted,
    alpha is ignored. Of a video it is that of the first picture, unless it is to be `alone`. Raises VideoError when the file is
    missing, cut off or not a picture, or has more than one that is to be alone.
    """
    try:
        with av.open(io.BytesIO(path.read_bytes()), options={**STRICT, **ONE_FILE}) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = STRICT
            pictures = container.decode(stream)
            picture, another = next(pictures), alone and next(pictures, None)
    except (av.FFmpegError, OSError, IndexError, StopIteration) as error:
        reason = getattr(error, "strerror", None) or "no picture in it"
        raise VideoError(f"{path}: not a picture that can be decoded ({reason}): replace it or take it out") from error
    if another:
        raise VideoError(f"{path}: has more than one picture, expected a single one, which is for all frames: write one as a .png")
    deep = max(part.bits for part in picture.format.components) > 8
    if picture.format.components[0].is_luma and not picture.format.has_palette:
        gray = picture.reformat(format="gray16le") if picture.format.is_big_endian else picture
        full = picture.color_range == FULL or picture.format.name.startswith(("yuvj", "gray"))
        return to_unit(plane_of(gray, 0), gray.format.components[0].bits, "full" if full else "limited")
    pixels = picture.to_ndarray(format="rgb48le" if deep else "rgb24")
    luma: npt.NDArray[np.float32] = pixels @ (WEIGHTS / np.float32(65535 if deep else 255))
    return luma


def write_gray(path: Path, luma: npt.NDArray[np.float32]) -> None:
    """Writes luma (H, W) in [0, 1], clipped, as an 8-bit gray PNG. Raises VideoError when the file cannot be written."""
    picture = av.VideoFrame.from_ndarray(from_unit(luma, 8, "full"), format="gray")
    try:
        with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("png", width=picture.width, height=picture.height, pix_fmt="gray")
            container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be written ({error.strerror}): name a .png in a folder that exists") from error


def to_rgb(picture: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """A decoded frame as (H, W, 3) uint8, by its own colour tags, without tone mapping."""
    return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """(H, W, 3) RGB -> the bytes of a PNG file."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return encode_picture(picture, {"compression_level": "9", "pred": "mixed"})


def encode_picture(picture: av.VideoFrame, options: dict[str, str] | None = None) -> bytes:
    """A frame, in a format that PNG has -> the bytes of a PNG file."""
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.format.name
    context.time_base, context.options = Fraction(1, 25), options or {}
    return b"".join(bytes(packet) for packet in context.encode(picture) + context.encode(None))
