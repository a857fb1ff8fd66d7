"""`Submissions`: calls of one function that are served in the background, in order, a few at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from runtime.errors import BackendError

WAITING = 4  # calls, those at work included; more block, so that memory is bounded

Finish = Callable[[], Any]  # waits for the result of a call that was begun


class Submissions:
    """Serves calls in a thread of its own. `submit` may be called from several threads.

    `begin(*arguments)` starts a call and returns what waits for its result; with `ahead` above 1 so many are begun before the
    first is waited for, so that a device always has the next one queued.
    """

    def __init__(self, begin: Callable[..., Finish], ahead: int = 1) -> None:
        self._begin, self._ahead = begin, ahead
        self._slots = threading.BoundedSemaphore(WAITING)
        self._calls: deque[tuple[Future[Any], tuple[Any, ...]]] = deque()
        self._begun: deque[tuple[Future[Any], Finish]] = deque()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="videodeblur-engine")

    def submit(self, *arguments: Any) -> Future[Any]:
        """A future of the call's result; blocks while WAITING others are unfinished. Raises BackendError when closed."""
        self._slots.acquire()
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: self._slots.release())
        self._calls.append((future, arguments))
        try:
            self._worker.submit(self._serve_next)
        except RuntimeError as error:
            future.cancel()
            raise BackendError("the engine is closed: open another") from error
        return future

    def close(self) -> None:
        """Waits for the calls at work and cancels those that wait; calling it again does nothing."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        while self._calls:
            future, _ = self._calls.popleft()
            if future.cancel():
                future.set_running_or_notify_cancel()  # wakes who waits in concurrent.futures.wait
        while self._begun:
            self._finish_oldest()

    def _serve_next(self) -> None:
        """Begins the next call; waits for begun ones when there are enough, or nothing else to do."""
        future, arguments = self._calls.popleft()
        if future.set_running_or_notify_cancel():
            try:
                self._begun.append((future, self._begin(*arguments)))
            except BaseException as error:  # it is raised where the result is asked for
                future.set_exception(error)
        while self._begun and (len(self._begun) >= self._ahead or not self._calls):
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        future, finish = self._begun.popleft()
        try:
            result = finish()
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(result)
