"""`measure`: runs an engine as trtexec does and notes when each query was queued, copied and computed; knows neither CUDA nor
TensorRT.

The order of the work and what counts as warm-up are those of trtexec 11.1 (samples/common/sampleInference.cpp): each lane keeps two
queries in flight, so that the copies of one run beside the compute of the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy.typing as npt

from runtime.errors import InputError

ENDLESS = -1.0  # seconds of a measurement that ends with Ctrl-C


class Work(Enum):
    """A stream of a lane, named by what it does."""

    COPY_IN = "copy in"
    COMPUTE = "compute"
    COPY_OUT = "copy out"


@dataclass(frozen=True)
class LoopOptions:
    """How long to measure and what a query is, in trtexec's terms and with the defaults of its version 11."""

    iterations: int = 10  # queries of each lane after the warm-up, at least
    warmup: float = 200.0  # milliseconds
    duration: float = 3.0  # seconds after the warm-up, at least; or ENDLESS
    hold: float = 0.0  # milliseconds that the GPU waits while the first queries are queued
    idle: float = 0.0  # milliseconds between two iterations after the warm-up
    overlap: bool = True  # two queries of a lane in flight, not one
    transfers: bool = False  # a query copies its input to the GPU and its output back
    threads: bool = False  # a thread for each lane

    def __post_init__(self) -> None:
        """Raises InputError on a number that is none of these."""
        for name in ("iterations", "warmup", "hold", "idle"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name):g}, expected 0 or more")
        if self.duration < 0 and self.duration != ENDLESS:
            raise InputError(f"duration is {self.duration:g}, expected seconds, or -1 to go on until Ctrl-C")


@dataclass(frozen=True)
class Trace:
    """When the parts of a query began and ended: milliseconds since the measurement began, of the host's clock while it was queued
    and of the GPU's for the rest. Without copies these begin and end with the compute."""

    lane: int
    enqueue_start: float
    enqueue_end: float
    h2d_start: float
    h2d_end: float
    compute_start: float
    compute_end: float
    d2h_start: float
    d2h_end: float


class Lane(Protocol):
    """An execution context with its buffers and a stream for each `Work`. All but `wait` return before the GPU has done it."""

    @property
    def input(self) -> npt.NDArray[Any]:
        """The input in the host's memory, to be filled."""

    @property
    def output(self) -> npt.NDArray[Any]:
        """The output in the host's memory, once it was copied."""

    def copy_in(self) -> None:
        """Queues the input's copy to the GPU."""

    def compute(self) -> None:
        """Queues the inference."""

    def copy_out(self) -> None:
        """Queues the output's copy from the GPU."""

    def mark(self, work: Work, end: bool, turn: int) -> None:
        """Marks the point that the work's stream is at, as the start or end of that work of query `turn` (0 or 1)."""

    def order(self, work: Work, turn: int, following: Work) -> None:
        """What is queued on the stream of `following` from here on starts after the end of `work`."""

    def wait(self, work: Work, turn: int) -> None:
        """Blocks until the end of `work`."""

    def at(self, work: Work, end: bool, turn: int) -> float:
        """Milliseconds from the device's `begin` to a mark that was waited for."""


class Device(Protocol):
    """What is measured, with its clocks."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """At least one."""

    def enter(self) -> None:
        """Makes the device current for the calling thread."""

    def begin(self, hold: float) -> None:
        """Sets both clocks to 0; all lanes start there, once the GPU has waited `hold` milliseconds."""

    def now(self) -> float:
        """Milliseconds of the host's clock since `begin`."""

    def sleep(self, milliseconds: float) -> None:
        """Lets the host wait."""


def measure(device: Device, options: LoopOptions, stop: Callable[[], None] = lambda: None) -> list[Trace]:
    """The traces of all queries, the warm-up's too, in the order in which they started. `stop` is called once an iteration and
    may raise. An endless measurement returns nothing, whoever interrupts it."""
    device.enter()
    if not options.transfers:
        for lane in device.lanes:
            lane.copy_in()
            lane.mark(Work.COPY_IN, True, 0)
            lane.wait(Work.COPY_IN, 0)
    device.begin(options.hold)
    queues = [_Queue(number, lane, device, options) for number, lane in enumerate(device.lanes)]
    if options.threads:
        with ThreadPoolExecutor(len(queues)) as pool:
            found = [trace for traces in pool.map(lambda queue: _loop([queue], device, options, stop), queues) for trace in traces]
    else:
        found = _loop(queues, device, options, stop)
    return sorted(found, key=lambda trace: trace.h2d_start)


def run_once(lane: Lane) -> None:
    """One query with its copies; the output lies in the lane's host buffer when this returns."""
    lane.copy_in()
    lane.mark(Work.COPY_IN, True, 0)
    lane.order(Work.COPY_IN, 0, Work.COMPUTE)
    lane.compute()
    lane.mark(Work.COMPUTE, True, 0)
    lane.order(Work.COMPUTE, 0, Work.COPY_OUT)
    fetch(lane)


def fetch(lane: Lane) -> None:
    """The output lies in the lane's host buffer when this returns."""
    lane.copy_out()
    lane.mark(Work.COPY_OUT, True, 0)
    lane.wait(Work.COPY_OUT, 0)


def _loop(queues: list[_Queue], device: Device, options: LoopOptions, stop: Callable[[], None]) -> list[Trace]:
    device.enter()
    traces: list[Trace] = []
    most = options.warmup + 1000 * options.duration
    latest, warming, done = 0.0, 0, 0
    endless = options.duration == ENDLESS
    while endless or done < options.iterations + warming or latest < most:
        stop()
        done += 1
        for queue in queues:
            queue.add()
        found = [trace for queue in queues for trace in queue.take()]
        if endless:
            continue
        traces += found
        latest = max([latest, *(trace.compute_start for trace in found)])
        if latest < options.warmup:
            warming += 1
        elif options.idle:
            device.sleep(options.idle)
    return traces + [trace for queue in queues for trace in queue.take(everything=True)]


class _Queue:
    """The queries in flight on one lane."""

    def __init__(self, number: int, lane: Lane, device: Device, options: LoopOptions) -> None:
        self._number, self._lane, self._device, self._transfers = number, lane, device, options.transfers
        self._depth = 2 if options.overlap else 1
        self._turn = 0
        self._waiting: deque[tuple[int, float, float]] = deque()  # (turn, queueing began, ended)

    def add(self) -> None:
        lane, turn = self._lane, self._turn
        if self._transfers:
            lane.mark(Work.COPY_IN, False, turn)
            lane.copy_in()
            lane.mark(Work.COPY_IN, True, turn)
            lane.order(Work.COPY_IN, turn, Work.COMPUTE)
        lane.mark(Work.COMPUTE, False, turn)
        began = self._device.now()
        lane.compute()
        ended = self._device.now()
        lane.mark(Work.COMPUTE, True, turn)
        if self._transfers:
            lane.order(Work.COMPUTE, turn, Work.COPY_OUT)
            lane.mark(Work.COPY_OUT, False, turn)
            lane.copy_out()
            lane.mark(Work.COPY_OUT, True, turn)
        self._waiting.append((turn, began, ended))
        self._turn = (turn + 1) % self._depth

    def take(self, everything: bool = False) -> list[Trace]:
        """Waits until there is room for the next query, or for all of them."""
        taken = []
        while len(self._waiting) >= (1 if everything else self._depth):
            taken.append(self._trace(*self._waiting.popleft()))
        return taken

    def _trace(self, turn: int, began: float, ended: float) -> Trace:
        lane = self._lane
        lane.wait(Work.COPY_OUT if self._transfers else Work.COMPUTE, turn)
        start, end = lane.at(Work.COMPUTE, False, turn), lane.at(Work.COMPUTE, True, turn)
        if not self._transfers:
            return Trace(self._number, began, ended, start, start, start, end, end, end)
        h2d, d2h = ([lane.at(work, side, turn) for side in (False, True)] for work in (Work.COPY_IN, Work.COPY_OUT))
        return Trace(self._number, began, ended, h2d[0], h2d[1], start, end, d2h[0], d2h[1])
