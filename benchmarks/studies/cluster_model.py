"""A library of unequal videos on 1 to 1,000 workers, some slow, some lost: the real dispatcher, tasks that take what was measured.

python benchmarks/studies/cluster_model.py --fps 11 --decode-fps 900 --chart docs/cluster_model.svg

The rates are those of one worker, as benchmarks/pipeline.py prints them. Nothing is computed; the clock jumps from event to event.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.arguments import count
from runtime.command_line import command
from serving.library.dispatcher import Dispatcher, Event
from serving.library.worker import JOINING, PLANNING, SEGMENT, Outcome, Task

WORKERS = (1, 10, 30, 100, 300, 1000)
TRIES = 3  # as `videodeblur library --tries`
PATIENCE = 300.0  # seconds
SPREAD = 1.0  # of the logarithm of a video's length: one in twenty is five times as long as the median
JITTER = 0.1  # of the logarithm of a task's seconds
HOUR = 3600.0


@dataclass(frozen=True)
class Cluster:
    """What the library and the workers are like."""

    videos: int = 300
    frames: int = 5000  # of the median video
    segment: int = 250  # frames
    fps: float = 10.0  # of a worker on a segment: decoding, network, encoding
    decode_fps: float = 500.0  # when a video is planned
    join_fps: float = 5000.0  # when its segments are copied into one file
    slow: float = 0.05  # share of the workers that take three times as long
    slowness: float = 3.0
    lost_after: float = 24.0  # hours at work after which a worker is lost, on average
    back_after: float = 120.0  # seconds until it is there again
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """A simulated run."""

    workers: int
    hours: float
    retries: int
    given_up: int  # tasks
    joined: int  # videos


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, simulates, prints a row for each number of workers."""
    parser = argparse.ArgumentParser(prog="benchmarks/studies/cluster_model.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workers", type=count, nargs="+", default=WORKERS, help="numbers of workers (default: 1 to 1000)")
    add("--videos", type=count, default=Cluster.videos, help="videos in the library (default: %(default)s)")
    add("--frames", type=count, default=Cluster.frames, help="frames of the median video (default: %(default)s)")
    add("--segment", type=count, default=Cluster.segment, help="frames of a segment (default: %(default)s)")
    add("--fps", type=float, default=Cluster.fps, help="frames a second of a worker, end to end (default: %(default)s)")
    add("--decode-fps", type=float, default=Cluster.decode_fps, help="frames a second that it plans (default: %(default)s)")
    add("--join-fps", type=float, default=Cluster.join_fps, help="frames a second that it joins (default: %(default)s)")
    add("--lost-after", type=float, default=Cluster.lost_after, help="hours of work between two losses (default: %(default)s)")
    add("--chart", type=Path, metavar="FILE", help="draw speed over workers, .svg or .png")
    given = vars(parser.parse_args(argv))
    workers, chart = given.pop("workers"), given.pop("chart")
    cluster = Cluster(**given)
    results = [simulate(cluster, number) for number in workers]
    print(table(cluster, results))
    if chart:
        save_chart(cluster, results, chart)
    return 0


def simulate(cluster: Cluster, workers: int) -> Result:
    """One run of the library on so many workers."""
    library = _Library(cluster)
    pool = SimulatedPool(cluster, library, workers)
    dispatcher = Dispatcher(pool, library.done, TRIES, PATIENCE, lambda line: None)
    dispatcher.run(Task(PLANNING, file) for file in library.lengths)
    return Result(workers, pool.clock / HOUR, dispatcher.retries, len(dispatcher.failures), library.joined)


def work(cluster: Cluster) -> float:
    """Hours of one worker that is never slow nor lost."""
    library = _Library(cluster)
    return sum(library.seconds(task) for task in library.all_tasks()) / HOUR


def table(cluster: Cluster, results: Sequence[Result]) -> str:
    """A row for each number of workers."""
    alone, frames = work(cluster), sum(_Library(cluster).lengths.values())
    lines = [
        f"{cluster.videos} videos, {frames} frames, {alone:.1f} hours of work for one worker without a fault",
        f"{'workers':>8}{'hours':>10}{'speed-up':>10}{'of ideal':>10}{'retries':>9}{'given up':>10}",
    ]
    for each in results:
        speedup = alone / each.hours
        share = f"{100 * speedup / each.workers:.0f} %"
        lines.append(f"{each.workers:>8}{each.hours:>10.2f}{speedup:>10.1f}{share:>10}{each.retries:>9}{each.given_up:>10}")
    return "\n".join(lines)


def save_chart(cluster: Cluster, results: Sequence[Result], path: Path) -> None:
    """Speed-up over workers, and the ideal."""
    from benchmarks.shared.chart_file import Figure, save  # matplotlib, where a chart is wanted

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    workers, alone = [each.workers for each in results], work(cluster)
    axes.loglog(workers, workers, linestyle=":", color="grey", label="ideal")
    axes.loglog(workers, [alone / each.hours for each in results], marker="o", label="simulated")
    axes.set_xlabel("workers")
    axes.set_ylabel("times as fast as one without a fault")
    axes.legend()
    save(figure, path)


class _Library:
    """The videos, what their tasks take, and which follow from which."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        lengths = random.Random(cluster.seed)
        self.lengths = {
            f"{number:04}.mp4": max(1, round(cluster.frames * math.exp(lengths.gauss(0, SPREAD))))
            for number in range(cluster.videos)
        }
        self._left = {file: self.segments(file) for file in self.lengths}
        self.joined = 0

    def segments(self, file: str) -> int:
        return -(-self.lengths[file] // self._cluster.segment)

    def all_tasks(self) -> Iterator[Task]:
        for file in self.lengths:
            yield Task(PLANNING, file)
            yield from (Task(SEGMENT, file, number) for number in range(self.segments(file)))
            yield Task(JOINING, file)

    def seconds(self, task: Task) -> float:
        """Of a worker that is not slow."""
        frames, cluster = self.lengths[task.file], self._cluster
        if task.kind == SEGMENT:
            return min(cluster.segment, frames - task.number * cluster.segment) / cluster.fps
        return frames / (cluster.decode_fps if task.kind == PLANNING else cluster.join_fps)

    def done(self, task: Task, outcome: Outcome) -> Iterator[Task]:
        """As `videodeblur library` goes on."""
        if task.kind == PLANNING:
            yield from (Task(SEGMENT, task.file, number) for number in range(self.segments(task.file)))
        elif task.kind == SEGMENT:
            self._left[task.file] -= 1
            if not self._left[task.file]:
                yield Task(JOINING, task.file)
        else:
            self.joined += 1


class SimulatedPool:
    """A `Pool` of workers that take their time and are lost by chance."""

    def __init__(self, cluster: Cluster, library: _Library, workers: int) -> None:
        self._cluster, self._library = cluster, library
        self._chance = random.Random(cluster.seed + 1)
        slow = set(self._chance.sample(range(workers), round(cluster.slow * workers)))
        self._slowness = [cluster.slowness if number in slow else 1.0 for number in range(workers)]
        self._idle = dict.fromkeys(range(workers))
        self._present = dict.fromkeys(range(workers))
        self._events: list[tuple[float, int, int, Task | None, bool]] = []  # when, order, worker, its task, whether it is lost
        self._order = 0
        self.clock = 0.0  # seconds

    def idle(self) -> list[int]:
        """See `Pool`."""
        return list(self._idle)

    def present(self) -> list[int]:
        """See `Pool`."""
        return list(self._present)

    def give(self, worker: int, task: Task) -> None:
        """See `Pool`."""
        del self._idle[worker]
        seconds = self._library.seconds(task) * self._slowness[worker] * math.exp(self._chance.gauss(0, JITTER))
        until_lost = self._chance.expovariate(1 / (self._cluster.lost_after * HOUR))
        self._expect(min(seconds, until_lost), worker, task, until_lost < seconds)

    def wait(self, seconds: float) -> Event | None:
        """The next event, however long that takes by the simulated clock; see `Pool`."""
        if not self._events:
            return None
        self.clock, _, worker, task, lost = heapq.heappop(self._events)
        if lost:
            del self._present[worker]
            self._expect(self._cluster.back_after, worker, None, False)
            return Event(worker, task, lost="simulated")
        self._present[worker] = self._idle[worker] = None
        return Event(worker, task, Outcome(segments=1)) if task else None

    def _expect(self, seconds: float, worker: int, task: Task | None, lost: bool) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.clock + seconds, self._order, worker, task, lost))


if __name__ == "__main__":
    raise SystemExit(main())
