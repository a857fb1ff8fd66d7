"""`presets`: frame sizes by name, such as 720p -> the optimization profiles of an engine."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.errors import InputError
from runtime.files.contract import Contract
from runtime.files.engine_record import Profile

PRESETS = {  # height, width in pixels
    "360p": (360, 640),
    "480p": (480, 854),
    "540p": (540, 960),
    "720p": (720, 1280),
    "1080p": (1080, 1920),
    "1440p": (1440, 2560),
    "2160p": (2160, 3840),
}


def presets(sizes: Sequence[str], contract: Contract) -> tuple[Profile, ...]:
    """A profile of one fixed shape for each size, which is faster than a range; the profiles share the engine's weights."""
    return tuple(Profile(shape, shape, shape) for shape in dict.fromkeys(_shape_for(size, contract) for size in sizes))


def _shape_for(size: str, contract: Contract) -> tuple[int, ...]:
    height, width = PRESETS.get(size) or _pixels(size)
    if contract.io == "f32":  # graphs of codes pad inside
        height, width = (-(-length // contract.multiple) * contract.multiple for length in (height, width))
    return (contract.batch or 1, contract.frames, height, width, *((2,) if contract.io == "u16" else ()))


def _pixels(size: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found:
        raise InputError(f"--for has {size!r}, expected some of {', '.join(PRESETS)}, or WIDTHxHEIGHT")
    return int(found[2]), int(found[1])
