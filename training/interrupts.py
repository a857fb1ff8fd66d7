"""Ctrl-C and SIGTERM as a flag, so that a step is finished and saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Interrupt:
    """Whether the process was asked to stop."""

    asked: bool = False


@contextmanager
def deferred_interrupts() -> Iterator[Interrupt]:
    """Sets the flag instead of ending the process; outside the main thread, where Python takes no signals, it stays unset."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def ask(number: int, frame: object) -> None:
        interrupt.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
