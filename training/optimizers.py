"""Optimizers by the recipe's name, the rate of each kernel, and the average of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from model import DeblurNetwork
from training.recipes import Recipe
from training.soap import Soap

USUAL = 0.05  # root mean square of the weights whose rate is the recipe's; others have it in proportion
OUTPUT_SHARE = 0.3  # of the rate, for r2, whose weights begin at zero and stay small
BIAS_SHARE = 0.1  # of the rate: fast biases silence what comes from half resolution before it has learned


def build_optimizers(network: DeblurNetwork, recipe: Recipe) -> list[Optimizer]:
    """One optimizer; with "soap" a step changes every kernel by the same share of its size.

    Kernels here differ a hundredfold in size: what sees frames has 27 inputs that hardly vary, r1 has 5184. With one rate for all,
    the first never moves and the second is noise.
    """
    if recipe.optimizer == "adam":
        return [Adam(network.parameters(), recipe.learning_rate, recipe.betas, weight_decay=recipe.weight_decay)]
    if recipe.optimizer == "adamw":
        return [AdamW(network.parameters(), recipe.learning_rate, recipe.betas, weight_decay=recipe.weight_decay)]
    groups = [{"params": [value], "share": _share(name, value)} for name, value in network.named_parameters()]
    return [Soap(groups, recipe.learning_rate, recipe.betas)]


def _share(name: str, parameter: Tensor) -> float:
    if parameter.ndim == 1:
        return BIAS_SHARE
    size = float(parameter.detach().square().mean().sqrt())
    return OUTPUT_SHARE if name.startswith("r2.") else size / USUAL


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


def set_learning_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    """Gives every parameter group the rate, or its share of it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
