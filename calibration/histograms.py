"""Streaming histograms of tensors: one pass, fixed memory, and the same result whatever the order and size of the batches.

The bins split [0, 2^exponent) evenly. When a magnitude does not fit, the exponent grows and neighbouring bins are added; since
every edge of the wider bins is an edge of the narrower ones, and scaling by a power of two is exact, the counts are those that
the final range would have given from the start. All other sums are of integers. So merging is exact and commutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 4096  # at least half of them below the largest magnitude, so never fewer than the 2048 of TensorRT's calibrator
LEAST_EXPONENT = -24  # 2^-24 is float16's least positive number: a tensor that stays below is zero for every purpose here
BLOCK = 1 << 16  # values handled at a time, what fits a core's cache

Counts = npt.NDArray[np.int64]  # (BINS,)


@dataclass
class Extent:
    """The least and largest value of a tensor, how many there were, and how many were no numbers."""

    count: int = 0  # of all values
    low: float = math.inf  # of the finite values; above `high` when there were none
    high: float = -math.inf
    nan: int = 0
    infinite: int = 0

    @property
    def absmax(self) -> float:
        """The largest finite magnitude, 0 when there were no values."""
        return max(-self.low, self.high, 0.0)

    @property
    def bad(self) -> int:
        """How many values were NaN or infinite."""
        return self.nan + self.infinite

    def add(self, values: npt.NDArray[Any]) -> None:
        """Counts float values of any shape."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.nan += int(np.isnan(values).sum())
            self.infinite += int(np.isinf(values).sum())
            finite = values[np.isfinite(values)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.inf, -math.inf)
        self.count += values.size
        self.low, self.high = min(self.low, low), max(self.high, high)

    def merged(self, other: Extent) -> Extent:
        """The extent of the values of both."""
        return Extent(
            self.count + other.count,
            min(self.low, other.low),
            max(self.high, other.high),
            self.nan + other.nan,
            self.infinite + other.infinite,
        )


@dataclass
class Histogram:
    """How often each magnitude occurred. NaN and infinite values are counted in `extent` and are in no bin."""

    extent: Extent = field(default_factory=Extent)
    exponent: int = LEAST_EXPONENT  # the least at which every magnitude is below 2^exponent
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0  # values that were exactly 0; they are in the first bin as well

    @property
    def bin_width(self) -> float:
        """The width of a bin, in the tensor's unit."""
        return math.ldexp(1.0, self.exponent) / BINS

    def add(self, values: npt.NDArray[Any]) -> None:
        """Counts float values, (N, ...), one sample of the batch after the other. They are read as float32."""
        for sample in values.reshape(len(values), -1):
            for start in range(0, sample.size, BLOCK):
                self._add_block(sample[start : start + BLOCK].astype(np.float32, copy=False))

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of the values of both, a new one."""
        exponent = max(self.exponent, other.exponent)
        return Histogram(
            self.extent.merged(other.extent),
            exponent,
            _widened(self.counts, exponent - self.exponent) + _widened(other.counts, exponent - other.exponent),
            self.zeros + other.zeros,
        )

    def _add_block(self, values: npt.NDArray[np.float32]) -> None:
        extent = Extent()
        extent.add(values)
        self.extent = self.extent.merged(extent)
        if extent.bad:
            values = values[np.isfinite(values)]
        if extent.absmax >= math.ldexp(1.0, self.exponent):
            self._widen(math.frexp(extent.absmax)[1])
        magnitudes = np.abs(values)
        magnitudes *= np.float32(1.0 / self.bin_width)
        self.counts += np.bincount(magnitudes.astype(np.intp), minlength=BINS)
        self.zeros += values.size - int(np.count_nonzero(values))

    def _widen(self, exponent: int) -> None:
        self.counts = _widened(self.counts, exponent - self.exponent)
        self.exponent = exponent


def _widened(counts: Counts, doublings: int) -> Counts:
    """The same counts in bins 2^doublings times as wide."""
    joined = 1 << min(doublings, BINS.bit_length() - 1)
    sums: Counts = counts.reshape(-1, joined).sum(axis=1)
    return np.pad(sums, (0, BINS - sums.size))
