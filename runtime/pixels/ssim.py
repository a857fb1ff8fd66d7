"""Structural similarity."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from runtime.errors import MissingPackageError
from runtime.machine.requirements import requirement

try:
    from skimage.metrics import structural_similarity
except ImportError as missing:
    raise MissingPackageError(requirement("scikit-image"), "measuring SSIM") from missing


def ssim(a: npt.NDArray[Any], b: npt.NDArray[Any], peak: float) -> float:
    """Mean SSIM of two planes (H, W), or pictures (H, W, C), of at least 11x11, whose samples span `peak`; 1.0 when they are equal.

    Wang et al. 2004, with the settings of their paper: Gaussian window of sigma 1.5, population covariance, K1 0.01, K2 0.03.
    """
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2 if a.ndim == 3 else None}
    return float(structural_similarity(a, b, data_range=peak, **settings))  # type: ignore[no-untyped-call]
