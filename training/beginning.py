"""Weights to begin from: every part of the network passes pictures on and answers to detail from the first step.

Drawn as usual, this network is a linear filter: luma varies little around its mean and detail less, so gates and states hardly
move, and what training finds first is a sharpening filter in the last layers. Here kernels start near the identity (as DiracNets,
Zagoruyko and Komodakis 2017), a half of those that see frames answer to no constant, and all are scaled, layer by layer, until
what they put out has a set deviation (as LSUV, Mishkin and Matas 2016), so that gates and states move from the start.
"""

from __future__ import annotations

import math
from contextlib import suppress

import torch
from torch import Tensor, nn

from model import DeblurNetwork
from model.generators import Generator
from training.centring import CentredConv, centre, input_means

NOISE = 0.5  # share of the drawn kernels that is kept beside the identity
DETAIL = 0.5  # share of the kernels that see frames which answer to no constant
OPEN = 1.0  # bias of the spatial cells' update gates: three quarters of a new state are the input's
DEVIATIONS = {"layer14": 0.7, "update": 0.7, "reset": 0.7, "h_candidate": 0.5}  # of outputs, by the end of a name; 1 elsewhere
LEAST = 1e-4  # a deviation below which an output counts as constant


@torch.no_grad()
def prepare(network: DeblurNetwork, frames: Tensor) -> None:
    """Turns Kaiming weights into such a beginning, with centred convolutions; the network still puts out its input.

    `frames` is (N, frames, H, W), a batch of blurry samples to measure with. Networks without a generator keep their drawn weights.
    """
    if hasattr(network.temporal, "generator") and hasattr(network.spatial, "generator"):
        _let_through(network)
        _see_detail(network)
    centre(network, frames)
    _scale(network, frames)


def _let_through(network: DeblurNetwork) -> None:
    for block in (network.temporal, network.spatial):
        for name, layer in block.generator.named_children():
            if not isinstance(layer, nn.Conv2d):
                continue
            layer.weight.mul_(NOISE)
            if name != "layer14" and layer is not _first(block.generator):
                _add_identity(layer.weight, math.sqrt(1 - NOISE**2))
    _frames_first(network)
    for cell, projection in zip(network.spatial.cells, network.spatial.projections):
        for layer in [cell.x_candidate, projection] if hasattr(cell, "x_candidate") else [projection]:
            layer.weight.mul_(NOISE)
            _add_identity(layer.weight, 1.0)


def _frames_first(network: DeblurNetwork) -> None:
    """c1 copies the frames into its first channels, c2 gathers the four pixels that each of its own stands for."""
    count = network.config.frames
    states = network.c1.in_channels - count
    for layer in (network.c1, network.c2):
        layer.weight.mul_(NOISE)
    for frame in range(min(count, network.c1.out_channels)):
        network.c1.weight[frame].zero_()
        network.c1.weight[frame, states + frame, 1, 1] = 1
        for tap in range(4):
            if (place := 4 * frame + tap) < network.c2.out_channels:
                network.c2.weight[place].zero_()
                network.c2.weight[place, frame, 1 + tap // 2, 1 + tap % 2] = 1


def _see_detail(network: DeblurNetwork) -> None:
    seeing = [_first(network.temporal.generator), _first(network.spatial.generator)]
    seeing += [getattr(cell, f"x_{gate}") for cell in network.temporal.cells for gate in ("update", "reset", "candidate")]
    for layer in seeing:
        _remove_mean(layer.weight[: math.ceil(DETAIL * layer.out_channels)])
    copied = min(network.config.frames, network.c1.out_channels)
    _remove_mean(network.c1.weight[copied : copied + math.ceil(DETAIL * network.c1.out_channels)])
    _remove_mean(network.r1.weight)


def _scale(network: DeblurNetwork, frames: Tensor) -> None:
    names = {module: name for name, module in network.named_modules()}
    for layer in _in_order(network, frames):
        if layer is network.r2:
            continue  # it begins at zero
        output = _output(network, layer, frames)
        wanted = next((value for end, value in DEVIATIONS.items() if names[layer].endswith(end)), 1.0)
        layer.weight.mul_((wanted / output.std((0, 2, 3)).clamp(min=LEAST)).view(-1, 1, 1, 1))
        if layer.bias is not None:
            layer.bias.fill_(OPEN if names[layer].startswith("spatial") and names[layer].endswith("x_update") else 0.0)
    for layer, mean in input_means(network, frames).items():
        layer.mean.copy_(mean)


def _in_order(network: DeblurNetwork, frames: Tensor) -> list[nn.Conv2d]:
    """The convolutions in the order in which they run."""
    order: list[nn.Conv2d] = []
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda module, inputs, output: order.append(module)) for layer in layers]
    network(frames)
    for hook in hooks:
        hook.remove()
    return order


def _output(network: DeblurNetwork, layer: nn.Conv2d, frames: Tensor) -> Tensor:
    """What the layer first puts out, once its mean is that of what it now reads; what comes after it is not computed."""
    seen: list[Tensor] = []

    def stop(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.extend((inputs[0], output))
        raise _SeenError

    hook = layer.register_forward_hook(stop)
    with suppress(_SeenError):
        network(frames)
    hook.remove()
    given, output = seen
    if isinstance(layer, CentredConv):
        layer.mean.copy_(given.mean((0, 2, 3)))
    return output


class _SeenError(Exception):
    """Ends a pass through the network."""


def _first(generator: Generator) -> nn.Conv2d:
    return getattr(generator, f"layer{generator.first}")


def _remove_mean(kernels: Tensor) -> None:
    kernels.sub_(kernels.mean((2, 3), keepdim=True))


def _add_identity(kernels: Tensor, gain: float) -> None:
    outputs, inputs, height, width = kernels.shape
    shares = max(1, inputs // outputs)
    for output in range(outputs):
        for share in range(shares):
            kernels[output, (output + share * outputs) % inputs, height // 2, width // 2] += gain / shares


def coarse_alone(network: DeblurNetwork, alone: bool) -> None:
    """Lets r2 see only what comes from half resolution, or all again.

    The path at full resolution is short and learns to sharpen in minutes; beside it, what could remove blur hardly begins.
    """
    if not hasattr(network.r2, "alone"):
        network.r2.coarse = network.config.widths.merged
        network.r2.register_forward_pre_hook(_without_fine)
    network.r2.alone = alone


def _without_fine(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if not layer.alone:
        return None
    features = inputs[0]
    fine = features.shape[1] - layer.coarse
    means = layer.mean[:fine].to(features.dtype) if isinstance(layer, CentredConv) else features.new_zeros(fine)
    return (torch.cat([means.view(1, -1, 1, 1).expand(len(features), -1, *features.shape[2:]), features[:, fine:]], 1),)
