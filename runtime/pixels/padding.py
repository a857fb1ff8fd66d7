"""Reflection padding of planes to the network's multiple, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MULTIPLE = 8  # pixels, of the network: model.config's, which the runtime does not import
SMALLEST_CODES = 5  # pixels of a model of codes; it reflects up to 8, and a reflection needs one sample more than it adds


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The next height and width divisible by `multiple`."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad(planes: npt.NDArray[Any], multiple: int) -> npt.NDArray[Any]:
    """(..., H, W) -> (..., H', W') by reflection at the bottom and right; the array itself when it fits already."""
    height, width = planes.shape[-2:]
    to_height, to_width = padded_size(height, width, multiple)
    if (to_height, to_width) == (height, width):
        return planes
    margins = [(0, 0)] * (planes.ndim - 2) + [(0, to_height - height), (0, to_width - width)]
    return np.pad(planes, margins, mode="reflect")


def crop(planes: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """(..., H', W') -> (..., H, W), a view of the top left."""
    return planes[..., :height, :width]
