"""`Submissions`: calls of one function that are served in the background, in order, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from runtime.errors import BackendError

WAITING = 4  # calls, the one at work included; more block, so that memory is bounded


class Submissions:
    """Serves calls in a thread of its own. `submit` may be called from several threads."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._slots = threading.BoundedSemaphore(WAITING)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="videodeblur-engine")

    def submit(self, *arguments: Any) -> Future[Any]:
        """A future of `function(*arguments)`; blocks while WAITING others are unfinished. Raises BackendError when closed."""
        self._slots.acquire()
        try:
            future = self._worker.submit(self._function, *arguments)
        except RuntimeError as error:
            self._slots.release()
            raise BackendError("the engine is closed: open another") from error
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def close(self) -> None:
        """Waits for the call at work and cancels those that wait; calling it again does nothing."""
        self._worker.shutdown(wait=True, cancel_futures=True)
