"""How much of the network's change is kept: `blend` between the blurry and the sharp frame."""

from __future__ import annotations

from typing import Any, Union

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

Strength = Union[float, npt.NDArray[Any]]  # 0 to 1; of all samples, or (H, W) of each


def checked_strength(strength: Strength) -> Strength:
    """The strength, which is 0 (the blurry frame) to 1 (the sharp one). Raises InputError on any other, NaN too."""
    if isinstance(strength, np.ndarray):
        if strength.ndim == 2 and strength.dtype.kind == "f" and np.all((strength >= 0) & (strength <= 1)):
            return strength
        raise InputError(f"got a mask of shape {strength.shape} {strength.dtype}, expected (H, W) floats from 0 to 1")
    number = isinstance(strength, (int, float, np.integer, np.floating)) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= 1:
        raise InputError(f"the strength is {strength!r}, expected 0 (the input as it is) to 1 (all that the network changes)")
    return float(strength)


def blend(blurry: npt.NDArray[Any], sharp: npt.NDArray[Any], strength: Strength) -> npt.NDArray[Any]:
    """blurry + strength (sharp - blurry), of one shape and dtype: the very samples at 0 and at 1.

    Codes are blended as codes, in double precision, and rounded once, half to even, so that no two of them fall together that the
    formula keeps apart; floats stay floats. A strength (H, W) is one of each sample, a mask. Returns one of the arrays at 0 and 1,
    else new memory. Raises InputError on other strengths, shapes or types.
    """
    strength = checked_strength(strength)
    if blurry.shape != sharp.shape or blurry.dtype != sharp.dtype:
        raise InputError(
            f"got {blurry.shape} {blurry.dtype} and {sharp.shape} {sharp.dtype}, expected two frames of one shape and dtype"
        )
    if not isinstance(strength, np.ndarray):
        if strength in (0, 1):
            return sharp if strength else blurry
    elif blurry.shape[-2:] != strength.shape:
        raise InputError(f"got a mask of shape {strength.shape} for frames of {blurry.shape[-2:]}, expected the same size")
    wide = blurry.astype(np.float64)
    wide += strength * (sharp.astype(np.float64) - wide)
    if blurry.dtype.kind in "ui":
        return np.rint(wide, out=wide).astype(blurry.dtype)
    mixed: npt.NDArray[Any] = wide.astype(blurry.dtype)
    return mixed if not isinstance(strength, np.ndarray) else np.where(strength == 1, sharp, mixed)
