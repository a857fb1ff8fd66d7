"""The loss of baseline JPEG on luma planes, computed with tensors: transform, quantise, transform back."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8  # pixels
LUMA_TABLE = (  # ITU-T T.81, table K.1: quantisation steps at quality 50
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def jpeg_luma(frames: Tensor, quality: Tensor, origin: tuple[int, int] = (0, 0)) -> Tensor:
    """What JPEG at `quality` (N,), 50 to 100, leaves of luma frames.

    frames: (N, T, H, W) float in [0, 1], H and W divisible by 8. `origin`: row and column of the block grid, 0 to 7.
    Returns multiples of 1/255 in [0, 1]. Quality has libjpeg's meaning.
    """
    row, column = origin
    height, width = frames.shape[-2:]
    padded = functional.pad(frames, (column, BLOCK - column, row, BLOCK - row), mode="reflect")
    blocks = (padded * 255 - 128).unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    transform = _dct(frames.device)
    coefficients = transform @ blocks @ transform.T
    steps = _steps(quality).view(-1, 1, 1, 1, BLOCK, BLOCK)
    blocks = transform.T @ ((coefficients / steps).round() * steps) @ transform
    joined = blocks.transpose(3, 4).reshape(padded.shape)
    image = joined[..., row : row + height, column : column + width] + 128
    return image.round().clamp(0, 255) / 255


def _dct(device: torch.device) -> Tensor:
    k = torch.arange(BLOCK, device=device, dtype=torch.float32)
    rows = torch.cos(math.pi / BLOCK * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows


def _steps(quality: Tensor) -> Tensor:
    table = torch.tensor(LUMA_TABLE, device=quality.device, dtype=torch.float32)
    scale = (200 - 2 * quality.float()).view(-1, 1, 1)  # libjpeg's scaling from quality 50 up
    return ((table * scale + 50) / 100).floor().clamp(1, 255)
