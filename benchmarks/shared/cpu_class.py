"""The class of this machine's CPU: figures of two classes never stand in one block of a page, nor in one chart."""

from __future__ import annotations

from runtime.machine.hardware import cpu_extensions

CLASSES = {  # what a page calls them
    "amx": "A CPU with AMX",
    "avx512": "A CPU with AVX512, VNNI and BF16",
    "avx2": "A CPU with AVX2",
    "other": "Another CPU",
}
NEEDED = {"amx": ("AMX",), "avx512": ("AVX512", "VNNI", "BF16"), "avx2": ("AVX2",)}  # of EXTENSIONS; the first that fits


def cpu_class() -> str:
    """A key of CLASSES; "other" where the system does not say, too."""
    here = cpu_extensions() or {}
    return next((name for name, needed in NEEDED.items() if all(here.get(each) for each in needed)), "other")
