"""The scene score of FFmpeg's `select` filter, of the luma alone and frame by frame in any order.

Of YUV in 8 and 10 bits it is FFmpeg's to the last digit; other depths FFmpeg converts to one of these first, here they are taken as
they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def change(luma: npt.NDArray[Any], before: npt.NDArray[Any], bits: int) -> float:
    """The mean absolute difference of two frames, (H, W) codes of `bits` depth each, in codes of 8 bits.

    Of floats in [0, 1] too, with `bits` 0.
    """
    if luma.dtype.kind == "f":
        return float(np.mean(np.abs(luma - before), dtype=np.float64)) * 256
    lower, higher = np.minimum(luma, before), np.maximum(luma, before)
    return int(np.sum(higher - lower, dtype=np.uint64)) / luma.size / float(2 ** (bits - 8))


def score(change_now: float, change_before: float) -> float:
    """0 to 1: how much more a frame changes than the one before it did, to the six digits that FFmpeg prints.

    `change_before` is 0 where there is no such frame.
    """
    more = min(change_now, abs(change_now - change_before)) / 100
    return float(f"{np.float32(min(max(more, 0.0), 1.0)):.6f}")
