"""Luma sample codes (what a video stores) to and from the network's unit range, ITU-R BT.601 / BT.709 quantisation.

Full range maps code 0 to 0.0 and 2^bits - 1 to 1.0. Limited range maps 16 * 2^(bits-8) to 0.0 and 235 * 2^(bits-8) to 1.0;
codes outside (foot-room and head-room) map outside [0, 1] and survive the way back, which clips in the domain of the codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

RANGES = ("limited", "full")


def scale(bits: int, color_range: str) -> tuple[float, float]:
    """(offset, span) in codes: unit = (code - offset) / span. Raises InputError on a depth outside 8..16 or another range."""
    if color_range not in RANGES:
        raise InputError(f"color_range is {color_range!r}, expected 'limited' or 'full'")
    if not 8 <= bits <= 16:
        raise InputError(f"bits is {bits}, expected 8 to 16")
    if color_range == "full":
        return 0.0, float(2**bits - 1)
    return 16.0 * 2 ** (bits - 8), 219.0 * 2 ** (bits - 8)


def to_unit(codes: npt.NDArray[Any], bits: int, color_range: str) -> npt.NDArray[np.float32]:
    """uint8 or uint16 codes, any shape -> float32 of the same shape, new memory."""
    offset, span = scale(bits, color_range)
    unit = codes.astype(np.float32)
    if offset:
        unit -= np.float32(offset)
    unit *= np.float32(1.0 / span)
    return unit


def from_unit(unit: npt.NDArray[np.float32], bits: int, color_range: str) -> npt.NDArray[Any]:
    """float32, any shape -> codes of the same shape, new memory: uint8 for 8 bits, uint16 above; rounded, clipped to the codes."""
    offset, span = scale(bits, color_range)
    codes = unit * np.float32(span)
    if offset:
        codes += np.float32(offset)
    np.rint(codes, out=codes)
    np.clip(codes, 0, 2**bits - 1, out=codes)
    narrow: npt.NDArray[Any] = codes.astype(np.uint8 if bits == 8 else np.uint16)
    return narrow


def to_pairs(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """uint16 codes, any shape -> the bytes that graphs of io "u16" take, (..., 2), the low one first."""
    return np.ascontiguousarray(codes, dtype="<u2").view(np.uint8).reshape(*codes.shape, 2)


def from_pairs(pairs: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """The way back: (..., 2) bytes -> uint16 codes."""
    return np.ascontiguousarray(pairs).view("<u2").reshape(pairs.shape[:-1])
