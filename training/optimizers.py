"""Optimizers by the recipe's name, their learning rate over a run, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from model import DeblurNetwork
from training.recipes import Recipe
from training.widening import centred, generator_body

GENERATOR_SHARE = 0.1  # of the learning rate, for the generators' inner kernels: at the full rate their ReLUs die in 300 steps
BIAS_SHARE = 0.1  # of the learning rate beside Muon: fast biases kill ReLUs, whose inputs are small
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic that drives singular values towards 1 (Jordan et al. 2024)
NEWTON_SCHULZ_STEPS = 5
TINY = 1e-12  # keeps a gradient of zero, which a new residual network gives, from becoming NaN
MUON_TURN = 10.0  # radians that a step turns a kernel, per unit of learning rate; the rate itself is AdamW's, for the rest


def build_optimizers(network: DeblurNetwork, recipe: Recipe) -> list[Optimizer]:
    """One optimizer, or Muon for the kernels inside and AdamW for the biases and for the kernels that begin at zero."""
    if recipe.optimizer == "adam":
        return [Adam(network.parameters(), recipe.learning_rate, recipe.betas, weight_decay=recipe.weight_decay)]
    if recipe.optimizer == "adamw":
        return [_adamw(network.parameters(), recipe)]
    body = {id(layer.weight) for layer in generator_body(network)}
    centre, inner, outer, biases = [], [], [], []
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            biases.append(parameter)
        elif name.startswith("r2.") or ".layer14." in name:
            outer.append(parameter)
        else:
            (centre if id(parameter) in body else inner).append(parameter)
    generators = {"params": centre, "centred": recipe.quiet_generators, "share": GENERATOR_SHARE}
    kernels = Muon([{"params": inner}, generators], recipe.learning_rate)
    return [kernels, _adamw([{"params": outer}, {"params": biases, "share": BIAS_SHARE}], recipe)]


class Muon(Optimizer):
    """Momentum whose step is orthogonalised for each kernel, seen as a matrix of output channels (Jordan et al. 2024).

    A step turns a kernel and leaves its norm as it was: a free norm grows without bound under such steps, layer upon layer,
    until activations overflow FP16 and the tanh layers saturate. Kernels of a group with `centred` also keep a mean of zero.
    """

    def __init__(self, parameters: Iterable[Tensor] | list[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "centred": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Updates the parameters from their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"], state["norm"] = torch.zeros_like(parameter), parameter.norm()
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                turn = _orthogonal(ahead).view_as(parameter)
                parameter.sub_(turn * (group["lr"] * MUON_TURN * state["norm"] / turn.norm().clamp(min=TINY)))
                if group["centred"]:
                    parameter.copy_(centred(parameter))
                parameter.mul_(state["norm"] / parameter.norm().clamp(min=TINY))


class WeightAverage:
    """Exponential moving average of a network's weights; starts short, so that early weights are forgotten."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: value.clone() for name, value in _averaged(network)}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Takes in the network's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.weights.values()), [value for _, value in _averaged(network)], 1 - decay)


def _averaged(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in network.state_dict().items() if value.is_floating_point()]


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """The rate at `step`, counted from 0, and `progress` through the run, 0 to 1."""
    warm = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return warm * (recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * cosine)


def set_learning_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    """Gives every parameter group the rate, or its share of it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)


def _adamw(parameters: Iterable[Tensor] | list[dict[str, Any]], recipe: Recipe) -> AdamW:
    return AdamW(parameters, recipe.learning_rate, recipe.betas, weight_decay=recipe.weight_decay)


def _orthogonal(matrix: Tensor) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = (wide / wide.norm().clamp(min=TINY)).bfloat16()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrix.dtype)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
