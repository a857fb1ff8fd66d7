"""How much memory the network takes for how many pixels, and how much there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime.errors import InputError
from runtime.files.contract import Contract

# Bytes for each pixel of a window of five frames, and for libraries and weights, of the network with all its channels: measured
# as the growth of the peak of resident memory, OpenVINO 2026.2 and ONNX Runtime 1.31, 184x320 to 720x1280: 1850 to 2010 in fp32
# beyond some 75 MB, 1000 in bf16.
BYTES_PER_PIXEL = {"fp32": 2100, "bf16": 1100}
FIXED_BYTES = 350_000_000
SHARE = 0.5  # of the memory at hand that is taken without being told

ON_CPU = ("openvino", "onnxruntime")
MEMINFO, OWN_GROUPS, GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
GROUP_FILES = {  # by the controller of a tree of groups: limit, use, and the part of it, in memory.stat, that is dropped on demand
    "": ("memory.max", "memory.current", "inactive_file"),  # version 2, one tree for all controllers
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
}


def bytes_for(pixels: int, contract: Contract, precision: str) -> int:
    """Peak memory of a process that runs windows of so many pixels on a CPU, in bytes, without the video's own frames."""
    return FIXED_BYTES + pixels * _per_pixel(contract, precision)


def pixels_within(memory: int, contract: Contract, precision: str) -> int:
    """The most pixels for which `bytes_for` is within `memory` bytes. Raises InputError when there are none."""
    pixels = (memory - FIXED_BYTES) // _per_pixel(contract, precision)
    if pixels < 1:
        raise InputError(
            f"there are {memory / 1e9:.1f} GB for the network, expected {FIXED_BYTES / 1e9} at the very least: free some"
        )
    return pixels


def memory_at_hand() -> int | None:
    """Bytes that this process may still take, within its control groups too; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return max(0, min((free, *_left_in_groups())))


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


def _per_pixel(contract: Contract, precision: str) -> int:
    """Activations shrink with the channels, but for the frames themselves and some scratch."""
    full = BYTES_PER_PIXEL.get(precision, BYTES_PER_PIXEL["fp32"])
    return max(full // int(contract.configuration.get("channel_divisor", 1)), full // 4)
