"""What a forked process must not free: the threads of libraries stay behind in the parent, and whoever joins them waits for ever.

OpenVINO's core and ONNX Runtime's sessions do so when Python ends, in a child that never touched them.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

_held: weakref.WeakSet[Any] = weakref.WeakSet()


def never_free_in_a_fork(held: object) -> None:
    """From here on a child made by a fork leaves the object as it is; in this process it is freed as ever."""
    _held.add(held)


def _leave_alone() -> None:
    for held in list(_held):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    _held.clear()


if hasattr(os, "register_at_fork"):  # where processes are forked at all
    os.register_at_fork(after_in_child=_leave_alone)
