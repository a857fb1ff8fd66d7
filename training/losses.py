"""Losses by the recipe's name; all average over samples, frames and pixels."""

from __future__ import annotations

import torch
from torch import Tensor

FFT_WEIGHT = 0.1


def loss_of(name: str, output: Tensor, target: Tensor, charbonnier: float) -> Tensor:
    """A scalar; output and target are (N, frames, H, W) float32. `charbonnier` is the epsilon of that loss, and of "psnr".

    "psnr" is minus the mean PSNR of the frames in dB / 100 (HINet, Chen et al. 2021), with `charbonnier` squared added to
    each MSE: a frame counts by its gain, not by its error, so heavy blur does not drown what mild blur can teach.
    """
    difference = output - target
    if name == "mse":
        return difference.square().mean()
    if name == "psnr":
        return (difference.square().mean((2, 3)) + charbonnier**2).log10().mean() / 10
    loss = torch.sqrt(difference.square() + charbonnier**2).mean()
    if name == "charbonnier+fft":
        loss = loss + FFT_WEIGHT * torch.view_as_real(torch.fft.rfft2(difference, norm="ortho")).abs().mean()
    return loss
