"""`begin`: a call in a thread of its own, also where the program's main thread has ended and others have not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


def begin(name: str, call: Callable[..., Result], *arguments: Any) -> Future[Result]:
    """The future of `call(*arguments)`; a pool of `concurrent.futures` takes no call once the main thread has ended."""
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:  # it is raised by `result`
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
