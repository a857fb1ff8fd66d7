"""What a network gains on held-out synthetic samples, by how blurred they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.synthesis import Samples

CLASSES = (0.0, 22.0, 26.0, 30.0, 35.0, math.inf)  # dB, edges of the input's PSNR
CAP = 60.0  # dB; frames that did not move at all would have none
BATCH = 16  # samples a forward pass


@dataclass(frozen=True)
class Gain:
    """Means over frames, in dB of luma PSNR; NaN for a class without frames."""

    input: float
    output: float
    by_class: tuple[float, ...]  # output minus input, for the frames between two edges of CLASSES
    counts: tuple[int, ...]  # frames in each class
    largest: float  # absolute value that any convolution put out; FP16 ends at 65504

    @property
    def mean(self) -> float:
        """Output minus input over all frames."""
        return self.output - self.input


@torch.no_grad()
def measure_gain(network: nn.Module, samples: Samples) -> Gain:
    """Runs `network` over the samples, on its device, and compares each frame; outputs are clipped to [0, 1] first."""
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu"), _largest_output(network) as largest:
        outputs = [network(part.to(device)).float().cpu() for part in samples.blurry.split(BATCH)]
    before = frame_psnr(samples.blurry.cpu(), samples.sharp.cpu()).flatten()
    after = frame_psnr(torch.cat(outputs).clamp(0, 1), samples.sharp.cpu()).flatten()
    chosen = [(before >= low) & (before < high) for low, high in pairwise(CLASSES)]
    gains = tuple(float((after - before)[inside].mean()) if inside.any() else math.nan for inside in chosen)
    return Gain(float(before.mean()), float(after.mean()), gains, tuple(int(inside.sum()) for inside in chosen), max(largest))


@contextmanager
def _largest_output(network: nn.Module) -> Iterator[list[float]]:
    found: list[float] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(float(output.abs().max()))

    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def frame_psnr(a: Tensor, b: Tensor) -> Tensor:
    """(N, frames, H, W) in [0, 1] -> (N, frames) dB, at most CAP."""
    return (-10 * (a - b).square().mean((2, 3)).log10()).clamp(max=CAP)
