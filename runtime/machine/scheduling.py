"""`own_scheduling`: a library that makes the process a real-time one does not get its way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TASKS = Path("/proc/self/task")  # of Linux: the process's threads


@contextmanager
def own_scheduling() -> Iterator[None]:
    """This thread, and those that the block starts, have the scheduling afterwards that this one had before.

    As root, SVT-AV1 takes SCHED_FIFO at the highest priority for all of them, before which everything else on the machine waits.
    """
    if not TASKS.is_dir():
        yield
        return
    policy, parameter, before = os.sched_getscheduler(0), os.sched_getparam(0), _tasks()
    try:
        yield
    finally:
        for task in (0, *(_tasks() - before)):  # 0: this one
            with suppress(OSError):  # it has ended
                if os.sched_getscheduler(task) != policy:
                    os.sched_setscheduler(task, policy, parameter)


def _tasks() -> set[int]:
    return {int(task.name) for task in TASKS.iterdir()}
