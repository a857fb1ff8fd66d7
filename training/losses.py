"""Losses by the recipe's name; both average over samples, frames and pixels."""

from __future__ import annotations

from torch import Tensor


def loss_of(name: str, output: Tensor, target: Tensor, floor: float) -> Tensor:
    """A scalar; output and target are (N, frames, H, W) float32.

    "psnr" is minus the mean PSNR of the frames in dB / 100 (HINet, Chen et al. 2021), with `floor` squared added to each MSE: the
    pull of a frame grows as its error falls, until its RMS error is `floor`. With a low floor the nearly sharp frames decide
    alone, and the first thing learned is to leave them as they are; what could remove blur falls silent.
    """
    errors = (output - target).square()
    return errors.mean() if name == "mse" else (errors.mean((2, 3)) + floor**2).log10().mean() / 10
