"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners (Vyas et al. 2024), over the axes of a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

LARGEST = 1200  # entries of an axis that is rotated; longer ones stay as they are
TINY = 1e-30


class Soap(Optimizer):
    """A kernel is (outputs, inputs, taps), each axis with a basis of its own; the first step only measures them.

    Neighbouring pixels are nearly equal, so the gradient of a kernel is nearly the same at all its taps: for Adam alone, what
    tells detail from brightness hardly moves, least of all in a kernel of 9x9.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | list[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        memory: float = 0.95,
        every: int = 10,
        eps: float = 1e-8,
    ) -> None:
        """`memory`: decay of the covariances; `every`: steps between turns of a basis, which take their turns one by one."""
        super().__init__(parameters, {"lr": lr, "betas": betas, "memory": memory, "every": every, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Updates the parameters from their gradients."""
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                place += 1
                if parameter.grad is not None:
                    gradient = parameter.grad.contiguous()
                    self._step(parameter, gradient.flatten(2) if gradient.ndim > 2 else gradient, group, place)

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[parameter]
        if not state:
            _begin(state, gradient, group["memory"])
            return
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        turned = _turned(state, gradient)
        state["square"].mul_(second).addcmul_(turned, turned, value=1 - second)
        scale = (state["square"] / (1 - second ** state["step"])).sqrt() + group["eps"]
        update = _turned(state, state["mean"]) / (1 - first ** state["step"]) / scale
        parameter.sub_(_turned(state, update, back=True).view_as(parameter), alpha=group["lr"])
        for axis in range(gradient.ndim):
            if f"basis{axis}" in state:
                state[f"covariance{axis}"].lerp_(_covariance(gradient, axis), 1 - group["memory"])
                if (state["step"] + place) % group["every"] == 0:
                    _refresh(state, axis)


def _begin(state: dict[str, Any], gradient: Tensor, memory: float) -> None:
    state["step"], state["mean"], state["square"] = 0, torch.zeros_like(gradient), torch.zeros_like(gradient)
    for axis, length in enumerate(gradient.shape if gradient.ndim > 1 else ()):
        if 1 < length <= LARGEST:
            covariance = _covariance(gradient, axis)
            state[f"covariance{axis}"] = covariance * (1 - memory)
            eye = torch.eye(length, device=gradient.device)
            state[f"basis{axis}"] = torch.linalg.eigh(covariance + TINY * eye)[1].flip(1).contiguous()


def _covariance(gradient: Tensor, axis: int) -> Tensor:
    rows = gradient.transpose(0, axis).flatten(1)
    return rows @ rows.T


def _turned(state: dict[str, Any], tensor: Tensor, back: bool = False) -> Tensor:
    for axis in range(tensor.ndim):
        if (basis := state.get(f"basis{axis}")) is not None:
            tensor = _along(tensor, basis.T if back else basis, axis)
    return tensor


def _along(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Sums over an axis: `matrix` is (before, after)."""
    if axis == 0:
        return (matrix.T @ tensor.flatten(1)).view_as(tensor)
    last = tensor.transpose(axis, -1)
    return (last.flatten(0, -2) @ matrix).view(last.shape).transpose(axis, -1)  # one product, not one for each output


def _refresh(state: dict[str, Any], axis: int) -> None:
    """One power iteration; the squares follow the order of the basis."""
    covariance, basis = state[f"covariance{axis}"], state[f"basis{axis}"]
    order = (basis * (covariance @ basis)).sum(0).argsort(descending=True)
    state["square"] = state["square"].index_select(axis, order)
    state[f"basis{axis}"] = torch.linalg.qr(covariance @ basis[:, order])[0].contiguous()
