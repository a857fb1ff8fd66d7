"""The weight generators: small U-shaped networks whose output planes are the hidden states of the ConvGRUs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import NetworkConfig
from model.convgru import conv3


def upsample(x: Tensor) -> Tensor:
    """Bilinear, factor 2, half-pixel centres."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Join(nn.Module):
    """The channels of two tensors in one; a module, so that an export may hand on both as they are."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, A, H, W) and (N, B, H, W) -> (N, A + B, H, W)."""
        return torch.cat([x, y], dim=1)


class Generator(nn.Module):
    """Layers 0..14 of the paper's Table 1; `layer7` here is L7 there.

    `widths` lists the channels of its layers up to L13, from L0 or L1 on. The output stays in [-1, 1] and has the input's size
    when `full_resolution`, half of it otherwise.
    """

    def __init__(self, config: NetworkConfig, inputs: int, widths: Sequence[int], outputs: int, full_resolution: bool) -> None:
        super().__init__()
        self.skips, self.tanh_before_conv = config.generator_skips, config.tanh_before_conv
        self.full_resolution = full_resolution
        self.join = Join()
        self.first = 14 - len(widths)  # L0 exists in the temporal generator only
        counts = [inputs, *widths, outputs]
        for offset, layer in enumerate(range(self.first, 15)):
            joined = {11: widths[6 - self.first], 13: widths[4 - self.first]}.get(layer, 0) if self.skips else 0
            setattr(self, f"layer{layer}", conv3(counts[offset] + joined, counts[offset + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W) or (N, outputs, H/2, W/2)."""
        x = self._layers(x, self.first, 2)
        half = self._layers(functional.max_pool2d(x, 2), 3, 4)
        quarter = self._layers(functional.max_pool2d(half, 2), 5, 6)
        x = self._layers(quarter, 7, 7)
        x = self._layers(functional.max_pool2d(x, 2), 8, 10)
        x = self._layers(self._join(upsample(x), quarter), 11, 12)
        x = self._layers(self._join(upsample(x), half), 13, 13)
        if self.full_resolution:
            x = upsample(x)
        return self.layer14(torch.tanh(x)) if self.tanh_before_conv else torch.tanh(self.layer14(x))

    def _layers(self, x: Tensor, first: int, last: int) -> Tensor:
        for layer in range(first, last + 1):
            x = functional.relu(getattr(self, f"layer{layer}")(x))
        return x

    def _join(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.join(x, skip) if self.skips else x
