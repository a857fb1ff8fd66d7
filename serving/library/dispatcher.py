"""`Dispatcher`: hands tasks to workers that may fail or vanish, each task a limited number of times."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from runtime.errors import BackendError
from runtime.progress import Say
from serving.library.worker import JOINING, PLANNING, SEGMENT, Outcome, Task

RANK = {JOINING: 0, PLANNING: 1, SEGMENT: 2}  # what is finished is joined; what cannot be done is known early
LOOK_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Event:
    """What a pool has to tell: a worker finished a task, was lost with it, or cannot work at all."""

    worker: int
    task: Task | None = None
    outcome: Outcome | None = None  # of the task
    lost: str = ""  # how the worker vanished; it comes back by itself if it can
    retired: str = ""  # why the worker will never be ready


class Pool(Protocol):
    """Workers, by number."""

    def idle(self) -> list[int]:
        """Those that wait for a task."""
        ...

    def present(self) -> list[int]:
        """Those that are idle or at work."""
        ...

    def give(self, worker: int, task: Task) -> None:
        """A task for an idle worker."""
        ...

    def wait(self, seconds: float) -> Event | None:
        """What happens next; None when nothing did within so many seconds, or a worker became idle."""
        ...


@dataclass(frozen=True)
class Failure:
    """A task that is given up, and why."""

    task: Task
    errors: tuple[str, ...]  # of each try; a bug's with its traceback

    def __str__(self) -> str:
        last = self.errors[-1].strip().splitlines()[-1]
        return f"{self.task}: {last} ({len(self.errors)} {'try' if len(self.errors) == 1 else 'tries'})"


class Dispatcher:
    """Runs tasks until none is left; `failures` has those that failed `tries` times, which the others do not wait for.

    A task that failed goes to another worker next where there is one, so that a machine on which everything fails does not use up
    its tries. `done` is called with every task that succeeded, and returns those that follow from it.
    """

    def __init__(self, pool: Pool, done: Callable[[Task, Outcome], Iterable[Task]], tries: int, patience: float, say: Say) -> None:
        self._pool, self._done, self._tries, self._patience, self._say = pool, done, tries, patience, say
        self._fresh: list[tuple[int, int, Task]] = []  # a heap
        self._again: list[Task] = []
        self._errors: dict[Task, list[str]] = {}
        self._failed_on: dict[Task, set[int]] = {}
        self._running = self._added = 0
        self._began: float | None = None  # when the first worker was there
        self.retries = 0
        self.failures: list[Failure] = []

    @property
    def seconds(self) -> float:
        """Since a worker was first there, with its engine open; 0 before that."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def run(self, tasks: Iterable[Task]) -> None:
        """Raises BackendError when no worker has been there for `patience` seconds."""
        self._add(tasks)
        seen = time.monotonic()
        while self._fresh or self._again or self._running:
            if self._began is None and self._pool.present():
                self._began = time.monotonic()
            self._give_out()
            event = self._pool.wait(LOOK_EVERY)
            if event:
                self._take(event)
            if self._pool.present():
                seen = time.monotonic()
            elif time.monotonic() - seen > self._patience:
                left = len(self._fresh) + len(self._again)
                raise BackendError(
                    f"no worker has been there for {self._patience:.0f} s, {left} tasks are left: start machines, and the same"
                    " command again"
                )

    def _add(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._added += 1
            heapq.heappush(self._fresh, (RANK[task.kind], self._added, task))

    def _give_out(self) -> None:
        for worker in self._pool.idle():
            task = self._next(worker)
            if task is None:
                continue
            self._running += 1
            self._pool.give(worker, task)

    def _next(self, worker: int) -> Task | None:
        present = set(self._pool.present())
        for place, task in enumerate(self._again):
            tried = self._failed_on[task]
            if worker not in tried or present <= tried:
                return self._again.pop(place)
        return heapq.heappop(self._fresh)[2] if self._fresh else None

    def _take(self, event: Event) -> None:
        if event.retired:
            self._say(f"worker {event.worker} cannot work: {event.retired}")
        if event.lost and not event.task:
            self._say(f"worker {event.worker} was lost while it waited ({event.lost})")
        if not event.task:
            return
        self._running -= 1
        outcome = event.outcome or Outcome(error=f"its worker was lost ({event.lost})")
        if outcome.error:
            self._failed(event.task, event.worker, outcome)
        else:
            self._add(self._done(event.task, outcome))

    def _failed(self, task: Task, worker: int, outcome: Outcome) -> None:
        errors = self._errors.setdefault(task, [])
        errors.append(outcome.error)
        self._failed_on.setdefault(task, set()).add(worker)
        if len(errors) < self._tries and not outcome.final:
            self.retries += 1
            self._say(f"{task} is tried again: {outcome.error.strip().splitlines()[-1]}")
            self._again.append(task)
            return
        failure = Failure(task, tuple(errors))
        self.failures.append(failure)
        self._say(f"given up: {failure}")


class LocalPool:
    """One worker, in this process."""

    def __init__(self, do: Callable[[Task], Outcome]) -> None:
        self._do = do
        self._task: Task | None = None

    def idle(self) -> list[int]:
        """See `Pool`."""
        return [] if self._task else [0]

    def present(self) -> list[int]:
        """See `Pool`."""
        return [0]

    def give(self, worker: int, task: Task) -> None:
        """See `Pool`."""
        self._task = task

    def wait(self, seconds: float) -> Event | None:
        """Does the task; see `Pool`."""
        if self._task is None:
            return None
        task, self._task = self._task, None
        return Event(0, task, self._do(task))
