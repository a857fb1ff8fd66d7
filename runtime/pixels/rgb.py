"""RGB pictures to and from full-range BT.601 luma and colour differences of 16 bits; 8-bit RGB comes back as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LUMA = (0.299, 0.587, 0.114)  # weights of gamma-coded R, G and B, ITU-R BT.601
WEIGHTS = np.array(LUMA, np.float32)
BLUE, RED = np.float32(2 * (1 - LUMA[2])), np.float32(2 * (1 - LUMA[0]))  # spans of B - Y and R - Y
PEAK, MIDDLE = np.float32(65535), np.float32(32768)

Plane = npt.NDArray[Any]


def to_ycc(rgb: Plane) -> tuple[Plane, Plane, Plane]:
    """(H, W, 3) uint8 or uint16 -> Y, U and V, (H, W) uint16 each."""
    unit = rgb.astype(np.float32) * (PEAK / np.float32(np.iinfo(rgb.dtype).max))
    luma = unit @ WEIGHTS
    planes = (luma, (unit[..., 2] - luma) / BLUE + MIDDLE, (unit[..., 0] - luma) / RED + MIDDLE)
    return tuple(_codes(plane, np.dtype(np.uint16)) for plane in planes)  # type: ignore[return-value]


def to_rgb(luma: Plane, u: Plane, v: Plane, dtype: npt.DTypeLike) -> Plane:
    """Y, U and V, (H, W) uint16 each -> (H, W, 3) of uint8 or uint16, rounded and clipped."""
    wanted = np.dtype(dtype)
    y = luma.astype(np.float32)
    blue, red = y + (u - MIDDLE) * BLUE, y + (v - MIDDLE) * RED
    green = (y - WEIGHTS[0] * red - WEIGHTS[2] * blue) / WEIGHTS[1]
    return _codes(np.stack([red, green, blue], -1) * (np.float32(np.iinfo(wanted).max) / PEAK), wanted)


def _codes(values: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> Plane:
    codes: Plane = np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)
    return codes
