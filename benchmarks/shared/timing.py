"""Interleaved timing: every candidate once per round, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

WAKE = 200.0  # milliseconds, trtexec's own warm-up
Candidates = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Effort:
    """How long to measure, in trtexec's terms and with its defaults."""

    iterations: int = 10  # rounds, at least
    warmup: float = 200.0  # milliseconds of every candidate before its first round; one call at least
    duration: float = 3.0  # seconds of all rounds together, for each candidate, at least
    limit: float = math.inf  # seconds after which no further round begins, whatever the others say


@dataclass(frozen=True)
class Timing:
    """How long one candidate took, in milliseconds per call."""

    name: str
    milliseconds: tuple[float, ...]  # by the clock; one a round, in order
    processor: tuple[float, ...] = ()  # the same of processor time, of all threads, waiting ones too

    def percentile(self, percent: float) -> float:
        """Milliseconds that `percent` of the calls stayed within."""
        return float(np.percentile(self.milliseconds, percent))

    @property
    def median(self) -> float:
        """Milliseconds of the middle call."""
        return self.percentile(50)


def interleave(candidates: Candidates, rounds: int, warmup: int = 2) -> list[Timing]:
    """Calls every candidate `warmup` times, then once in each of `rounds` rounds, and times the latter."""
    for call in candidates.values():
        for _ in range(warmup):
            call()
    return _timings(candidates, [_round(candidates, number) for number in range(rounds)])


def interleave_for(candidates: Candidates, effort: Effort, drowsy: Collection[str] = ()) -> list[Timing]:
    """The same with as many warm-up calls and rounds as `effort` asks for.

    The `drowsy` are called untimed for WAKE milliseconds, once at least, right before each of their timed calls: a GPU that waits
    for the CPU's candidates lowers its clocks.
    """
    for call in candidates.values():
        _call_for(effort.warmup, call)
    rounds: list[dict[str, tuple[float, float]]] = []
    begun = time.perf_counter()
    spent = 0.0
    while (len(rounds) < effort.iterations or spent < effort.duration * len(candidates)) and (not rounds or spent < effort.limit):
        rounds.append(_round(candidates, len(rounds), drowsy))
        spent = time.perf_counter() - begun
    return _timings(candidates, rounds)


def ratio(slower: Timing, faster: Timing) -> tuple[float, float, float]:
    """(median, 10th, 90th percentile) of the ratios within a round, which a drifting clock hardly touches."""
    ratios = np.divide(slower.milliseconds, faster.milliseconds)
    low, middle, high = np.percentile(ratios, (10, 50, 90))
    return float(middle), float(low), float(high)


def _call_for(milliseconds: float, call: Callable[[], object]) -> None:
    begun = time.perf_counter()
    call()
    while time.perf_counter() - begun < milliseconds / 1000:
        call()


def _round(candidates: Candidates, number: int, drowsy: Collection[str] = ()) -> dict[str, tuple[float, float]]:
    """(milliseconds by the clock, milliseconds of processor time) by candidate; in another order each round, since threads of
    one library may still spin when the next begins."""
    times = {}
    order = list(candidates.items())
    random.Random(number).shuffle(order)
    for name, call in order:
        if name in drowsy:
            _call_for(WAKE, call)
        clock, processor = time.perf_counter(), time.process_time()
        call()
        times[name] = (1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - processor))
    return times


def _timings(candidates: Candidates, rounds: list[dict[str, tuple[float, float]]]) -> list[Timing]:
    return [Timing(name, *(tuple(times[name][which] for times in rounds) for which in (0, 1))) for name in candidates]
