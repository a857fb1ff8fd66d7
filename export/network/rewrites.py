"""Exact rewrites of the network: the same function, in a form that costs a runtime less.

Each is a plain function `network -> network` that works on a copy; the output changes by float rounding only (model-spec: a 1x1
convolution without bias folds into the convolution after it, convolutions of one input are one convolution).

`canonical` is always applied at export: it leaves the standard network as it is, and takes the 3-D convolution and the zero
states out of the variants that have them. The others are chosen by name (`REWRITES`) and applied in the order of that table.

What they save on a CPU is a few percent at most, and merging the gates costs some: "fold,whole-window" is the default, with the
fewest nodes of the fastest, and with it what is younger than this table: "merge-duplicates", which saves what duplicates cost;
"join-cells", which touches narrow networks alone; and "split-joins", for INT8. Paper's size, CPU ms of one thread for 1x5x184x320,
median (least) of 11 interleaved rounds (today: processor_ms of `videodeblur bench FILE ... --threads 1`), two cores of an AMD EPYC
with AVX512-BF16 and other work to do; 2 % are noise:

                                  OpenVINO bf16    OpenVINO fp32    ONNX Runtime fp32
    none                           407.0 (389.8)    786.7 (769.4)    883.6 (803.8)
    fold                           407.6 (397.9)    790.1 (767.0)    876.7 (844.6)
    fold,whole-window              397.9 (390.6)    793.5 (763.6)    875.5 (825.2)
    fold,whole-window,split-heads  413.3 (395.0)    805.8 (778.4)    888.7 (800.3)
    fold,whole-window,merge-gates  414.6 (404.4)    808.3 (788.8)    921.6 (856.6)

The light size on the same CPU, beside other work, 6 rounds and more:

    fold,whole-window                         100.3 (96.8)     189.5 (183.2)    194.3 (189.8)
    fold,whole-window,join-cells               93.4 (91.4)     181.8 (175.0)    187.6 (181.9)
    fold,whole-window,join-cells,split-joins   91.5 (90.3)     193.6 (177.0)    193.0 (186.2)

What the last saves lies in INT8, 71.3 (69.5) ms before and 60.9 (59.9) with it beside bf16, 107.2 (100.9) and 76.1 (73.1) beside
fp32, since 92 % of the convolution FLOPs may then be INT8, and 67 % before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from export.network.merged_channels import merge_duplicates
from model import DeblurNetwork
from model.convgru import ConvGRU, ConvLSTM
from model.network import TemporalBlock, TemporalConv3d

BLOCK = 16  # channels that a kernel for a CPU computes at once


def fold_projections(network: DeblurNetwork) -> DeblurNetwork:
    """c3, c4, c5 disappear into the x-convolutions of the next cell, c6 into the second half of r1's input."""
    network = copy.deepcopy(network)
    spatial = network.spatial
    for projection, cell in zip(spatial.projections, spatial.cells[1:]):
        for conv in _x_convs(cell):
            _fold(projection, conv, first=0)
    _fold(spatial.projections[-1], network.r1, first=spatial.hidden)
    spatial.projections = nn.ModuleList(nn.Identity() for _ in spatial.projections)
    return network


def whole_window(network: DeblurNetwork) -> DeblurNetwork:
    """ConvGRU 1..3 see all frames, with zero weights for those they ignored: no slicing and joining of frames."""
    network = copy.deepcopy(network)
    if isinstance(network.temporal, TemporalBlock):
        network.temporal = WholeWindowBlock(network.temporal, network.config.frames)
    return network


def join_cells(network: DeblurNetwork) -> DeblurNetwork:
    """ConvGRU 1..3 as one cell on all their states, where these together have at most `BLOCK` channels; else as it is.

    A kernel on h is then zero between one state and another: kernels for a CPU compute that many channels at once anyway, and the
    generator's states are never split. The x-convolutions see all frames, as in `whole_window`. Cells that depend on one another
    (`temporal="chained"`) stay as they are.
    """
    network = copy.deepcopy(network)
    config = network.config
    if config.temporal == "generated" and len(network.temporal.cells) * config.widths.temporal_state <= BLOCK:
        network.temporal = JoinedBlock(network.temporal, config.frames)
    return network


def merge_gates(network: DeblurNetwork) -> DeblurNetwork:
    """In every ConvGRU one convolution on x for z, r and c, and one on h for z and r; U on r.h stays apart (eq. 5).

    A joined cell stays as it is: it has few channels, and merging gained it nothing.
    """
    network = copy.deepcopy(network)
    for block in (network.temporal, network.spatial):
        if hasattr(block, "cells"):
            block.cells = nn.ModuleList(MergedGRU(cell) if type(cell) is ConvGRU else cell for cell in block.cells)
    return network


def split_heads(network: DeblurNetwork) -> DeblurNetwork:
    """Each generator's last convolution becomes one per hidden state, so that no Split follows it.

    A block whose cells were joined needs its states in one piece, and keeps its generator.
    """
    network = copy.deepcopy(network)
    for block in (network.temporal, network.spatial):
        if hasattr(block, "generator") and hasattr(block, "cells"):
            block.generator.layer14 = SplitHead(block.generator.layer14, len(block.cells))
    return network


def split_joins(network: DeblurNetwork) -> DeblurNetwork:
    """A convolution of two joined tensors becomes the sum of one on each: r1, and those of a generator behind its skips.

    Nothing is copied to join them, and each may be INT8 with a scale of its own on every backend: for what OpenVINO makes of a
    Concat, see `export.graph.layer_precision.why_not`.
    """
    network = copy.deepcopy(network)
    network.r1 = SumOfTwo(network.r1, network.c2.out_channels)
    network.join = Apart()
    for block in (network.temporal, network.spatial):
        generator = getattr(block, "generator", None)
        if generator and generator.skips:
            for layer in (11, 13):
                upsampled = getattr(generator, f"layer{layer - 1}").out_channels
                setattr(generator, f"layer{layer}", SumOfTwo(getattr(generator, f"layer{layer}"), upsampled))
            generator.join = Apart()
    return network


def canonical(network: DeblurNetwork) -> DeblurNetwork:
    """The variants without shape arithmetic: 3D-sub's convolution in 2-D over the frames as channels, and a first cell that
    knows that its state is zero where the states are chained."""
    network = copy.deepcopy(network)
    if isinstance(network.temporal, TemporalConv3d):
        network.temporal = _planar(network.temporal.conv, network.config.frames)
    for block in (network.temporal, network.spatial):
        if hasattr(block, "cells") and not hasattr(block, "generator"):
            block.cells[0] = ZeroStateGRU(block.cells[0])
    return network


REWRITES: dict[str, Callable[[DeblurNetwork], DeblurNetwork]] = {
    "merge-duplicates": merge_duplicates,
    "fold": fold_projections,
    "whole-window": whole_window,
    "join-cells": join_cells,
    "merge-gates": merge_gates,
    "split-heads": split_heads,
    "split-joins": split_joins,
}


def apply_rewrites(network: DeblurNetwork, names: Iterable[str]) -> DeblurNetwork:
    """The named rewrites after `canonical`, in the order of `REWRITES`; the network handed over is not touched, and the new one's
    `config` tells its widths."""
    chosen = set(names)
    network = canonical(network)
    for name, rewrite in REWRITES.items():
        if name in chosen:
            network = rewrite(network)
    return network


class WholeWindowBlock(nn.Module):
    """TemporalBlock with cells that are handed every frame."""

    def __init__(self, block: TemporalBlock, frames: int) -> None:
        super().__init__()
        if hasattr(block, "generator"):
            self.generator = block.generator
        self.hidden = block.hidden
        self.cells = nn.ModuleList(_see_all(cell, seen, frames) for cell, seen in zip(block.cells, block.cell_frames))

    def forward(self, frames: Tensor) -> Tensor:
        """(N, frames, H, W) -> (N, 96, H, W)."""
        if hasattr(self, "generator"):
            first = self.generator(frames).chunk(len(self.cells), dim=1)
            return torch.cat([cell(frames, h) for cell, h in zip(self.cells, first)], dim=1)
        states: list[Any] = [None]  # what ZeroStateGRU is handed, and ignores
        for cell in self.cells:
            states.append(cell(frames, states[-1]))
        return torch.cat(states[1:], dim=1)


class JoinedBlock(nn.Module):
    """TemporalBlock with one cell on all hidden states at once."""

    def __init__(self, block: TemporalBlock | WholeWindowBlock, frames: int) -> None:
        super().__init__()
        whole = block if isinstance(block, WholeWindowBlock) else WholeWindowBlock(block, frames)
        self.generator = whole.generator
        self.cell = _joined(whole.cells)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, frames, H, W) -> (N, states, H, W)."""
        return self.cell(frames, self.generator(frames))


class MergedGRU(nn.Module):
    """ConvGRU with one convolution on x and one on h."""

    def __init__(self, cell: ConvGRU) -> None:
        super().__init__()
        self.hidden = cell.h_update.out_channels
        self.x_gates = _stack([cell.x_update, cell.x_reset, cell.x_candidate])
        self.h_gates = _stack([cell.h_update, cell.h_reset])
        self.h_candidate = cell.h_candidate

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """As ConvGRU."""
        x_gates, x_candidate = self.x_gates(x).split([2 * self.hidden, self.hidden], dim=1)
        z, r = torch.sigmoid(x_gates + self.h_gates(h)).chunk(2, dim=1)
        c = torch.tanh(x_candidate + self.h_candidate(r * h))
        return (1 - z) * h + z * c


class ZeroStateGRU(nn.Module):
    """ConvGRU whose state is zero: h' = z.c, where only the biases are left of the convolutions on h."""

    def __init__(self, cell: ConvGRU) -> None:
        super().__init__()
        self.x_update, self.x_candidate = copy.deepcopy(cell.x_update), copy.deepcopy(cell.x_candidate)
        with torch.no_grad():
            self.x_update.bias += cell.h_update.bias
            self.x_candidate.bias += cell.h_candidate.bias

    def forward(self, x: Tensor, h: Any) -> Tensor:
        """As ConvGRU; h is ignored."""
        return torch.sigmoid(self.x_update(x)) * torch.tanh(self.x_candidate(x))


class Apart(nn.Module):
    """Hands on two tensors where `Join` would make one of them."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both."""
        return x, y


class SumOfTwo(nn.ModuleList):
    """A convolution as the sum of one on its first inputs, with the bias, and one on the rest."""

    def __init__(self, conv: nn.Conv2d, first: int) -> None:
        super().__init__((_conv_like(conv, conv.weight[:, :first], conv.bias), _conv_like(conv, conv.weight[:, first:], None)))

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        """(N, first, H, W) and (N, rest, H, W) -> what the convolution makes of them joined."""
        return self[0](both[0]) + self[1](both[1])


class SplitHead(nn.ModuleList):
    """A convolution as several, each with an equal share of the outputs."""

    def __init__(self, conv: nn.Conv2d, parts: int) -> None:
        super().__init__(_conv_like(conv, weight, bias) for weight, bias in zip(conv.weight.chunk(parts), conv.bias.chunk(parts)))

    def forward(self, x: Tensor) -> States:
        """(N, inputs, H, W) -> as many states as parts."""
        return States(part(x) for part in self)


class States(tuple):
    """Tensors that stand where the generator and its caller expect one: `torch.tanh` maps over them, `chunk` has been done."""

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Tensor], _types: Any, args: Sequence[Any] = (), _kwargs: Any = None
    ) -> States:
        return cls(function(state) for state in args[0])

    def chunk(self, count: int, dim: int) -> States:
        """Itself."""
        return self


def _x_convs(cell: nn.Module) -> list[nn.Conv2d]:
    if isinstance(cell, ConvLSTM):
        return [cell.x_gates]
    return [cell.x_update, cell.x_candidate] if isinstance(cell, ZeroStateGRU) else [cell.x_update, cell.x_reset, cell.x_candidate]


@torch.no_grad()
def _fold(projection: nn.Conv2d, conv: nn.Conv2d, first: int) -> None:
    """conv(projection(x)) == the new conv(x), for the input planes from `first` on; in double, since two roundings become one."""
    planes = slice(first, first + projection.out_channels)
    folded = torch.einsum("omhw,mi->oihw", conv.weight[:, planes].double(), projection.weight[:, :, 0, 0].double())
    conv.weight[:, planes] = folded.float()


def _see_all(cell: nn.Module, seen: Sequence[int], frames: int) -> nn.Module:
    cell = copy.deepcopy(cell)
    for name in ("x_update", "x_reset", "x_candidate"):
        if hasattr(cell, name):
            conv = getattr(cell, name)
            weight = conv.weight.new_zeros(conv.out_channels, frames, *conv.kernel_size)
            weight[:, list(seen)] = conv.weight.detach()
            setattr(cell, name, _conv_like(conv, weight, conv.bias))
    return cell


def _joined(cells: Sequence[ConvGRU]) -> ConvGRU:
    joined = copy.deepcopy(cells[0])
    for name, _ in cells[0].named_children():
        convs = [getattr(cell, name) for cell in cells]
        setattr(joined, name, _apart(convs) if name.startswith("h_") else _stack(convs))
    return joined


def _stack(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One convolution for several on the same input."""
    return _conv_like(convs[0], torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs]))


def _apart(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One convolution for several, each on inputs of its own, with zeros between them."""
    taps = [torch.block_diag(*(conv.weight[:, :, y, x] for conv in convs)) for y, x in product(range(3), range(3))]
    weight = torch.stack(taps, dim=2).unflatten(2, (3, 3))
    return _conv_like(convs[0], weight, torch.cat([conv.bias for conv in convs]))


@torch.no_grad()
def _conv_like(like: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    inputs, shape, biased = weight.shape[1], weight.shape[2:], bias is not None
    conv = nn.utils.skip_init(nn.Conv2d, inputs, len(weight), shape, like.stride, like.padding, like.dilation, bias=biased)
    conv.weight.copy_(weight)
    if bias is not None:
        conv.bias.copy_(bias)
    return conv


def _planar(conv: nn.Conv3d, frames: int) -> nn.Conv2d:
    """(outputs, 1, depth, 3, 3) over frames -> (outputs * depth', frames, 3, 3); plane d of an output sees frames d, d+1, ..."""
    outputs, _, depth, *kernel = conv.weight.shape
    planes = frames - depth + 1
    weight = conv.weight.new_zeros(outputs, planes, frames, *kernel)
    for plane in range(planes):
        weight[:, plane, plane : plane + depth] = conv.weight[:, 0].detach()
    flat = nn.Conv2d(frames, outputs * planes, tuple(kernel), padding=conv.padding[1:])
    with torch.no_grad():
        flat.weight.copy_(weight.flatten(0, 1))
        flat.bias.copy_(conv.bias.repeat_interleave(planes))
    return flat
