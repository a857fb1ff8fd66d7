"""Blurry, deblurred and true frames side by side: quality of every frame, and the cuts that a report shows at 1:1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError
from runtime.pixels.metrics import psnr
from runtime.pixels.sample_codes import to_unit
from runtime.pixels.ssim import ssim
from runtime.video import VideoReader
from runtime.video.still_pictures import encode_png, to_rgb

CROP = 160  # pixels: two beside each other on a phone
CROPS = 4
SHOWN = (450, 800)  # pixels, the height and width of what the slider shows at most, so that the page stays small

Plane = npt.NDArray[np.float32]  # (H, W) luma in [0, 1]
Rgb = npt.NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Clips:
    """The same frames three times."""

    blurry: Path
    deblurred: Path
    truth: Path | None  # None where it is not known
    frames: int  # how many of them


@dataclass(frozen=True)
class FrameScore:
    """Luma of a frame against the truth, before and after."""

    number: int
    psnr_before: float  # dB
    psnr_after: float
    ssim_before: float
    ssim_after: float


@dataclass(frozen=True)
class Cut:
    """A part of the frame that is shown, pixel by pixel."""

    top: int  # pixels
    left: int
    height: int
    width: int
    pictures: tuple[bytes, ...]  # PNG: blurry, deblurred, and the truth where it is known
    psnr: tuple[float, ...]  # dB against the truth, luma of this part: blurry and deblurred; empty where it is not known


@dataclass(frozen=True)
class Shown:
    """The frame that a report shows."""

    number: int
    height: int  # pixels
    width: int
    slider: Cut
    crops: tuple[Cut, ...]  # where the luma was changed most, on average; the most first


def frame_scores(clips: Clips) -> list[FrameScore]:
    """Every frame against the truth, of which there must be one. Raises InputError when the videos differ in size or length."""
    return [
        FrameScore(number, psnr(before, truth, 1.0), psnr(after, truth, 1.0), ssim(before, truth, 1.0), ssim(after, truth, 1.0))
        for number, (before, after, truth) in enumerate(_lumas(clips))
    ]


def typical_frame(scores: Sequence[FrameScore], frames: int) -> int:
    """Of the blurrier half of the frames, that with the median gain of PSNR; the middle one where there are no scores."""
    if not scores:
        return frames // 2
    blurrier = sorted(scores, key=lambda score: score.psnr_before)[: -(-len(scores) // 2)]
    by_gain = sorted(blurrier, key=lambda score: score.psnr_after - score.psnr_before)
    return by_gain[len(by_gain) // 2].number


def show(clips: Clips, number: int) -> Shown:
    """The cuts of a frame."""
    lumas = next(islice(_lumas(clips), number, None))
    pictures = [_picture(path, number) for path in _paths(clips)]
    height, width = lumas[0].shape
    crop = min(CROP, height), min(CROP, width)
    corners = most_changed(np.abs(lumas[1] - lumas[0]), crop, CROPS)
    top, left = (
        min(max(at + part // 2 - most // 2, 0), max(0, whole - most))
        for at, part, most, whole in zip(corners[0], crop, SHOWN, (height, width))
    )
    slider = _cut(lumas, pictures[:2], (top, left), (min(SHOWN[0], height), min(SHOWN[1], width)))
    return Shown(number, height, width, slider, tuple(_cut(lumas, pictures, corner, crop) for corner in corners))


def most_changed(change: Plane, size: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """(top, left) of up to `count` parts of `size` that do not overlap, those with the highest mean first."""
    sums = np.pad(change.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    height, width = size
    means = (sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]) / (height * width)
    corners = []
    while len(corners) < count and np.isfinite(means).any():
        top, left = (int(place) for place in np.unravel_index(np.argmax(means), means.shape))
        corners.append((top, left))
        means[max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width] = -np.inf
    return corners


def _lumas(clips: Clips) -> Iterator[tuple[Plane, ...]]:
    """Of each frame: blurry, deblurred, and the truth where it is known."""
    with ExitStack() as stack:
        readers = [stack.enter_context(VideoReader(path, clips.frames)) for path in _paths(clips)]
        for reader in readers[1:]:
            first = readers[0].info
            if (reader.info.height, reader.info.width) != (first.height, first.width):
                got = f"{reader.path} is {reader.info.width}x{reader.info.height}"
                raise InputError(f"{got}, {clips.blurry} is {first.width}x{first.height}: bring the same frames without blur")
        frames = 0
        for group in zip(*readers):
            yield tuple(to_unit(frame.luma, reader.info.bits, reader.info.color_range) for frame, reader in zip(group, readers))
            frames += 1
        if frames != clips.frames:
            raise InputError(f"{clips.truth} has {frames} frames, expected {clips.frames} as {clips.blurry}: bring the same frames")


def _paths(clips: Clips) -> list[Path]:
    return [path for path in (clips.blurry, clips.deblurred, clips.truth) if path]


def _picture(path: Path, number: int) -> Rgb:
    with VideoReader(path) as reader:
        return to_rgb(next(islice(reader, number, None)).decoded)


def _cut(lumas: Sequence[Plane], pictures: Sequence[Rgb], corner: tuple[int, int], size: tuple[int, int]) -> Cut:
    rows, columns = (slice(at, at + length) for at, length in zip(corner, size))
    parts: list[Any] = [plane[rows, columns] for plane in lumas]
    quality = tuple(psnr(part, parts[2], 1.0) for part in parts[:2]) if len(parts) > 2 else ()
    return Cut(*corner, *size, tuple(encode_png(picture[rows, columns]) for picture in pictures), quality)
