"""Statistics of a measurement, by trtexec's definitions (samples/common/sampleReporting.cpp of version 11.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.backends.inference_loop import Trace
from runtime.errors import BackendError


@dataclass(frozen=True)
class QueryTime:
    """How long the parts of a query took, in milliseconds."""

    enqueue: float
    h2d: float  # copy to the GPU
    compute: float
    d2h: float  # copy from the GPU

    @property
    def latency(self) -> float:
        """The copies and the compute."""
        return self.h2d + self.compute + self.d2h


@dataclass(frozen=True)
class Summary:
    """Of one part over all queries, in milliseconds."""

    min: float
    max: float
    mean: float
    median: float
    percentiles: tuple[float, ...]
    variation: float  # standard deviation in percent of the mean


@dataclass(frozen=True)
class Measured:
    """What counts of a measurement."""

    warmups: int  # queries that do not count
    traces: tuple[Trace, ...]  # those that do
    milliseconds: float  # from the first one's start to the last one's end

    @property
    def times(self) -> list[QueryTime]:
        """Of each query."""
        return [query_time(trace) for trace in self.traces]

    @property
    def throughput(self) -> float:
        """Queries a second."""
        return 1000 * len(self.traces) / self.milliseconds if self.milliseconds else math.inf


def after_warmup(traces: Sequence[Trace], warmup: float) -> Measured:
    """Leaves out the queries whose compute began within `warmup` milliseconds. `traces` are in the order of their start.

    Raises BackendError where none is left.
    """
    first = next((number for number, trace in enumerate(traces) if trace.compute_start >= warmup), None)
    if first is None:
        raise BackendError(
            f"all {len(traces)} queries began within {warmup:g} ms of warm-up: measure longer, with --duration or --iterations"
        )
    counted = tuple(traces[first:])
    return Measured(first, counted, counted[-1].d2h_end - counted[0].h2d_start)


def query_time(trace: Trace) -> QueryTime:
    """The parts of a query."""
    return QueryTime(
        enqueue=trace.enqueue_end - trace.enqueue_start,
        h2d=trace.h2d_end - trace.h2d_start,
        compute=trace.compute_end - trace.compute_start,
        d2h=trace.d2h_end - trace.d2h_start,
    )


def summary(values: Sequence[float], percents: Sequence[float]) -> Summary:
    """`values` in milliseconds, at least one; a percentile is the value of a query, not one between two."""
    ordered, count = sorted(values), len(values)
    mean = sum(ordered) / count
    middle = ordered[count // 2] if count % 2 else (ordered[count // 2 - 1] + ordered[count // 2]) / 2
    variance = sum((value - mean) ** 2 for value in ordered) / count
    return Summary(
        min=ordered[0],
        max=ordered[-1],
        mean=mean,
        median=middle,
        percentiles=tuple(ordered[_rank(percent, count)] for percent in percents),
        variation=100 * math.sqrt(variance) / mean if mean else math.inf,
    )


def _rank(percent: float, count: int) -> int:
    """trtexec's, which reckons in float32: a last bit decides which query it is."""
    above = (np.float32(1) - np.float32(percent) / np.float32(100)) * np.float32(count)
    return max(count - 1 - int(above), 0)
