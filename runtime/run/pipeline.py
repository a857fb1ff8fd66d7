"""`overlap`: decoding, inference and encoding at the same time."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from runtime.errors import VideoError

In = TypeVar("In")
Out = TypeVar("Out")
Item = TypeVar("Item")

LONGEST_END = 10.0  # seconds that the program's end waits for a run
TOLD_WITHIN = 0.5  # seconds after a run in which its thread may tell what it ended with
TOO_EARLY = "the program ended before the video did: wait for the thread that runs it"


def overlap(source: Iterable[In], work: Callable[[Iterator[In]], Iterable[Out]], sink: Callable[[Out], object], depth: int) -> None:
    """Calls `sink` with every item that `work` makes of `source`, in order; returns when the last was taken.

    `source` is read in a thread of its own and `sink` called in another; `work` runs in the caller's. At most `depth` items wait
    between two of them. The first error of any of the three stops them all and is raised here, Ctrl-C in the caller too; source
    and sink are no longer in use by then.
    """
    stages = _Stages()
    _at_work.add(stages)
    if _ending.is_set():
        raise VideoError(TOO_EARLY)
    read, made = _Channel[In](stages, depth), _Channel[Out](stages, depth)
    with stages:
        stages.start("videodeblur-read", lambda: _fill(read, source))
        stages.start("videodeblur-write", lambda: _drain(made, sink))
        _fill(made, work(iter(read)))


@contextmanager
def ended_with_the_program() -> Iterator[None]:
    """A run in a daemon thread, which nobody waits for, ends in good order when the program does: with an error.

    A thread that is in FFmpeg when the interpreter goes away takes the process with it.
    """
    run = threading.Event(), threading.current_thread()
    _runs.add(run)
    try:
        yield
    finally:
        _runs.discard(run)
        run[0].set()


class _Stages:
    """Threads that fail together. Leaving the `with` block waits for them and raises the first error of any."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  # notified whenever a channel or `errors` did
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._begun = self._ended = 0  # stages, in threads

    def start(self, name: str, stage: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._run, args=(stage,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._end(error)
        if self.errors:
            raise self.errors[0]
        return True

    def _run(self, stage: Callable[[], None]) -> None:
        with self.changed:
            if self.errors:  # the caller was interrupted while this thread came up, and does not wait for it
                return
            self._begun += 1
        try:
            stage()
        except BaseException as error:  # it is raised in the caller's thread
            self.fail(error)
        finally:
            with self.changed:
                self._ended += 1
                self.changed.notify_all()

    def fail(self, error: BaseException | None) -> None:
        """Ends all stages; the first error counts."""
        if error is not None and not isinstance(error, _OtherStageError):
            with self.changed:
                self.errors.append(error)
                self.changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        """Waits for all stages, even when interrupted, since whoever closes the files next must be alone with them.

        Not by `Thread.join` alone: after an interruption there, CPython 3.11 takes a thread that runs for one that has ended.
        """
        while True:
            try:
                self.fail(error)
                with self.changed:
                    self.changed.wait_for(lambda: self._ended == (self._begun if self.errors else len(self._threads)))
                for thread in self._threads:
                    thread.join()
            except KeyboardInterrupt as again:
                error = again
            else:
                return


class _OtherStageError(Exception):
    """Another stage failed."""


class _Channel(Generic[Item]):
    """A queue between two stages that holds at most `depth` items."""

    def __init__(self, stages: _Stages, depth: int) -> None:
        self._stages, self._depth = stages, depth
        self._items: deque[Item] = deque()
        self._ended = False

    def put(self, item: Item) -> None:
        with self._stages.changed:
            self._wait_until(lambda: len(self._items) < self._depth)
            self._items.append(item)
            self._stages.changed.notify_all()

    def end(self) -> None:
        with self._stages.changed:
            self._ended = True
            self._stages.changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._stages.changed:
                self._wait_until(lambda: bool(self._items) or self._ended)
                if not self._items:
                    return
                item = self._items.popleft()
                self._stages.changed.notify_all()
            yield item
            del item  # not kept while waiting for the next

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        self._stages.changed.wait_for(lambda: ready() or self._stages.errors)
        if self._stages.errors:
            raise _OtherStageError


def _fill(channel: _Channel[Item], items: Iterable[Item]) -> None:
    for item in items:
        channel.put(item)
    channel.end()


def _drain(channel: _Channel[Item], sink: Callable[[Item], object]) -> None:
    for item in channel:
        sink(item)


_runs: set[tuple[threading.Event, threading.Thread]] = set()  # whether it is over, and where it runs
_at_work: weakref.WeakSet[_Stages] = weakref.WeakSet()
_ending = threading.Event()


@atexit.register
def _end_all() -> None:
    _ending.set()
    for stages in list(_at_work):
        stages.fail(VideoError(TOO_EARLY))
    last = time.monotonic() + LONGEST_END
    for over, thread in list(_runs):
        over.wait(max(0.0, last - time.monotonic()))
        if thread is not threading.current_thread():
            thread.join(TOLD_WITHIN)
