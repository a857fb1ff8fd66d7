"""How busy other processes kept the machine while something was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # a second
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal


class OtherWork:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._begun, self._all, self._own = time.perf_counter(), _all_seconds(), _own_seconds()

    def cores(self) -> float | None:
        """Cores that other processes kept busy since, on average; None where the system does not say."""
        now = _all_seconds()
        if now is None or self._all is None:
            return None
        spent = (now - self._all) - (_own_seconds() - self._own)
        return max(0.0, spent / (time.perf_counter() - self._begun))


def _all_seconds() -> float | None:
    try:
        numbers = STAT.read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    return sum(int(numbers[at]) for at in BUSY) / TICKS


def _own_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
