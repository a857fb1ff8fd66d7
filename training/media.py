"""Pictures and videos as arrays, read and written; what cannot be decoded becomes an InputError with the file's name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, UnidentifiedImageError

from runtime.errors import InputError
from runtime.pixels.rgb import WEIGHTS
from runtime.pixels.sample_codes import to_unit
from runtime.video import VideoReader

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
SMPTE_170M = 6  # FFmpeg's number of the BT.601 matrix, primaries and transfer


def read_image(path: Path) -> np.ndarray:
    """A picture as (H, W, 3) uint8 sRGB."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be decoded as a picture: {error}; replace it or take it out") from error


def video_luma(path: Path, stride: int = 1) -> Iterator[np.ndarray]:
    """The luma of every `stride`-th frame of a video as (H, W) float32, 0 to 255."""
    with VideoReader(path) as reader:
        for frame in reader:
            if frame.number % stride == 0:
                yield to_unit(frame.luma, reader.info.bits, reader.info.color_range) * np.float32(255)


def write_video(path: Path, frames: Iterable[np.ndarray], rate: int, crf: float) -> None:
    """Encodes (H, W, 3) uint8 sRGB frames with even sizes as H.264 4:2:0, limited-range BT.601, and tags it so."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate, options={"crf": f"{crf:g}", "preset": "veryslow"})
        context = stream.codec_context
        context.pix_fmt, context.color_range = "yuv420p", ColorRange.MPEG
        context.colorspace, context.color_primaries, context.color_trc = SMPTE_170M, SMPTE_170M, SMPTE_170M
        for rgb in frames:
            if not context.is_open:
                stream.height, stream.width = rgb.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            yuv = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(yuv))
        container.mux(stream.encode())


def luma(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) sRGB of any real type -> (...) float32 full-range BT.601 luma on the same scale."""
    return rgb @ WEIGHTS
