"""`Layouts`: RGB, packed and semi-planar samples, which cameras, screens and GIFs have, as planar YUV, bit by bit."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from runtime.errors import VideoError
from runtime.pixels import rgb
from runtime.pixels.sample_codes import scale
from runtime.video.format import FULL, Plane, VideoInfo, plane_of

BT601 = 6  # of AVColorSpace
WIDE = 64  # pixels, divisible by every chroma subsampling
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


def fitted(planes: Sequence[Plane], info: VideoInfo, pixel_format: str) -> list[Plane]:
    """The planes of a video's frame (H, W) as those of another planar format, one that is `narrower` or `finer`, in limited range.

    Luma and alpha are exact where the format has as many bits or more, luma of full range where it has two more. Colour that
    becomes denser is swscale's, 4:4:4 that becomes 4:2:0 the mean of four; gray gets no colour.
    """
    height, width = planes[0].shape
    target = av.VideoFormat(pixel_format, width, height)
    size, bits = (target.chroma_height(), target.chroma_width()), target.components[0].bits
    luma, *others = planes
    colours, alpha = others[:2], others[2:]
    if colours and colours[0].size < math.prod(size):
        colours = _denser(planes, info, target)
    given = info.bits, info.color_range
    levels = [_levels(plane, _of_colour(*given), _of_colour(bits, "limited")) for plane in colours]
    if levels and levels[0].size > math.prod(size):
        levels = [plane.reshape(size[0], 2, size[1], 2).mean((1, 3)) for plane in levels]
    made = [_levels(luma, scale(*given), scale(bits, "limited")), *(levels or [np.full(size, 1 << (bits - 1))] * 2)]
    made += [_levels(plane, scale(info.bits, "full"), scale(bits, "full")) for plane in alpha]
    return [np.rint(plane).clip(0, (1 << bits) - 1).astype(np.uint8 if bits == 8 else np.uint16) for plane in made]


def range_of(info: VideoInfo, pixel_format: str) -> str:
    """ "limited" or "full": of samples that are kept, theirs; what becomes another format gets the one that all players expect."""
    return info.color_range if has_samples_of(info, pixel_format) else "limited"


def has_samples_of(info: VideoInfo, pixel_format: str) -> bool:
    """Whether a format holds the video's planes as they are; yuvj is yuv that says its range in its name."""
    return pixel_format in (info.pixel_format, info.pixel_format.replace("yuvj", "yuv"))


def finer(info: VideoInfo, offered: Sequence[str]) -> tuple[str, ...]:
    """Of the formats that an encoder takes, the closest that holds all of the source's samples, or none.

    None where it takes the very samples in another layout: that one would be right, and is not written here.
    """
    if info.pixel_format in {PLANAR.get(name) for name in offered}:
        return ()
    least = _grain(info.pixel_format, info.rgb_bits)
    grains = {name: _grain(name) for name in offered if re.fullmatch(r"yuva?4\d\dp(\d+le)?", name)}
    holding = [name for name, grain in grains.items() if grain[0] == least[0] and all(map(operator.ge, grain, least))]
    return tuple(sorted(holding, key=grains.__getitem__)[:1])


def narrower(info: VideoInfo) -> tuple[str, ...]:
    """What an encoder may get instead of RGB's 16-bit YUV: of 8 bits what every player shows, where the size allows it."""
    if info.rgb_bits is None:
        return ()
    if info.rgb_bits > 8:
        return tuple(info.pixel_format.replace("16", bits) for bits in ("12", "10"))
    if info.pixel_format != "yuv444p16le":
        return ()
    return ("yuv444p",) if info.width % 2 or info.height % 2 else ("yuv420p", "yuv444p")


def _grain(pixel_format: str, bits: int | None = None) -> tuple[bool, int, int, int]:
    """Whether it has alpha, its colour's columns and rows, and bits."""
    known = av.VideoFormat(pixel_format, WIDE, WIDE)
    coloured, alpha = len(known.components) > 2, len(known.components) in (2, 4)
    return alpha, known.chroma_width() * coloured, known.chroma_height() * coloured, bits or known.components[0].bits


def _levels(plane: Plane, before: tuple[float, float], after: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Codes of one (offset, span) as those of another, not rounded."""
    levels: npt.NDArray[np.float32] = plane.astype(np.float32) - np.float32(before[0])
    levels *= np.float32(after[1] / before[1])
    levels += np.float32(after[0])
    return levels


def _of_colour(bits: int, color_range: str) -> tuple[float, float]:
    """As `scale`, of a colour difference."""
    return 2.0 ** (bits - 1), 2.0**bits - 1 if color_range == "full" else 224.0 * 2 ** (bits - 8)


def _denser(planes: Sequence[Plane], info: VideoInfo, target: av.VideoFormat) -> list[Plane]:
    """The colour of a frame with as many samples as `target` has, of as many bits as before."""
    name = info.pixel_format.replace("yuvj", "yuv")
    whole = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], name)
    for index, plane in enumerate(planes):
        plane_of(whole, index)[:] = plane
    pattern = r"4\d\dp"
    wider = whole.reformat(format=re.sub(pattern, re.findall(pattern, target.name)[0], name), interpolation="BICUBIC")
    return [plane_of(wider, index) for index in (1, 2)]


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
