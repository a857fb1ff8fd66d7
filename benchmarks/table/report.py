"""`BenchReport`: what `videodeblur bench` measured, and its JSON. The fields are its schema, docs/performance.md lists them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.shared.timing import Timing, ratio

SCHEMA = 2  # raised when a field changes its meaning
FEWEST = {"p90": 3, "p95": 20, "p99": 100}  # calls under which a percentile is not printed


@dataclass(frozen=True)
class Spread:
    """Milliseconds for a call, with the percentiles that trtexec prints."""

    median: float
    mean: float
    min: float
    max: float
    p90: float
    p95: float
    p99: float
    calls: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Spread:
        """Raises ValueError when there are none."""
        middle, p90, p95, p99 = (float(value) for value in np.percentile(milliseconds, (50, 90, 95, 99)))
        least, most = float(min(milliseconds)), float(max(milliseconds))
        return cls(middle, float(np.mean(milliseconds)), least, most, p90, p95, p99, len(milliseconds))


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline: the median, 10th and 90th percentile of the ratios within a round."""

    median: float
    p10: float
    p90: float
    rounds: int

    def __str__(self) -> str:
        spread = f" ({self.p10:.2f} to {self.p90:.2f})" if self.rounds >= FEWEST["p90"] else ""
        return f"{self.median:.2f}{spread}"

    @classmethod
    def of(cls, slower: Timing, faster: Timing) -> Ratio:
        """Above 1 where `faster` is."""
        return cls(*ratio(slower, faster), len(faster.milliseconds))


@dataclass(frozen=True)
class Row:
    """One file on one backend, or one peer, at one size. What was not measured is null."""

    name: str  # FILE@BACKEND:PRECISION, or a peer's name
    kind: str  # "engine" or "peer"
    backend: str
    precision: str  # arithmetic of what the file has in fp32; of a peer
    reason: str  # why this backend and precision; empty for peers
    batch: int  # windows in a call
    height: int  # pixels
    width: int  # pixels
    latency_ms: Spread | None = None  # numpy array in, numpy array out: all copies and checks included
    compute_ms: Spread | None = (
        None  # the library's computation alone, no copies; null for peers (but trtexec) and onnxruntime-cuda
    )
    processor_ms: float | None = None  # median of the processor time of a call, of all threads
    rounds_ms: tuple[float, ...] = ()  # latency in every round, in order; all rows of a size ran in each; none of trtexec
    times_as_fast: Ratio | None = None  # latency, against the baseline
    fps_engine: float | None = None  # frames a second, from the median latency
    fps_end_to_end: float | None = None  # video file in, video file out
    times_as_fast_end_to_end: Ratio | None = None  # against the naive script
    parity_db: float | None = None  # PSNR against the reference, peak 1.0; 200 where equal
    loss_db: float | None = None  # PSNR of the reference against the truth, less this one's; positive is worse
    peak_memory_mb: float | None = None  # 10^6 bytes, of a process that runs one window
    cold_start_s: float | None = None  # from the start of a process to its first sharp window
    file_mb: float | None = None  # 10^6 bytes

    def over(self, slower: Row) -> Ratio | None:
        """How many times as fast as another row of its size, by the rounds; None where they ran in none together."""
        if not self.rounds_ms or len(self.rounds_ms) != len(slower.rounds_ms):
            return None
        return Ratio.of(Timing("", slower.rounds_ms), Timing("", self.rounds_ms))


@dataclass(frozen=True)
class Skipped:
    """What could not be measured here."""

    name: str
    size: str  # WIDTHxHEIGHT
    reason: str


@dataclass(frozen=True)
class BenchReport:
    """All of one run."""

    cpu: str
    gpu: str | None
    libraries: dict[str, str]  # versions
    load: tuple[float, float]  # the system's load average before and after, over a minute; processes that want to run
    threads: int | None  # that files' backends were limited to
    clip: str
    reference: str  # what parity is with
    baseline: str  # what latencies are compared with; empty when it was not measured
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The text that `read_report` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"
