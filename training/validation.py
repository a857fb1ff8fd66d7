"""What a network gains on held-out synthetic samples, by how blurred they are, what its parts are worth, and real pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from model import DeblurNetwork
from model.generators import Generator
from training.datasets import PairedVideo
from training.media import luma, read_image
from training.synthesis import Samples

CLASSES = (0.0, 22.0, 26.0, 30.0, 35.0, math.inf)  # dB, edges of the input's PSNR
CAP = 60.0  # dB; frames that did not move at all would have none
BATCH = 16  # samples a forward pass
PARTS: dict[str, Callable[[DeblurNetwork], nn.Module | None]] = {
    "r1": lambda network: network.r1,  # all that comes from half resolution
    "spatial generator": lambda network: getattr(network.spatial, "generator", None),
    "temporal generator": lambda network: getattr(network.temporal, "generator", None),
}


@dataclass(frozen=True)
class Gain:
    """Means over frames, in dB of luma PSNR; NaN for a class without frames."""

    input: float
    output: float
    by_class: tuple[float, ...]  # output minus input, for the frames between two edges of CLASSES
    counts: tuple[int, ...]  # frames in each class
    largest: float  # absolute value that any convolution put out; FP16 ends at 65504
    spread: float  # standard deviation of a weight generator's output, of the lesser; near 0 the generator is dead
    worth: dict[str, float] = field(default_factory=dict)  # by part: gain lost when its output is held at its mean
    real: dict[str, float] = field(default_factory=dict)  # by frame: gain on a real pair

    @property
    def mean(self) -> float:
        """Output minus input over all frames."""
        return self.output - self.input


@dataclass(frozen=True)
class RealFrame:
    """A frame with ground truth inside its window of blurry ones."""

    name: str
    window: Tensor  # (frames, H, W) float32 luma in [0, 1], H and W divisible by 8
    place: int  # of the frame in the window
    truth: Tensor  # (H, W)


@dataclass(frozen=True)
class Validation:
    """What a run is judged on while it goes on."""

    samples: Samples
    real: tuple[RealFrame, ...] = ()

    def gain(self, network: DeblurNetwork) -> Gain:
        """The whole measurement, with what the parts are worth: whether deblurring has begun, or only sharpening."""
        measured = measure_gain(network, self.samples)
        parts = {name: part(network) for name, part in PARTS.items()}
        worth = {name: measured.mean - _without(network, part, self.samples) for name, part in parts.items() if part}
        return replace(measured, worth=worth, real={each.name: _real_gain(network, each) for each in self.real})


@torch.no_grad()
def measure_gain(network: nn.Module, samples: Samples) -> Gain:
    """Runs `network` over the samples, on its device, and compares each frame; outputs are clipped to [0, 1] first."""
    with _watched(network) as watched:
        outputs = torch.cat([_run(network, part) for part in samples.blurry.split(BATCH)])
    before = frame_psnr(samples.blurry.cpu(), samples.sharp.cpu()).flatten()
    after = frame_psnr(outputs, samples.sharp.cpu()).flatten()
    chosen = [(before >= low) & (before < high) for low, high in pairwise(CLASSES)]
    gains = tuple(float((after - before)[inside].mean()) if inside.any() else math.nan for inside in chosen)
    return Gain(float(before.mean()), float(after.mean()), gains, tuple(int(inside.sum()) for inside in chosen), *watched.summary())


def real_frames(video: PairedVideo, frames: int) -> tuple[RealFrame, ...]:
    """The frames of a video that have ground truth, in windows of `frames` that follow one another, as the paper cuts them."""
    found = []
    for place, pair in enumerate(video.frames):
        if pair.sharp is not None:
            first = min(place // frames * frames, len(video.frames) - frames)
            window = [_luma(each.blurry) for each in video.frames[first : first + frames]]
            found.append(RealFrame(pair.blurry.stem, torch.stack(window), place - first, _luma(pair.sharp)))
    return tuple(found)


@torch.no_grad()
def _without(network: nn.Module, part: nn.Module, samples: Samples) -> float:
    """The mean gain in dB with the part's output held, channel by channel, at its mean over the first samples."""
    means: list[Tensor] = []
    hook = part.register_forward_hook(lambda module, inputs, output: means.append(output.float().mean((0, 2, 3), keepdim=True)))
    _run(network, samples.blurry[:BATCH])
    hook.remove()
    hook = part.register_forward_hook(lambda module, inputs, output: means[0].to(output.dtype).expand_as(output))
    gain = measure_gain(network, samples).mean
    hook.remove()
    return gain


def _real_gain(network: nn.Module, real: RealFrame) -> float:
    output = _run(network, real.window[None])[:, real.place : real.place + 1]
    before, after = (
        frame_psnr(frames, real.truth[None, None]) for frames in (real.window[None, real.place : real.place + 1], output)
    )
    return float(after - before)


@torch.no_grad()
def _run(network: nn.Module, blurry: Tensor) -> Tensor:
    device = next(network.parameters()).device
    blurry = blurry.to(device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu"):
        return network(blurry).float().cpu().clamp(0, 1)


def _luma(path: Path) -> Tensor:
    plane = torch.from_numpy(luma(read_image(path))).float() / 255
    height, width = plane.shape
    return plane[: height - height % 8, : width - width % 8]


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
