"""`Submissions`: calls that are served in the background, in order, a few at a time."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from runtime.errors import BackendError, BusyError

WAITING = 4  # calls, those at work included; more block, so that memory is bounded
PATIENCE = 0.5  # seconds after which one that blocks looks again: what a signal handler ends in its thread notifies nobody

Finish = Callable[[], Any]  # waits for the result of a call that was begun


class Submissions:
    """Serves calls in a thread of its own. `submit` may be called from several threads, from callbacks and signal handlers.

    A call is a function `begin(*arguments)` that starts it and returns what waits for its result; with `ahead` above 1 so many are
    begun before the first is waited for, so that a device always has the next one queued. Nothing but calls that are not finished
    is held, so that who submits is freed as soon as nobody needs it.
    """

    def __init__(self, ahead: int = 1) -> None:
        self._ahead = ahead
        self._changed = threading.Condition()  # its lock is re-entrant
        self._unfinished, self._closed = 0, False
        self._calls: deque[tuple[Future[Any], Callable[..., Finish], tuple[Any, ...]]] = deque()
        self._begun: deque[tuple[Future[Any], Finish]] = deque()
        self._worker = _Worker()
        weakref.finalize(self, self._worker.end).atexit = False

    @property
    def unfinished(self) -> int:
        """Calls that wait or are at work."""
        return self._unfinished

    def submit(self, begin: Callable[..., Finish], *arguments: Any, wait: bool = True) -> Future[Any]:
        """A future of the call's result.

        While WAITING others are unfinished it blocks, or without `wait` raises BusyError; in a callback, which runs in the thread
        that would have to finish them, it does neither. Raises BackendError when closed.
        """
        future = _Future(self._worker)
        with self._changed:
            while self._unfinished >= WAITING and not self._closed and not self._worker.is_current:
                if not wait:
                    raise BusyError(f"got a window while {WAITING} are unfinished: wait for one of them, or use submit")
                self._changed.wait(PATIENCE)
            if self._closed:
                raise BackendError("the engine is closed: open another")
            self._worker.start()
            self._unfinished += 1
            future.add_done_callback(self._one_less)
            self._calls.append((future, begin, arguments))
            self._worker.tasks.put(self._serve_next)
        return future

    def close(self) -> None:
        """Waits for the calls at work; those that wait fail with BackendError. Calling it again does nothing.

        In a callback, which runs in the thread that is at work, those begun are finished here.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._refuse_waiting()
        if self._worker.is_current:
            self._finish_begun()
        self._worker.end()
        self._worker.join()

    def _one_less(self, _: Future[Any]) -> None:
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()

    def _refuse_waiting(self) -> None:
        """Not by `cancel`, after which a task that awaits one would take itself for cancelled."""
        with suppress(IndexError):
            while True:
                future = self._calls.popleft()[0]
                if future.set_running_or_notify_cancel():
                    future.set_exception(BackendError("the engine was closed before this window was run: open another"))

    def _serve_next(self) -> None:
        """Begins the next call; waits for begun ones when there are enough, or nothing else to do."""
        with suppress(IndexError):  # it was cancelled
            self._begin(*self._calls.popleft())
        while self._begun and (len(self._begun) >= self._ahead or not self._calls):
            self._finish_oldest()

    def _begin(self, future: Future[Any], begin: Callable[..., Finish], arguments: tuple[Any, ...]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            finish = begin(*arguments)
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)
            del future  # else it and the error's traceback hold each other
        else:
            self._begun.append((future, finish))

    def _finish_begun(self) -> None:
        while self._begun:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        future, finish = self._begun.popleft()
        try:
            result = finish()
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)
            del future  # else it and the error's traceback hold each other
        else:
            future.set_result(result)


class _Worker:
    """A thread that holds nothing while it waits for a task. What was given to it is done before the process ends."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.process = os.getpid()
        self._thread = threading.Thread(target=_work, args=(self.tasks,), name="videodeblur-engine", daemon=True)
        self._started = False

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Starts it when it has not been. Raises BackendError when the system has no thread left."""
        if self._started:
            return
        try:
            self._thread.start()
        except RuntimeError as error:
            raise BackendError(
                f"no thread for the engine ({error}): allow this process more threads or memory, or use run"
            ) from error
        self._started = True
        _workers.add(self)

    def end(self) -> None:
        """Lets it end after the tasks that it has."""
        self.tasks.put(None)

    def join(self) -> None:
        """Waits until it has ended; the thread itself does not."""
        if self._thread.is_alive() and not self.is_current and self.process == os.getpid():
            self._thread.join()


class _Future(Future[Any]):
    """One that does not wait for what cannot come."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__()
        self._worker = worker

    def result(self, timeout: float | None = None) -> Any:
        """See `Future.result`. Raises BackendError where it would wait for ever."""
        self._check()
        try:
            return super().result(timeout)
        finally:
            del self  # else it and the error's traceback hold each other

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `Future.exception`. Raises BackendError where it would wait for ever."""
        self._check()
        return super().exception(timeout)

    def _check(self) -> None:
        if self.done():
            return
        if self._worker.process != os.getpid():
            raise BackendError("the window was submitted before a fork: ask for its result in the process that submitted it")
        if self._worker.is_current:
            raise BackendError("got a wait for a window in a callback of its engine, which it waits for: wait in another thread")


def _work(tasks: SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _finish_all() -> None:
    for worker in list(_workers):
        worker.end()
        worker.join()
