"""How much of the sharpening is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def blend(blurry: npt.NDArray[Any], sharp: npt.NDArray[Any], strength: float) -> npt.NDArray[Any]:
    """`blurry` + `strength` * (`sharp` - `blurry`), sample by sample; both of one shape and dtype, as the result is.

    `strength` is 0 to 1; at either end the array itself is returned. Codes (uint8, uint16) are rounded, half to even, which cannot
    leave their range; floats are not rounded.
    """
    if strength in (0, 1):
        return sharp if strength else blurry
    if blurry.dtype.kind == "f":
        unrounded: npt.NDArray[Any] = blurry + blurry.dtype.type(strength) * (sharp - blurry)
        return unrounded
    mixed = blurry + strength * (sharp.astype(np.float64) - blurry)  # float64: a half of 16-bit codes stays a half
    codes: npt.NDArray[Any] = np.rint(mixed).astype(blurry.dtype)
    return codes
