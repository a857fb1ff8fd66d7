"""How much memory the machine has, how much of it this process may still take, and the most that it took."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

MEMINFO, STATUS = Path("/proc/meminfo"), Path("/proc/self/status")
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
GROUP_FILES = {  # by the controller of a tree of groups: limit, use, and the part of it, in memory.stat, that is dropped on demand
    "": ("memory.max", "memory.current", "inactive_file"),  # version 2, one tree for all controllers
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
}


def memory_size() -> int | None:
    """Bytes of memory of the machine; None where the system does not say."""
    return _line(MEMINFO, "MemTotal")


def memory_at_hand() -> int | None:
    """Bytes that this process may still take, within its control groups too; None where the system does not say."""
    free = _line(MEMINFO, "MemAvailable")
    return None if free is None else max(0, min((free, *_left_in_groups())))


def peak() -> int | None:
    """The most bytes of resident memory that this process had at any time; None where the system does not say.

    Linux counts in a child's getrusage what the parent had when it started it, whether the parent asks or the child, so its
    status is read there, which begins anew with a program.
    """
    if STATUS.exists() or sys.platform == "win32":
        return _line(STATUS, "VmHWM")
    import resource  # here, since Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _line(path: Path, name: str) -> int | None:
    """The bytes in a line of a file of /proc; None where there is none."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
        return int(lines[name].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _left_in_groups() -> Iterator[int]:
    """Bytes, of this process's control group and of each around it; a container may see the outermost alone, which is its own."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:  # no control groups
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        parts = name.strip("/").split("/")
        for controller in GROUP_FILES.keys() & controllers.split(","):
            for depth in range(len(parts) + 1):
                left = _left_in(GROUPS.joinpath(controller, *parts[:depth]), *GROUP_FILES[controller])
                if left is not None:
                    yield left


def _left_in(group: Path, limit: str, used: str, droppable: str) -> int | None:
    """Bytes; None where there is no such group here, or it has no limit."""
    try:
        most, taken = int((group / limit).read_text()), int((group / used).read_text())
        stat = dict(line.split(maxsplit=1) for line in (group / "memory.stat").read_text().splitlines())
        return most - taken + int(stat[droppable])
    except (OSError, KeyError, ValueError):
        return None
