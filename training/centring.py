"""Convolutions that learn on centred inputs, and fold into plain ones exactly.

Luma and activations are far from zero on average. That mean is the steepest direction of the loss by far, and limits the rate of
every other. Here a convolution computes w * (x - mean), written as w * x + (bias - w . mean), which needs no other padding.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from model import DeblurNetwork


class CentredConv(nn.Conv2d):
    """A convolution whose bias belongs to inputs minus `mean`."""

    mean: Tensor  # (inputs,)

    def plain_bias(self) -> Tensor:
        """The bias of the plain convolution that computes the same."""
        return self.bias - self.weight.sum((2, 3)) @ self.mean

    def forward(self, x: Tensor) -> Tensor:
        """As Conv2d."""
        return functional.conv2d(x, self.weight, self.plain_bias(), self.stride, self.padding)


@torch.no_grad()
def centre(network: DeblurNetwork, frames: Tensor | None = None) -> None:
    """Makes every convolution with a bias a CentredConv; what it computes stays the same.

    The means are those of `frames`, (N, frames, H, W); without, zeros, for a state that is about to be loaded.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.bias is not None:
            module.__class__ = CentredConv
            module.register_buffer("mean", torch.zeros(module.in_channels, device=module.weight.device))
    if frames is not None:
        recentre(network, frames)


@torch.no_grad()
def recentre(network: DeblurNetwork, frames: Tensor, averaged: dict[str, Tensor] | None = None) -> None:
    """Measures the means anew, for the `averaged` weights of the same network too; what both compute stays the same.

    While means lag behind what training makes of the inputs, the mean is the steepest direction again, and silences generators.
    """
    names = {module: name for name, module in network.named_modules()}
    for module, mean in input_means(network, frames).items():
        _move(module.weight, module.bias, module.mean, mean)
        if averaged:
            _move(*(averaged[f"{names[module]}.{kind}"] for kind in ("weight", "bias", "mean")), mean)


def _move(weight: Tensor, bias: Tensor, mean: Tensor, new: Tensor) -> None:
    bias += weight.sum((2, 3)) @ (new - mean)
    mean.copy_(new)


@torch.no_grad()
def input_means(network: DeblurNetwork, frames: Tensor) -> dict[CentredConv, Tensor]:
    """What each centred convolution reads on average, (inputs,)."""
    means: dict[CentredConv, Tensor] = {}

    def watch(module: CentredConv, inputs: tuple[Tensor, ...]) -> None:
        means[module] = inputs[0].float().mean((0, 2, 3))

    hooks = [module.register_forward_pre_hook(watch) for module in network.modules() if isinstance(module, CentredConv)]
    network(frames)
    for hook in hooks:
        hook.remove()
    return means


@torch.no_grad()
def uncentred(network: DeblurNetwork) -> DeblurNetwork:
    """A copy with plain convolutions that computes the same."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, CentredConv):
            module.bias.copy_(module.plain_bias())
            del module._buffers["mean"]
            module.__class__ = nn.Conv2d
    return network
