"""Weight generators that begin silent, and narrow.

Narrow generators save most of a step's cost, and can be doubled without changing the function: training begins narrow, where
it sees several times the samples in the same time, and ends at full width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from model import DeblurNetwork
from model.generators import Generator

CENTRED_GAIN = 1.21  # sqrt(0.5 / 0.34): a ReLU keeps half of a Gaussian's power, and 0.34 of it is variance
NOISE = 0.05  # of a kernel's standard deviation: enough for the two copies of a channel to grow apart


@torch.no_grad()
def prepare_generators(network: DeblurNetwork) -> None:
    """Centres the generators' kernels and sets their last layers to zero, so that they speak only as far as it helps.

    Luma and the outputs of ReLUs are never negative. Where kernels have a mean, it carries the largest gradient of all, turns
    negative in every channel at once, and kills the layer within a few hundred steps; nothing revives it.
    """
    for layer in generator_body(network):
        layer.weight.copy_(centred(layer.weight) * CENTRED_GAIN)
    for _, generator in generators(network):
        generator.layer14.weight.zero_()
        generator.layer14.bias.zero_()


def generator_body(network: DeblurNetwork) -> list[nn.Conv2d]:
    """The generators' convolutions but the last of each; the normalisation of training/normalisation.py may follow them."""
    return [
        layer[0] if isinstance(layer, nn.Sequential) else layer
        for _, generator in generators(network)
        for name, layer in generator.named_children()
        if name != "layer14"
    ]


def generators(network: DeblurNetwork) -> list[tuple[nn.Module, Generator]]:
    """The blocks that own a weight generator, each with its own."""
    blocks = (network.temporal, network.spatial)
    return [(block, block.generator) for block in blocks if hasattr(block, "generator")]


def centred(kernels: Tensor) -> Tensor:
    """Kernels without their mean over inputs and taps, as in weight standardisation (Brock et al. 2021)."""
    return kernels - kernels.mean((1, 2, 3), keepdim=True)


def narrowed(network: DeblurNetwork, divisor: int) -> DeblurNetwork:
    """A copy with new generators whose inner channels are divided by `divisor`, to be initialised or filled by the caller."""
    narrow = copy.deepcopy(network)
    for owner, generator in generators(narrow):
        owner.generator = _like(generator, narrow, divisor)
    return narrow


def widened(network: DeblurNetwork, divisor: int, seed: int = 0, noise: float = NOISE) -> DeblurNetwork:
    """A copy of a network narrowed by twice `divisor`, now by `divisor`, with the same function up to `noise`.

    As in Net2Net (Chen et al. 2016), every inner channel of the generators is doubled. The two copies share out the weights
    that leave them at random, and start from kernels with opposite small noise, so that training can tell them apart.
    """
    wide = copy.deepcopy(network)
    draws = torch.Generator().manual_seed(seed)
    for owner, generator in generators(wide):
        grown = _like(generator, wide, divisor)
        small = generator.state_dict()
        grown.load_state_dict(
            {name: _doubled(small[name], target.shape, draws, noise) for name, target in grown.state_dict().items()}
        )
        owner.generator = grown.to(small["layer14.weight"].device)
    return wide


def full_width(network: DeblurNetwork, divisor: int, seed: int = 0) -> DeblurNetwork:
    """A copy of a network narrowed by `divisor`, 1 or a power of two, that fits its configuration and computes the same."""
    network = copy.deepcopy(network)
    while divisor > 1:
        divisor //= 2
        network = widened(network, divisor, seed, noise=0.0)
    return network


def _like(generator: Generator, network: DeblurNetwork, divisor: int) -> Generator:
    first, last = getattr(generator, f"layer{generator.first}"), generator.layer14
    full = network.config.widths.temporal_generator if generator.first == 0 else network.config.widths.spatial_generator
    widths = [count // divisor for count in full]
    return Generator(network.config, first.in_channels, widths, last.out_channels, generator.full_resolution)


@torch.no_grad()
def _doubled(small: Tensor, shape: torch.Size, draws: torch.Generator, noise: float) -> Tensor:
    small = small.cpu()
    if small.ndim > 1 and shape[1] != small.shape[1]:
        share = torch.rand(*small.shape[:2], 1, 1, generator=draws)
        small = torch.stack([small * share, small * (1 - share)], 2).flatten(1, 2)
    if shape[0] != small.shape[0]:
        small = small.repeat_interleave(2, 0)
        if small.ndim > 1:
            apart = torch.randn(small[::2].shape, generator=draws) * (noise * small.std())
            small[::2] += apart
            small[1::2] -= apart
    return small
