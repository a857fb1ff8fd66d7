"""`Layouts`: RGB, packed and semi-planar samples, which cameras, screens and GIFs have, as planar YUV, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from runtime.errors import VideoError
from runtime.pixels import rgb
from runtime.video.format import FULL, Plane, VideoInfo, plane_of

BT601 = 6  # of AVColorSpace
PLANAR = {  # the same samples in planes of their own
    **{"monow": "gray", "monob": "gray"},
    **{f"gray{bits}be": f"gray{bits}le" for bits in (10, 12, 16)},
    **{"nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "nv42": "yuv444p"},
    **{"yuyv422": "yuv422p", "uyvy422": "yuv422p", "yvyu422": "yuv422p", "y210le": "yuv422p10le", "y212le": "yuv422p12le"},
    **{"p010le": "yuv420p10le", "p012le": "yuv420p12le", "p016le": "yuv420p16le", "p210le": "yuv422p10le"},
    **{"p410le": "yuv444p10le", "vuyx": "yuv444p", "vuya": "yuva444p", "ayuv": "yuva444p"},
    **{"xv30le": "yuv444p10le", "v30xle": "yuv444p10le"},
}
RGB = (
    {"rgb24", "bgr24", "bgr0", "rgb0", "0rgb", "0bgr", "gbrp", "rgb48be", "rgb48le"}
    | {f"{name}{order}" for name in ("rgb565", "bgr565", "rgb555", "bgr555", "rgb444", "bgr444") for order in ("le", "be")}
    | {f"gbrp{bits}{order}" for bits in (9, 10, 12, 14, 16) for order in ("le", "be")}
)
RGBA = {"pal8", "rgba", "bgra", "argb", "abgr", "gbrap", "rgba64be", "rgba64le", "ya8", "ya16be", "ya16le"} | {
    f"gbrap{bits}{order}" for bits in (10, 12, 14, 16) for order in ("le", "be")
}


class Layouts:
    """Turns the frames of one video, in order. RGB becomes yuv444p16le, or yuva444p16le where the first frame has holes."""

    def __init__(self) -> None:
        self.rgb_bits: int | None = None  # 8 or 16 where the samples are RGB; known after the first frame
        self._transparent: bool | None = None  # whether the first frame of RGBA is, anywhere

    def readable(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame itself, unless its layout is one of these. Raises VideoError where holes come later than the first frame."""
        name = frame.format.name
        if name in PLANAR:
            return frame.reformat(format=PLANAR[name])
        if name not in RGB | RGBA:
            return frame
        self.rgb_bits = 8 if frame.format.components[0].bits <= 8 else 16
        dtype, pixel_format = (np.uint8, "rgba") if self.rgb_bits == 8 else (np.uint16, "rgba64le")
        pixels = frame.to_ndarray(format=pixel_format)
        transparent = name in RGBA and bool((pixels[..., 3] != np.iinfo(dtype).max).any())
        if self._transparent is None:
            self._transparent = transparent
        if transparent and not self._transparent:
            raise VideoError("becomes transparent, expected pictures that are so from the first on, or never: cut it there")
        return _planar(frame, pixels, self._transparent)


def narrowed(planes: Sequence[Plane], pixel_format: str) -> list[Plane]:
    """Y, U and V of yuv444p16le, full range, as the 8-bit ones of yuv444p, or of yuv420p, where colour is the mean of four."""
    luma, *colours = (plane.astype(np.float32) / np.float32(257) for plane in planes)
    if pixel_format == "yuv420p":
        colours = [plane.reshape(len(plane) // 2, 2, -1, 2).mean((1, 3)) for plane in colours]
    shift = np.float32(128 - 32768 / 257)  # between the codes of no colour
    return [np.rint(plane).clip(0, 255).astype(np.uint8) for plane in (luma, *(plane + shift for plane in colours))]


def narrower(info: VideoInfo) -> tuple[str, ...]:
    """What an encoder may get instead of 8-bit RGB's 16-bit YUV: what every player shows, where the size allows it."""
    if info.rgb_bits != 8 or info.pixel_format != "yuv444p16le":
        return ()
    return ("yuv444p",) if info.width % 2 or info.height % 2 else ("yuv420p", "yuv444p")


def _planar(frame: av.VideoFrame, pixels: npt.NDArray[Any], transparent: bool) -> av.VideoFrame:
    whole = frame.reformat(format="yuva444p16le" if transparent else "yuv444p16le")  # with times and side data
    planes = list(rgb.to_ycc(np.ascontiguousarray(pixels[..., :3])))
    if transparent:
        alpha = pixels[..., 3]
        planes.append(alpha if alpha.dtype == np.uint16 else alpha.astype(np.uint16) * 257)
    for index, plane in enumerate(planes):
        plane_of(whole, index)[:] = plane
    whole.color_range, whole.colorspace = FULL, BT601
    return whole
