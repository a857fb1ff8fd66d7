"""Scales for symmetric quantisation: real = scale * code, zero point 0, codes of INT8 (-127..127 used) or FP8 E4M3 (-448..448).

From a histogram, for activations, one scale per tensor:
  max         nothing is clipped
  percentile  the given share of all values is not clipped
  entropy     the clipping range of least Kullback-Leibler divergence (S. Migacz, "8-bit Inference with TensorRT", GTC 2017)
  mse         the clipping range of least mean squared error
From an array, for weights, one scale per tensor or per channel, by max, percentile or mse.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.histograms import LEAST_EXPONENT, Histogram
from runtime.errors import InputError

METHODS = ("max", "percentile", "entropy", "mse")
LARGEST_CODE = {"int8": 127.0, "fp8": 448.0}
PERCENTILE = 99.99  # of the magnitudes, in percent
NOT_ZERO = math.ldexp(1.0, LEAST_EXPONENT)  # a tensor whose magnitudes stay below counts as zero
ZERO_ABSMAX = 1.0  # the range assumed for a tensor that was always zero: its scale is 1/127 (INT8) or 1/448 (FP8)

CLIPPINGS = np.arange(4, 129) / 128  # shares of the largest magnitude that mse tries
LEVELS = 128  # magnitudes that INT8 tells apart; entropy's histograms have no fewer bins
ENTROPY_TRIALS = 128  # clipping ranges that entropy tries

FP8_LEAST_EXPONENT = -6  # below 2^-6 the steps of E4M3 stay the same: 2^-9
FP8_MANTISSA_BITS = 3

Floats = npt.NDArray[np.floating[Any]]


def activation_scale(histogram: Histogram, method: str, precision: str = "int8", percentile: float = PERCENTILE) -> float:
    """The scale of a tensor with this histogram, positive and finite.

    A tensor that was always zero has the scale of the range [-ZERO_ABSMAX, ZERO_ABSMAX]. Raises InputError on another method or
    precision, a percentile outside (0, 100], and on entropy for FP8, whose divergence needs evenly spaced codes.
    """
    check(method, precision, percentile)
    if histogram.extent.absmax < NOT_ZERO:
        return ZERO_ABSMAX / LARGEST_CODE[precision]
    if method == "percentile":
        absmax = _percentile_absmax(histogram, percentile)
    elif method == "entropy":
        absmax = _entropy_absmax(histogram)
    elif method == "mse":
        absmax = _mse_absmax(histogram, precision)
    else:
        absmax = histogram.extent.absmax
    return absmax / LARGEST_CODE[precision]


def known_scale(absmax: float, precision: str = "int8") -> float:
    """The scale of a tensor whose range is known, such as 1/127 for tanh and sigmoid in INT8."""
    check("max", precision)
    return absmax / LARGEST_CODE[precision]


def weight_scales(
    weights: Floats, method: str = "max", precision: str = "int8", axis: int | None = 0, percentile: float = PERCENTILE
) -> npt.NDArray[np.float32]:
    """Scales of a weight array: (channels,) along `axis`, or a 0-d array for the whole when `axis` is None.

    ONNX wants axis 0 for Conv and 1 for ConvTranspose. Channels that are all zero have the scale of [-ZERO_ABSMAX, ZERO_ABSMAX].
    Raises InputError as `activation_scale` does, on entropy, and on weights that are not finite.
    """
    check(method, precision, percentile)
    if method == "entropy":
        raise InputError("entropy is for activations, weights are too few for a histogram: use max, percentile or mse")
    if not np.isfinite(weights).all():
        raise InputError("the weights hold NaN or infinite values, expected numbers: export from a sound checkpoint")
    rows = weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    absmax = np.array([_row_absmax(np.abs(row), method, precision, percentile) for row in rows])
    scales = (absmax / LARGEST_CODE[precision]).astype(np.float32)
    return scales.reshape(()) if axis is None else scales


def check(method: str, precision: str, percentile: float = PERCENTILE) -> None:
    """Raises InputError unless there are such scales."""
    if method not in METHODS:
        raise InputError(f"the method is {method!r}, expected one of {', '.join(METHODS)}")
    if precision not in LARGEST_CODE:
        raise InputError(f"the precision is {precision!r}, expected int8 or fp8")
    if not 0 < percentile <= 100:
        raise InputError(f"the percentile is {percentile}, expected more than 0 and at most 100")
    if (method, precision) == ("entropy", "fp8"):
        raise InputError("entropy is for int8, whose codes are evenly spaced: use max, percentile or mse for fp8")


def _percentile_absmax(histogram: Histogram, percentile: float) -> float:
    """The upper edge of the bin in which the percentile falls."""
    cumulated = np.cumsum(histogram.counts)
    number = int(np.searchsorted(cumulated, percentile / 100 * cumulated[-1]))
    return min((number + 1) * histogram.bin_width, histogram.extent.absmax)


def _entropy_absmax(histogram: Histogram) -> float:
    """Exact zeros are left out: every scale keeps them, and after a ReLU they would outweigh all else."""
    counts = histogram.counts.astype(np.float64)
    counts[0] -= histogram.zeros
    used = int(np.flatnonzero(counts)[-1]) + 1
    trials = range(used, LEVELS - 1, -max(1, (used - LEVELS) // ENTROPY_TRIALS))
    best = min(trials, key=lambda bins: _divergence(counts, bins))
    return min(best * histogram.bin_width, histogram.extent.absmax)


def _divergence(counts: npt.NDArray[np.float64], bins: int) -> float:
    """KL(P || Q): P is the histogram clipped to `bins`, Q the part below the clipping in LEVELS steps."""
    kept = counts[:bins]
    clipped = kept.copy()
    clipped[-1] += counts[bins:].sum()
    starts = np.arange(LEVELS) * bins // LEVELS
    occupied = (kept > 0).astype(np.float64)
    sizes = np.diff(starts, append=bins)
    held = np.add.reduceat(occupied, starts)
    level = np.divide(np.add.reduceat(kept, starts), held, out=np.zeros(LEVELS), where=held > 0)
    quantised = np.repeat(level, sizes) * occupied
    if not quantised.any() or (quantised[clipped > 0] == 0).any():
        return math.inf
    p, q = clipped[clipped > 0] / clipped.sum(), quantised[clipped > 0] / quantised.sum()
    return float(np.sum(p * np.log(p / q)))


def _mse_absmax(histogram: Histogram, precision: str) -> float:
    """Every value counts as the middle of its bin."""
    used = np.flatnonzero(histogram.counts)
    middles = np.minimum((used + 0.5) * histogram.bin_width, histogram.extent.absmax)
    return _least_error_absmax(middles, histogram.counts[used].astype(np.float64), histogram.extent.absmax, precision)


def _row_absmax(magnitudes: Floats, method: str, precision: str, percentile: float) -> float:
    absmax = float(magnitudes.max())
    if absmax < NOT_ZERO:
        return ZERO_ABSMAX
    if method == "percentile":
        return float(np.percentile(magnitudes, percentile)) or absmax
    if method == "mse":
        return _least_error_absmax(magnitudes.astype(np.float64), np.ones(magnitudes.size), absmax, precision)
    return absmax


def _least_error_absmax(
    magnitudes: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], absmax: float, precision: str
) -> float:
    largest = LARGEST_CODE[precision]

    def error(clipping: float) -> float:
        step = clipping * absmax / largest
        units = magnitudes / step
        codes = np.rint(np.minimum(units, largest)) if precision == "int8" else _to_fp8(units)
        return float(np.dot(counts, np.square(codes * step - magnitudes)))

    return float(min(CLIPPINGS[::-1], key=error)) * absmax


def _to_fp8(units: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest numbers of FP8 E4M3FN, ties to even, saturated at 448."""
    exponents = np.maximum(np.frexp(units)[1] - 1, FP8_LEAST_EXPONENT)
    steps = np.ldexp(1.0, exponents - FP8_MANTISSA_BITS)
    codes: npt.NDArray[np.float64] = np.clip(np.rint(units / steps) * steps, -LARGEST_CODE["fp8"], LARGEST_CODE["fp8"])
    return codes
