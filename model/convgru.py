"""Recurrent cells that make one step: the convolutional GRU of the paper (eq. 3-6) and the LSTM of its ablation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution with bias that keeps height and width."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ConvGRU(nn.Module):
    """One step of a convolutional GRU.

    z = sigmoid(Wz*x + Uz*h), r = sigmoid(Wr*x + Ur*h), c = tanh(W*x + U*(r.h)), h' = (1 - z).h + z.c

    Unlike `torch.nn.GRU`, z weighs the new state, and r is applied before U.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.x_update, self.h_update = conv3(inputs, hidden), conv3(hidden, hidden)  # Wz, Uz
        self.x_reset, self.h_reset = conv3(inputs, hidden), conv3(hidden, hidden)  # Wr, Ur
        self.x_candidate, self.h_candidate = conv3(inputs, hidden), conv3(hidden, hidden)  # W, U

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x (N, inputs, H, W), h (N, hidden, H, W) -> h' (N, hidden, H, W)."""
        z = torch.sigmoid(self.x_update(x) + self.h_update(h))
        r = torch.sigmoid(self.x_reset(x) + self.h_reset(h))
        c = torch.tanh(self.x_candidate(x) + self.h_candidate(r * h))
        return (1 - z) * h + z * c


class ConvLSTM(nn.Module):
    """One step of a convolutional LSTM whose hidden and cell states both start as `h` (the paper's LSTM-sub)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.x_gates, self.h_gates = conv3(inputs, 4 * hidden), conv3(hidden, 4 * hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x (N, inputs, H, W), h (N, hidden, H, W) -> the new hidden state (N, hidden, H, W)."""
        enter, forget, leave, candidate = (self.x_gates(x) + self.h_gates(h)).chunk(4, dim=1)
        cell = torch.sigmoid(forget) * h + torch.sigmoid(enter) * torch.tanh(candidate)
        return torch.sigmoid(leave) * torch.tanh(cell)
