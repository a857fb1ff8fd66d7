"""The values of trtexec's flags, from text; what does not fit raises argparse's error, which names the flag."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path

from export.engine.request import LOWERED_FLOATS, QUANTISED, TILING_LEVELS
from export.engine.unused_flags import PLAIN
from runtime.files.contract import INPUT
from runtime.files.engine_record import HARDWARE_LEVELS

UNITS = {"": 1 << 20, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}  # of sizes in memory; trtexec's bare numbers are MiB
LAYER_TYPES = ("fp32", *LOWERED_FLOATS, *QUANTISED)
POOLS = {"workspace": "WORKSPACE", "tacticSharedMem": "TACTIC_SHARED_MEMORY"}


def file(text: str) -> Path:
    if not text.strip():
        raise ArgumentTypeError("got an empty name, expected a file's: is the variable set that it comes from?")
    if "://" in text:
        raise ArgumentTypeError(f"got the address {text!r}, expected a file: copy it to this machine, and name the copy")
    return Path(text)


def clips(text: str) -> Path:
    """Data to calibrate on, which is there; trtexec's --calib names a cache instead."""
    path = file(text)
    if not path.exists():
        raise ArgumentTypeError(f"{path}: no such file or folder, expected a video or a folder of frames")
    if path.is_file():
        with path.open("rb") as opened:
            if opened.read(4) == b"TRT-":
                raise ArgumentTypeError(f"{path} is TensorRT's calibration cache: name a video or a folder, or measured --ranges")
    return path


def shape(text: str) -> tuple[int, ...]:
    name, _, sizes = text.replace("'", "").rpartition(":")
    if name != INPUT or not re.fullmatch(r"\d+(x\d+)+", sizes):
        raise ArgumentTypeError(f"got the shape {text!r}, expected {INPUT}:NxFxHxW such as {INPUT}:1x5x720x1280")
    return tuple(int(length) for length in sizes.split("x"))


def layer_types(text: str) -> tuple[tuple[str, str], ...]:
    pairs = tuple((name, kind) for name, _, kind in (part.rpartition(":") for part in text.split(",")))
    if not all(name and kind for name, kind in pairs):
        raise ArgumentTypeError(f"got the layer precisions {text!r}, expected PATTERN:TYPE,... such as c1*:fp32")
    for _, kind in pairs:
        if kind not in LAYER_TYPES:
            raise ArgumentTypeError(f"got the type {kind!r}, expected one of {', '.join(LAYER_TYPES)}")
    return pairs


def capabilities(text: str) -> tuple[tuple[int, int], ...]:
    """8.6, 86 and sm86 are the same."""
    numbers = [part.strip().lower().removeprefix("sm").replace(".", "") for part in text.split(",")]
    if not all(re.fullmatch(r"\d{2,3}", number) for number in numbers):
        raise ArgumentTypeError(f"got the compute capabilities {text!r}, expected X.Y,... such as 8.6,8.9")
    return tuple((int(number[:-1]), int(number[-1])) for number in numbers)


def pools(text: str) -> tuple[tuple[str, int], ...]:
    pairs = [part.partition(":")[::2] for part in text.split(",")]
    for name, _ in pairs:
        if name not in POOLS:
            raise ArgumentTypeError(f"got the memory pool {name!r}, expected one of {', '.join(POOLS)}")
    return tuple((POOLS[name], size(amount)) for name, amount in pairs)


def size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([BKMG]?)(?:i?B)?", text, re.IGNORECASE)
    if not found:
        raise ArgumentTypeError(f"got the size {text!r}, expected a number of MiB, or one with B, K, M or G")
    return int(float(found[1]) * UNITS[found[2].upper()])


def share(text: str) -> float:
    """0.9 and 90% are the same."""
    try:
        found = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise ArgumentTypeError(f"got the share {text!r}, expected 0 to 1, or percents such as 90%") from error
    if not 0 <= found <= 1:
        raise ArgumentTypeError(f"got the share {text!r}, expected 0 to 1, or percents such as 90%")
    return found


def tiling(text: str) -> str:
    if text not in ("0", "1", "2", "3"):
        raise ArgumentTypeError(f"got the tiling optimization level {text!r}, expected 0 to 3")
    return TILING_LEVELS[int(text)]


def sparsity(text: str) -> bool:
    if text == "force":
        raise ArgumentTypeError("got 'force', which zeroes weights and changes the picture: enable uses those that are 2:4")
    if text not in ("disable", "enable"):
        raise ArgumentTypeError(f"got {text!r}, expected disable or enable")
    return text == "enable"


def hardware(text: str) -> str:
    """In whatever case, as trtexec takes it."""
    return {level.lower(): level for level in HARDWARE_LEVELS}.get(text.lower(), text)


def verbosity(text: str) -> str:
    """With the words of older versions."""
    return {"default": "layer_names_only", "verbose": "detailed"}.get(text, text)


def plain_format(text: str) -> str:
    """trtexec 11's `chw`, or `TYPE:chw` of earlier versions: a layout alone, since types are the file's."""
    if not re.fullmatch(r"((fp32|uint8):)?chw(,((fp32|uint8):)?chw)*", text):
        raise ArgumentTypeError(f"got {text!r}; {PLAIN}")
    return text


def sources(text: str) -> tuple[str, ...]:
    changes = tuple(name.upper() for name in names(text))
    if not all(re.fullmatch(r"[+-]\w+", change) for change in changes):
        raise ArgumentTypeError(f"got the tactic sources {text!r}, expected a + or - before each, such as -CUBLAS")
    return changes


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
