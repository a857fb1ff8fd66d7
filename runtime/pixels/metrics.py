"""Differences of images in dB."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

EQUAL = 200.0  # dB, written where all samples are equal: infinity is not JSON


def psnr(a: npt.NDArray[Any], b: npt.NDArray[Any], peak: float) -> float:
    """Peak signal-to-noise ratio in dB over all values of two arrays of one shape; infinite when they are equal.

    `peak` is the largest value a sample can have on the arrays' scale: 255 for 8-bit codes, 1.0 for unit range.
    Raises InputError on different or empty shapes, or a peak that is not above 0.
    """
    error = mean_squared_error(a, b)
    if not peak > 0:
        raise InputError(f"peak is {peak}, expected above 0: the largest value of a sample, such as 255 or 1.0")
    return decibels(error, peak)


def decibels(error: float, peak: float = 1.0) -> float:
    """The PSNR of a mean squared error; infinite where there is none, NaN where that is NaN."""
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)


def decibels_for_json(found: float) -> float:
    """At most EQUAL; NaN stays, which passes no gate."""
    return EQUAL if found > EQUAL else found  # min() would turn NaN into EQUAL


def mean_squared_error(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Mean over all values of the squared difference, in double precision; integers do not wrap around."""
    if a.shape != b.shape:
        raise InputError(f"arrays of shapes {a.shape} and {b.shape} cannot be compared: crop or resize one to the other")
    if a.size == 0:
        raise InputError(f"arrays of shape {a.shape} hold nothing to compare")
    wide = np.float32 if a.dtype == b.dtype == np.uint8 else np.float64  # float32 is exact for 8-bit codes, and faster
    difference = a.astype(wide) - b.astype(wide)
    return float(np.square(difference, out=difference).mean(dtype=np.float64))
