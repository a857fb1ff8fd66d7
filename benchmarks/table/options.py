"""`BenchOptions`: what `videodeblur bench` is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import PEERS
from benchmarks.shared.timing import Effort
from benchmarks.shared.windows import BLURRY, SHARP, VIDEO
from runtime.errors import InputError

NAIVE = "naive OpenCV + onnxruntime script"  # a peer that runs whole videos only
TRTEXEC = "trtexec"  # a peer in a process of its own, which does its own timing
PARTS = ("latency", "cold-start", "video")
SMALLEST = 64  # pixels


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and for how long."""

    subjects: tuple[str, ...]  # as subjects.expand makes them
    peers: tuple[str, ...]  # keys of PEERS, NAIVE, TRTEXEC
    sizes: tuple[tuple[int, int], ...]  # H, W in pixels
    model: Path | None  # ONNX file in fp32 that peers run; None without peers
    checkpoint: Path | None  # that it came from; None when it is not at hand
    batch: int = 1  # windows in a call
    frames: int = 5  # of a window
    effort: Effort = field(default_factory=Effort)
    threads: int | None = None  # CPU cores for the files' backends; peers take what they take by themselves
    clip: Path = BLURRY
    truth: Path | None = SHARP  # the same clip without blur; None: the loss is not measured
    windows: int = 4  # batches that parity and loss are measured on
    video: Path = VIDEO  # scaled and repeated to what is deblurred end to end
    video_frames: int = 20
    video_rounds: int = 3
    parts: tuple[str, ...] = PARTS
    deadline: float = math.inf  # seconds after which no further cold start or video begins

    def __post_init__(self) -> None:
        """Raises InputError on words that are not known and sizes that nothing runs."""
        if unknown := [name for name in self.peers if name not in (*PEERS, NAIVE, TRTEXEC)]:
            raise InputError(f"no peer {unknown[0]!r}, expected some of: {', '.join((*PEERS, NAIVE, TRTEXEC))}")
        if unknown := [name for name in self.parts if name not in PARTS]:
            raise InputError(f"no part {unknown[0]!r}, expected some of: {', '.join(PARTS)}")
        if not self.subjects and not self.peers:
            raise InputError("there is nothing to measure: name a model, or --peers")
        if self.peers and self.model is None:
            raise InputError("peers run an fp32 model with float I/O: name one, or --peers none")
        for height, width in self.sizes:
            if min(height, width) < SMALLEST:
                raise InputError(f"the size is {width}x{height}, expected {SMALLEST} pixels or more each way")
        if self.batch < 1 or self.effort.iterations < 1 or self.windows < 1:
            raise InputError(f"batch is {self.batch}, iterations {self.effort.iterations}, expected 1 or more")
