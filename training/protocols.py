"""How an output frame is compared with its ground truth: the two protocols in use on the VideoDeblurring data set.

P1, of Su et al. 2017 and the paper: 30 frames a video, each output first scaled and shifted to fit the ground truth; RGB PSNR.
P2, of most papers since: all frames, plain 8-bit RGB PSNR and SSIM, nothing cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.pixels.metrics import psnr
from runtime.pixels.ssim import ssim
from training.media import luma

PEAK = 255.0
PROTOCOLS = ("P1", "P2")
P1_FRAMES = (  # counted from 1
    *(2, 5, 8, 11, 15, 18, 21, 24, 28, 31, 34, 38, 41, 44, 47),
    *(51, 54, 57, 60, 64, 67, 70, 74, 77, 80, 83, 87, 90, 93, 97),
)


@dataclass(frozen=True)
class FrameScore:
    """One frame against its ground truth."""

    psnr: float  # dB, RGB
    ssim: float
    luma_psnr: float  # dB, BT.601 luma


def chosen_frames(protocol: str, count: int) -> list[int]:
    """Which frames of a video of `count` frames a protocol looks at, counted from 0."""
    return [number - 1 for number in P1_FRAMES if number <= count] if protocol == "P1" else list(range(count))


def score_frame(protocol: str, output: np.ndarray, truth: np.ndarray) -> FrameScore:
    """Both (H, W, 3) uint8 sRGB."""
    if protocol == "P1":
        output, truth = align(output, truth)
    return FrameScore(psnr(output, truth, PEAK), ssim(truth, output, PEAK), psnr(luma(output), luma(truth), PEAK))


def align(output: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The output scaled by <x,z>/<z,z> and shifted by the best whole-pixel translation, and the truth, where they overlap.

    Float64 on the scale of the codes, not rounded.
    """
    z, x = output.astype(np.float64), truth.astype(np.float64)
    energy = np.vdot(z, z)
    if energy:
        z *= np.vdot(x, z) / energy
    down, right = best_shift(z.mean(2), x.mean(2))
    return _overlap(z, down, right), _overlap(x, -down, -right)


def best_shift(moving: np.ndarray, fixed: np.ndarray) -> tuple[int, int]:
    """(rows, columns) to move `moving` down and right by to fit `fixed` best: the peak of their cyclic correlation."""
    spectrum = np.fft.rfft2(fixed) * np.conj(np.fft.rfft2(moving))
    correlation = np.fft.irfft2(spectrum, fixed.shape)
    peak = np.unravel_index(np.argmax(correlation), correlation.shape)
    down, right = (int(at) - size if at > size // 2 else int(at) for at, size in zip(peak, correlation.shape))
    return down, right


def mean_score(scores: Sequence[FrameScore]) -> FrameScore:
    """The mean of each measure."""
    return FrameScore(*(float(np.mean([getattr(s, name) for s in scores])) for name in ("psnr", "ssim", "luma_psnr")))


def _overlap(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """What of an image is still in the frame after moving it down and right; for the other image the signs turn."""
    rows = slice(0, image.shape[0] - down) if down >= 0 else slice(-down, None)
    columns = slice(0, image.shape[1] - right) if right >= 0 else slice(-right, None)
    return image[rows, columns]
