"""What a network gains on held-out synthetic samples, by how blurred they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from model.generators import Generator
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
    spread: float  # standard deviation of a weight generator's output, of the lesser; near 0 the generator is dead

    @property
    def mean(self) -> float:
        """Output minus input over all frames."""
        return self.output - self.input


@torch.no_grad()
def measure_gain(network: nn.Module, samples: Samples) -> Gain:
    """Runs `network` over the samples, on its device, and compares each frame; outputs are clipped to [0, 1] first."""
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu"), _watched(network) as watched:
        outputs = [network(part.to(device)).float().cpu() for part in samples.blurry.split(BATCH)]
    before = frame_psnr(samples.blurry.cpu(), samples.sharp.cpu()).flatten()
    after = frame_psnr(torch.cat(outputs).clamp(0, 1), samples.sharp.cpu()).flatten()
    chosen = [(before >= low) & (before < high) for low, high in pairwise(CLASSES)]
    gains = tuple(float((after - before)[inside].mean()) if inside.any() else math.nan for inside in chosen)
    return Gain(float(before.mean()), float(after.mean()), gains, tuple(int(inside.sum()) for inside in chosen), *watched.summary())


class _Watch:
    def __init__(self) -> None:
        self.largest = 0.0
        self.spreads: dict[nn.Module, float] = {}

    def convolution(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.largest = max(self.largest, float(output.abs().max()))

    def generator(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        spread = float(output.float().std((0, 2, 3)).mean())
        self.spreads[module] = max(spread, self.spreads.get(module, 0.0))

    def summary(self) -> tuple[float, float]:
        return self.largest, min(self.spreads.values(), default=math.nan)


@contextmanager
def _watched(network: nn.Module) -> Iterator[_Watch]:
    watch = _Watch()
    hooks = [m.register_forward_hook(watch.convolution) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))]
    hooks += [m.register_forward_hook(watch.generator) for m in network.modules() if isinstance(m, Generator)]
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def frame_psnr(a: Tensor, b: Tensor) -> Tensor:
    """(N, frames, H, W) in [0, 1] -> (N, frames) dB, at most CAP."""
    return (-10 * (a - b).square().mean((2, 3)).log10()).clamp(max=CAP)
