"""Names the machine that a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

NOTABLE = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx2")


def cpu_name() -> str:
    """For example "AMD EPYC, 2 cores, avx512_bf16 avx512_vnni avx2"."""
    facts = _cpuinfo()
    features = [flag for flag in NOTABLE if flag in facts.get("flags", "").split()]
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {' '.join(features) or 'no known extensions'}"


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}
