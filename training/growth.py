"""Wider networks that compute what a narrower one does, so that training goes on from there (Net2Net, Chen et al. 2016)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from model import DeblurNetwork, Widths
from model.generators import Generator

NOISE = 0.05  # of a kernel's standard deviation: enough for the copies of a channel to grow apart


@torch.no_grad()
def grown(network: DeblurNetwork, widths: Widths, noise: float = NOISE, seed: int = 0) -> DeblurNetwork:
    """A copy of a plain network with `widths`, none smaller than its own, that computes the same but for `noise`.

    Channels are repeated in turn until there are enough; the copies of one share out, at random, the weights that leave it.
    Networks with generators and ConvGRUs only. Raises ValueError for others, and where a width is smaller.
    """
    old, config = network.config.widths, network.config
    if (config.temporal, config.spatial, config.spatial_cell) != ("generated", "generated", "gru"):
        raise ValueError("only networks with both generators and ConvGRUs can grow")
    wide = DeblurNetwork(replace(config, widths=widths))
    copier = _Copier(noise, torch.Generator().manual_seed(seed))
    frames = torch.arange(config.frames)
    temporal = _groups(3, _repeated(old.temporal_state, widths.temporal_state), old.temporal_state)
    features = torch.cat([temporal, frames + 3 * old.temporal_state])
    state = _repeated(old.temporal_state, widths.temporal_state)
    copier.generator(network.temporal.generator, wide.temporal.generator, frames, temporal)
    for small, large, seen in zip(network.temporal.cells, wide.temporal.cells, config.cell_frames):
        copier.cell(small, large, torch.arange(len(seen)), state)
    fine, merged = _repeated(old.fine, widths.fine), _repeated(old.merged, widths.merged)
    spatial = _repeated(old.spatial_state, widths.spatial_state)
    copier.layer(network.c1, wide.c1, features, fine)
    copier.layer(network.c2, wide.c2, fine, spatial)
    copier.generator(network.spatial.generator, wide.spatial.generator, features, _groups(4, spatial, old.spatial_state))
    for small, large in zip(network.spatial.cells, wide.spatial.cells):
        copier.cell(small, large, spatial, spatial)
    for small, large in zip(network.spatial.projections, wide.spatial.projections):
        copier.layer(small, large, spatial, spatial)
    copier.layer(network.r1, wide.r1, _groups(2, spatial, old.spatial_state), merged)
    copier.layer(network.r2, wide.r2, torch.cat([fine, merged + old.fine]), frames)
    return wide.eval()


class _Copier:
    def __init__(self, noise: float, draws: torch.Generator) -> None:
        self.noise, self.draws = noise, draws

    def layer(self, small: nn.Conv2d, large: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> None:
        """`inputs` and `outputs` name, for each channel of `large`, the channel of `small` that it copies."""
        weight = small.weight[outputs][:, inputs]
        shares = torch.ones(weight.shape[:2])
        if self.noise and len(inputs) > small.in_channels:
            shares = torch.rand(shares.shape, generator=self.draws) + 0.5
        totals = torch.zeros(len(outputs), small.in_channels).index_add_(1, inputs, shares)
        weight = weight * (shares / totals[:, inputs]).view(*shares.shape, 1, 1)
        if self.noise and len(outputs) > small.out_channels:
            apart = torch.randn(weight.shape, generator=self.draws) * (self.noise * weight.std())
            weight = weight + torch.where((outputs.bincount()[outputs] > 1).view(-1, 1, 1, 1), apart, torch.zeros(()))
        large.weight.copy_(weight)
        if small.bias is not None:
            large.bias.copy_(small.bias[outputs])

    def cell(self, small: nn.Module, large: nn.Module, inputs: Tensor, state: Tensor) -> None:
        for name, layer in small.named_children():
            self.layer(layer, getattr(large, name), state if name.startswith("h_") else inputs, state)

    def generator(self, small: Generator, large: Generator, inputs: Tensor, outputs: Tensor) -> None:
        made: dict[int, Tensor] = {}
        for index in range(small.first, 15):
            old, new = getattr(small, f"layer{index}"), getattr(large, f"layer{index}")
            seen = [made[index - 1]] if made else [inputs]
            if small.skips and index in (11, 13):
                seen.append(made[6 if index == 11 else 4] + int(made[index - 1].max()) + 1)
            made[index] = outputs if index == 14 else _repeated(old.out_channels, new.out_channels)
            self.layer(old, new, torch.cat(seen), made[index])


def _repeated(old: int, new: int) -> Tensor:
    if new < old:
        raise ValueError(f"a part has {old} channels, asked {new}: networks only grow")
    return torch.arange(new) % old


def _groups(count: int, repeated: Tensor, old: int) -> Tensor:
    return torch.cat([repeated + group * old for group in range(count)])
