"""`View`, what is written of a blurry and a sharp frame; `Comparison`, both in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

if TYPE_CHECKING:  # so that those who only import this need no PyAV
    from runtime.video import Frame, VideoInfo

Plane = npt.NDArray[Any]

KINDS = ("side", "wipe", "diff")
WIPE_PERIOD = 6.0  # seconds for the divider to go there and back
WIPE_MARGIN = 0.05  # of the width, that the divider keeps from the edges
LINE_WIDTH = 400  # widths of the divider in the picture's width
DIFF_GAIN = 4  # a difference of one code is hardly seen, and four times the strongest real ones still fit


class View:
    """What is written for a frame and its sharp luma: the sharp frame, or a comparison."""

    def __init__(self, compare: str | None, info: VideoInfo) -> None:
        self._comparison = Comparison(compare, info.bits, info.chroma_step) if compare else None
        self._time_base, self._first_pts = info.time_base, info.first_pts
        self.width = self._comparison.width(info.width) if self._comparison else info.width

    def planes(self, frame: Frame, sharp: Plane) -> tuple[Plane, tuple[Plane, ...]]:
        """Luma, and the other planes."""
        if not self._comparison:
            return sharp, frame.chroma
        seconds = float((frame.pts - self._first_pts) * self._time_base)
        luma, *chroma = self._comparison.compose(frame.luma, sharp, frame.chroma, seconds)
        return luma, tuple(chroma)


@dataclass(frozen=True)
class Comparison:
    """How before and after are shown.

    side: blurry left, sharp right, twice as wide. wipe: blurry left and sharp right of a divider that moves there and back.
    diff: mid-grey plus DIFF_GAIN times (sharp - blurry) luma, without colour.
    """

    kind: str  # one of KINDS
    bits: int  # of a sample
    chroma_step: int = 1  # luma columns per column of U and V: 2 for 4:2:0 and 4:2:2

    def __post_init__(self) -> None:
        """Raises InputError on a kind that does not exist."""
        if self.kind not in KINDS:
            raise InputError(f"comparison is {self.kind!r}, expected one of {', '.join(KINDS)}")

    def width(self, width: int) -> int:
        """The comparison's width in pixels, for a source so wide."""
        return 2 * self._half(width) if self.kind == "side" else width

    def compose(self, blurry: Plane, sharp: Plane, chroma: Sequence[Plane], seconds: float) -> tuple[Plane, ...]:
        """The planes, luma first, of the comparison at a time since the start; new arrays, or the given ones unchanged.

        `blurry` and `sharp` are luma (H, W) of one dtype; `chroma` has U and V, at any subsampling and with alpha last where
        there is one, or nothing for gray.
        """
        if self.kind == "side":
            half = self._half(blurry.shape[1])
            halves = [half // self.chroma_step] * 2 + [half]  # of U, V and alpha
            return (_beside(blurry, sharp, half), *(_beside(plane, plane, wide) for plane, wide in zip(chroma, halves)))
        if self.kind == "wipe":
            return self._wipe(blurry, sharp, chroma, seconds)
        return (self._difference(blurry, sharp), *(np.full_like(plane, self._middle) for plane in chroma[:2]), *chroma[2:])

    @property
    def _middle(self) -> int:
        return 1 << (self.bits - 1)

    def _half(self, width: int) -> int:
        """The width at which one picture's chroma ends together with its luma."""
        return -(-width // self.chroma_step) * self.chroma_step

    def _wipe(self, blurry: Plane, sharp: Plane, chroma: Sequence[Plane], seconds: float) -> tuple[Plane, ...]:
        width = blurry.shape[1]
        swing = 0.5 - (0.5 - WIPE_MARGIN) * math.cos(2 * math.pi * seconds / WIPE_PERIOD)
        divider, thickness = round(width * swing), max(2, width // LINE_WIDTH)
        luma = sharp.copy()
        luma[:, :divider] = blurry[:, :divider]
        luma[:, divider : divider + thickness] = 235 << (self.bits - 8)  # white in limited range, and nearly so in full
        colours = [plane.copy() for plane in chroma[:2]]
        for plane in colours:
            plane[:, divider // self.chroma_step : -(-(divider + thickness) // self.chroma_step)] = self._middle
        return (luma, *colours, *chroma[2:])

    def _difference(self, blurry: Plane, sharp: Plane) -> Plane:
        difference = sharp.astype(np.int32) - blurry
        return np.clip(self._middle + DIFF_GAIN * difference, 0, (1 << self.bits) - 1).astype(blurry.dtype)


def _beside(left: Plane, right: Plane, width: int) -> Plane:
    """Two planes side by side, each widened to `width` by repeating its last column."""
    margin = ((0, 0), (0, width - left.shape[1]))
    return np.concatenate([np.pad(plane, margin, mode="edge") for plane in (left, right)], axis=1)
