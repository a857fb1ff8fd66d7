"""Losses by the recipe's name; both average over samples, frames and pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runtime.machine import hardware
from training.recipes import Recipe
from training.synthesis import Samples


def loss_on(network: nn.Module, samples: Samples, recipe: Recipe, floor: float) -> Tensor:
    """The recipe's loss of a network on a batch, a scalar; the forward pass runs in the recipe's arithmetic where that is fast."""
    device = samples.blurry.device
    blurry = samples.blurry.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16 and multiplies_bf16(device)):
        output = network(blurry)
    return loss_of(recipe.loss, output.float(), samples.sharp, floor)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware; a CPU that does not emulates it, at a small part of fp32's pace."""
    return device.type != "cpu" or hardware.multiplies_bf16()


def loss_of(name: str, output: Tensor, target: Tensor, floor: float) -> Tensor:
    """A scalar; output and target are (N, frames, H, W) float32.

    "psnr" is minus the mean PSNR of the frames in dB / 100 (HINet, Chen et al. 2021), with `floor` squared added to each MSE: the
    pull of a frame grows as its error falls, until its RMS error is `floor`. With a low floor the nearly sharp frames decide
    alone, and the first thing learned is to leave them as they are; what could remove blur falls silent.
    """
    errors = (output - target).square()
    return errors.mean() if name == "mse" else (errors.mean((2, 3)) + floor**2).log10().mean() / 10
