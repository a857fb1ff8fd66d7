"""`Life`: whether an engine may be used, by whom, and when what it holds is freed.

open -> at work -> open, or failed: the last window failed, the next may be given -> closed
any of them -> forked, in a process that was made by a fork
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from runtime.backends.runner import Runner
from runtime.errors import BackendError, InputError
from runtime.machine.forks import never_free_in_a_fork

PATIENCE = 30.0  # seconds that the end of the process waits for a window
OPEN, AT_WORK, FAILED, CLOSED, FORKED = "open", "at work", "failed", "closed", "forked"

Result = TypeVar("Result")


class Life:
    """Gives the threads of this process turns at a runner, one after the other.

    A signal handler runs in the middle of what it interrupts, and must not wait for that: it may close, and no more.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner, self._process = runner, os.getpid()
        self._turn = threading.RLock()  # re-entrant, so that a signal handler is told from another thread
        self._at_work = self._failed = self._closed = False
        never_free_in_a_fork(runner)
        _lives.add(self)

    @property
    def state(self) -> str:
        """OPEN, AT_WORK, FAILED, CLOSED or FORKED."""
        if self._process != os.getpid():
            return FORKED
        if self._closed:
            return CLOSED
        return AT_WORK if self._at_work else FAILED if self._failed else OPEN

    @property
    def interrupted(self) -> bool:
        """Whether this thread is at work already, in what a signal handler interrupted."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            return self._at_work
        finally:
            self._turn.release()

    def check(self) -> None:
        """Raises BackendError when this thread can have no turn, now or later."""
        if self._process != os.getpid():
            raise BackendError("the engine was opened before a fork: open one in each worker")
        if self._closed:
            raise BackendError("the engine is closed: open another")
        if self.interrupted:
            raise BackendError("got a window while this thread is at one (a signal handler?): give it when that is done")

    def serve(self, call: Callable[[], Result]) -> Result:
        """What `call` returns, when it is this thread's turn. Raises BackendError when there is none."""
        self.check()
        with self._turn:
            self.check()
            try:
                self._at_work = True
                result = call()
                self._failed = False
                return result
            except InputError:  # the window's fault
                raise
            except MemoryError as error:
                self._failed = True
                raise BackendError(
                    f"there is not enough memory for the window ({error}): free some, or give smaller ones"
                ) from error
            except BaseException:
                self._failed = True
                raise
            finally:
                self._at_work = False
                if self._closed:
                    self._runner.close()

    def close(self) -> None:
        """Frees the runner after the window at work. One that this very thread is at ends first; after a fork nothing is freed."""
        self._closed = True
        if self._process != os.getpid():
            return
        with self._turn:
            if not self._at_work:
                self._runner.close()

    def end(self) -> None:
        """Lets no window follow the one at work, and waits for that, but not for ever."""
        self._closed = True
        if self._process == os.getpid() and self._turn.acquire(timeout=PATIENCE):
            self._turn.release()


_lives: weakref.WeakSet[Life] = weakref.WeakSet()


@atexit.register  # before that of submissions, so that it runs after it
def _end_all() -> None:
    """A daemon thread that is in a library when the interpreter goes away takes the process with it: C++ cannot be unwound."""
    for life in list(_lives):
        life.end()
