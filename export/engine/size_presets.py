"""`presets`: frame sizes by name, such as 720p -> the optimization profiles of an engine; whether a model takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.errors import InputError
from runtime.files.contract import INPUT, Contract
from runtime.files.engine_record import Profile
from runtime.pixels.padding import padded_size

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


def check_sizes(profiles: Sequence[Profile], contract: Contract) -> None:
    """Raises InputError where the model takes no input of a profile, or has no sizes of its own and none are named."""
    bytes_of_code = (2,) if contract.io == "u16" else ()
    fixed = (contract.batch, contract.frames, contract.height, contract.width, *bytes_of_code)
    if None in fixed and not profiles:
        raise InputError(f"{_free(fixed)} is free in the file: name its sizes with --optShapes={INPUT}:1x5x720x1280 or --for 720p")
    for shape in (shape for profile in profiles for shape in (profile.min, profile.opt, profile.max)):
        if len(shape) != len(fixed) or any(length not in (None, got) for length, got in zip(fixed, shape)):
            raise InputError(f"the profile has {_by(shape)}, the model takes {_free(fixed)}: a ? is free, the rest is fixed")
        if contract.io == "f32" and any(length % contract.multiple for length in shape[2:4]):
            padded = (*shape[:2], *padded_size(*shape[2:4], contract.multiple))
            raise InputError(
                f"the profile has {_by(shape)}, expected a height and a width that are multiples of {contract.multiple}:"
                f" take {_by(padded)}, or --for, which pads"
            )


def _free(fixed: Sequence[int | None]) -> str:
    return _by(["?" if length is None else length for length in fixed])


def _by(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))


def _shape_for(size: str, contract: Contract) -> tuple[int, ...]:
    height, width = PRESETS.get(size) or _pixels(size)
    if contract.io == "f32":  # graphs of codes pad inside
        height, width = padded_size(height, width, contract.multiple)
    return (contract.batch or 1, contract.frames, height, width, *((2,) if contract.io == "u16" else ()))


def _pixels(size: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found:
        raise InputError(f"--for has {size!r}, expected some of {', '.join(PRESETS)}, or WIDTHxHEIGHT")
    return int(found[2]), int(found[1])
