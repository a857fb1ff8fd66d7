"""Interleaved timing: every candidate once per round, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """How long one candidate took, in milliseconds per call."""

    name: str
    milliseconds: tuple[float, ...]  # one a round, in order

    def percentile(self, percent: float) -> float:
        """Milliseconds that `percent` of the calls stayed within."""
        return float(np.percentile(self.milliseconds, percent))

    @property
    def median(self) -> float:
        """Milliseconds of the middle call."""
        return self.percentile(50)


def interleave(candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> list[Timing]:
    """Calls every candidate `warmup` times, then once in each of `rounds` rounds, and times the latter."""
    for call in candidates.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return [Timing(name, tuple(values)) for name, values in times.items()]


def ratio(slower: Timing, faster: Timing) -> tuple[float, float, float]:
    """(median, 10th, 90th percentile) of the ratios within a round, which a drifting clock hardly touches."""
    ratios = np.divide(slower.milliseconds, faster.milliseconds)
    low, middle, high = np.percentile(ratios, (10, 50, 90))
    return float(middle), float(low), float(high)
