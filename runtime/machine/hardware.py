"""Names the machine that a figure was measured on, and what its CPU has for networks."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
CPUINFO = Path("/proc/cpuinfo")
NOTABLE = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx2")
SWITCHES = ("DNNL_", "ONEDNN_", "ORT_", "OV_")  # how the names of variables begin that change how the backends compute
EXTENSIONS = {  # what networks gain from: the kernel's names, of which one is enough
    "AVX2": ("avx2",),
    "AVX512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),  # int8
    "BF16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_tile",),
}


def cpu_name() -> str:
    """For example "AMD EPYC, 2 cores, avx512_bf16 avx512_vnni avx2"."""
    flags = _cpuinfo().get("flags", "").split()
    features = [flag for flag in NOTABLE if flag in flags]
    return f"{cpu_model()}, {os.cpu_count()} cores, {' '.join(features) or 'no known extensions'}"


def cpu_model() -> str:
    """For example "AMD EPYC"."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_extensions() -> dict[str, bool] | None:
    """Whether the CPU has each of EXTENSIONS; None where the system does not say."""
    flags = set(_cpuinfo().get("flags", "").split())
    return {name: bool(flags & set(names)) for name, names in EXTENSIONS.items()} if flags else None


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; where the system does not say, it may."""
    extensions = cpu_extensions()
    return extensions is None or extensions["BF16"]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computing_here() -> list[object]:
    """What decides how the backends compute, as JSON values: what is kept for the next process is of these."""
    switches = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(SWITCHES)]
    return [cpu_name(), cpu_extensions(), usable_cores(), *switches]  # one name may have several extensions


def nvidia_driver() -> str | None:
    """The version of NVIDIA's driver, for example "580.65.06"; None where there is none, or the system does not say."""
    try:
        said = NVIDIA_DRIVER.read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", said)
    return found.group(1) if found else None


def _cpuinfo() -> dict[str, str]:
    try:
        pairs = [line.partition(":") for line in CPUINFO.read_text().splitlines()]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in pairs}
