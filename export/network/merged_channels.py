"""Merges channels that are duplicates, as in a network that was widened in the manner of Net2Net (Chen et al. 2016)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model import DeblurNetwork, NetworkConfig, Widths
from model.config import MULTIPLE
from model.generators import Generator

ROUNDING = 2.0**-20  # of a weight: what sharing out and summing up again leaves between two that were equal, in fp32
FEW = 9  # weights that are compared first: they tell nearly all rows apart
HEIGHT, WIDTH = 720, 1280  # pixels, for which FLOPs are told

Reader = tuple[nn.Conv2d, int]  # a convolution, and the first of its input planes


def merge_duplicates(network: DeblurNetwork) -> DeblurNetwork:
    """Output channels of equal kernel and bias become one, whose readers' columns are summed; `config.widths` follows.

    1. Looked at are c1, r1 and every layer of the generators but the last. All that lies between one of them and its readers (ReLU,
       max pool, upsampling, concatenation) treats the channels alike, each by itself.
    2. They are looked at in the order of the network: kernels may become equal when their inputs were merged.
    3. Kernels are equal when no weight differs by more than fp32's rounding.

    A network without duplicates does not change by a bit.
    """
    merged = copy.deepcopy(network)
    for conv, readers in _convolutions(merged):
        _merge(conv, readers)
    merged.config = dataclasses.replace(merged.config, widths=_widths(merged))
    return merged


def gflop_per_frame(config: NetworkConfig) -> float:
    """Of the convolutions at 1280x720, two for every multiply-add: those of a window, divided by its frames."""
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        DeblurNetwork(config)(torch.zeros(1, config.frames, MULTIPLE, MULTIPLE))
    return counter.get_total_flops() / MULTIPLE**2 * HEIGHT * WIDTH / config.frames / 1e9


def merging_note(before: NetworkConfig, after: NetworkConfig) -> str:
    """What was saved, in words; empty when nothing was merged."""
    if before == after:
        return ""
    was, now = gflop_per_frame(before), gflop_per_frame(after)
    return f"channels that are duplicates were merged: {was:.3g} GFLOP a frame of {WIDTH}x{HEIGHT} became {now:.3g}"


def _convolutions(network: DeblurNetwork) -> Iterator[tuple[nn.Conv2d, list[Reader]]]:
    """Those that may have duplicates, with their readers; an offset is read when the layers before were merged."""
    for block in (network.temporal, network.spatial):
        if hasattr(block, "generator"):
            yield from _of_generator(block.generator)
    yield network.c1, [(network.c2, 0), (network.r2, 0)]
    yield network.r1, [(network.r2, network.c1.out_channels)]


def _of_generator(generator: Generator) -> Iterator[tuple[nn.Conv2d, list[Reader]]]:
    layers = {number: getattr(generator, f"layer{number}") for number in range(generator.first, 15)}
    for number in range(generator.first, 14):
        readers = [(layers[number + 1], 0)]
        if generator.skips and number in (4, 6):  # joined in layer 13 and 11, behind what layer 12 and 10 made
            above = 12 if number == 4 else 10
            readers.append((layers[above + 1], layers[above].out_channels))
        yield layers[number], readers


@torch.no_grad()
def _merge(conv: nn.Conv2d, readers: list[Reader]) -> None:
    """Merges a convolution's duplicates in place."""
    same = _first_equal(conv)
    kept = sorted(set(same))
    if len(kept) == len(same):
        return
    places = torch.tensor([kept.index(channel) for channel in same])
    _replace(conv, conv.weight[kept], conv.bias[kept])
    for reader, first in readers:
        _replace(reader, _summed(reader.weight, first, places), reader.bias)


def _first_equal(conv: nn.Conv2d) -> list[int]:
    """For every output channel the first that is equal."""
    rows = torch.cat([conv.weight.flatten(1), conv.bias[:, None]], dim=1)
    found = list(range(len(rows)))
    for channel, row in enumerate(rows):
        if found[channel] == channel:
            near = channel + _equal(rows[channel:, :FEW], row[:FEW])
            for other in near[_equal(rows[near], row)].tolist():
                found[other] = min(found[other], channel)
    return found


def _equal(rows: Tensor, row: Tensor) -> Tensor:
    """Numbers of the rows that are equal to `row`."""
    return ((rows - row).abs() <= ROUNDING * row.abs()).all(1).nonzero()[:, 0]


def _summed(weight: Tensor, first: int, places: Tensor) -> Tensor:
    """The columns from `first` on summed into these places; in double, so that many sums are rounded once."""
    before, columns, after = weight.double().split([first, len(places), weight.shape[1] - first - len(places)], dim=1)
    sums = columns.new_zeros(len(weight), int(places.max()) + 1, *weight.shape[2:]).index_add_(1, places, columns)
    return torch.cat([before, sums, after], dim=1).float()


def _replace(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    conv.out_channels, conv.in_channels = weight.shape[:2]


def _widths(network: DeblurNetwork) -> Widths:
    """The profile that the layers now have; parts that the network lacks keep theirs."""
    found = {"fine": network.c1.out_channels, "merged": network.r1.out_channels}
    for name, block in (("temporal", network.temporal), ("spatial", network.spatial)):
        if hasattr(block, "generator"):
            layers = range(block.generator.first, 14)
            counts = tuple(getattr(block.generator, f"layer{number}").out_channels for number in layers)
            found[f"{name}_generator"] = counts
    return dataclasses.replace(network.config.widths, **found)
