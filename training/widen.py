"""Makes a wider network that computes the same function: train a narrow one first, where a step costs a fraction, and widen it.

python -m training.widen runs/narrow/network.safetensors wide.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor

from model import DeblurNetwork, load_checkpoint, save_checkpoint
from runtime.command_line import command
from runtime.errors import InputError

NOISE = 0.05  # of a kernel's standard deviation: enough for the two copies of a channel to grow apart


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Reads the narrow checkpoint and writes one twice as wide, in fp32."""
    parser = argparse.ArgumentParser(prog="training.widen", description=__doc__.splitlines()[0])
    parser.add_argument("narrow", type=Path, help="checkpoint of a network with channel_divisor 2 or more")
    parser.add_argument("wide", type=Path, help="checkpoint to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    network = widened(load_checkpoint(arguments.narrow), arguments.seed)
    save_checkpoint(network, arguments.wide, torch.float32)
    print(f"{arguments.wide}: channel_divisor {network.config.channel_divisor}; next: training.train --start {arguments.wide}")
    return 0


@torch.no_grad()
def widened(narrow: DeblurNetwork, seed: int = 0) -> DeblurNetwork:
    """A network of half the `channel_divisor` with the function of `narrow`, up to NOISE (Net2Net, Chen et al. 2016).

    Every inner channel is doubled. The two copies share out the weights that leave them at random, and start from kernels
    with opposite small noise, so that training can tell them apart.
    """
    divisor, frames = narrow.config.channel_divisor, narrow.config.frames
    if divisor < 2:
        raise InputError(f"the network has channel_divisor {divisor}, its full width; only narrower ones can be widened")
    if narrow.config.temporal == "conv3d":
        raise InputError(
            "the network's 3-D convolution mixes channels with time, which is not widened here: train it at full width"
        )
    wide = DeblurNetwork(replace(narrow.config, channel_divisor=divisor // 2))
    generator = torch.Generator().manual_seed(seed)
    small = narrow.state_dict()
    wide.load_state_dict(
        {name: _doubled(small[name], target.shape, frames, generator) for name, target in wide.state_dict().items()}
    )
    return wide.eval()


def _doubled(small: Tensor, shape: torch.Size, frames: int, generator: torch.Generator) -> Tensor:
    if small.ndim > 1 and shape[1] != small.shape[1]:
        kept = frames if shape[1] != 2 * small.shape[1] else 0  # the frames themselves, last of the features, are not doubled
        small = _shared_out(small, kept, generator)
    if shape[0] != small.shape[0]:
        small = small.repeat_interleave(2, 0)
        if small.ndim > 1:
            noise = torch.randn(small[::2].shape, generator=generator) * (NOISE * small.std())
            small[::2] += noise
            small[1::2] -= noise
    return small


def _shared_out(kernel: Tensor, kept: int, generator: torch.Generator) -> Tensor:
    doubled, rest = kernel[:, : kernel.shape[1] - kept], kernel[:, kernel.shape[1] - kept :]
    share = torch.rand(doubled.shape[:2] + (1,) * (kernel.ndim - 2), generator=generator)
    pairs = torch.stack([doubled * share, doubled * (1 - share)], 2)
    return torch.cat([pairs.flatten(1, 2), rest], 1)


if __name__ == "__main__":
    raise SystemExit(main())
