"""The video-deblurring network of Jiang et al., "Video Deblurring via Temporally and Spatially Variant Recurrent Neural
Network", IEEE Access 8, 2020 (doi 10.1109/ACCESS.2019.2962505): five blurry frames in, five sharp frames out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import MULTIPLE, STATES_SPATIAL, STATES_TEMPORAL, NetworkConfig
from model.convgru import ConvGRU, ConvLSTM, conv3
from model.generators import Generator, Join, upsample

LEAK = 0.1  # negative slope of the LeakyReLUs


class DeblurNetwork(nn.Module):
    """Removes motion blur from the luma of consecutive frames.

    Input and output are (N, frames, H, W) float: Y of BT.601 in [0, 1], H and W divisible by 8. The output is not clipped.
    A new network has Kaiming weights; with `config.residual` it starts as the identity.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        widths = config.widths
        features = STATES_TEMPORAL * widths.temporal_state + config.frames
        self.temporal = TemporalConv3d(config) if config.temporal == "conv3d" else TemporalBlock(config)
        self.c1 = conv3(features, widths.fine)
        self.c2 = nn.Conv2d(widths.fine, widths.spatial_state, 4, stride=2, padding=1)
        self.spatial = SpatialBlock(config, features)
        self.r1 = nn.Conv2d(2 * widths.spatial_state, widths.merged, 9, padding=4)
        self.r2 = conv3(widths.fine + widths.merged, config.frames)
        self.join = Join()
        initialise(self)

    def forward(self, blurry: Tensor) -> Tensor:
        """(N, frames, H, W) blurry luma -> the same shape, sharp. Raises ValueError on another shape."""
        if not torch.compiler.is_compiling():
            _check_shape(blurry, self.config.frames)
        features = torch.cat([self.temporal(blurry), blurry], dim=1)
        fine = functional.leaky_relu(self.c1(features), LEAK)
        coarse = functional.leaky_relu(self.c2(fine), LEAK)
        refined = self.spatial(features, coarse)
        merged = functional.leaky_relu(self.r1(self.join(coarse, refined)), LEAK)
        sharp = self.r2(torch.cat([fine, upsample(merged)], dim=1))
        return blurry + sharp if self.config.residual else sharp


class TemporalBlock(nn.Module):
    """ConvGRU 1..3 over neighbouring frames; their first states come from the temporal generator."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.cell_frames, hidden = config.cell_frames, config.widths.temporal_state
        if config.temporal == "generated":
            widths, outputs = config.widths.temporal_generator, STATES_TEMPORAL * hidden
            self.generator = Generator(config, config.frames, widths, outputs, full_resolution=True)
        self.cells = nn.ModuleList(ConvGRU(len(seen), hidden) for seen in config.cell_frames)
        self.hidden = hidden

    def forward(self, frames: Tensor) -> Tensor:
        """(N, frames, H, W) -> (N, 96, H, W): the three new states."""
        seen = [torch.cat([frames[:, i : i + 1] for i in indices], dim=1) for indices in self.cell_frames]
        if hasattr(self, "generator"):
            first = self.generator(frames).chunk(STATES_TEMPORAL, dim=1)
            states = [cell(x, h) for cell, x, h in zip(self.cells, seen, first)]
        else:
            states = _chain(self.cells, seen, _zero_state(frames, self.hidden))
        return torch.cat(states, dim=1)


class TemporalConv3d(nn.Module):
    """The paper's 3D-sub: one 3-D convolution in place of the temporal block."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, config.widths.temporal_state, 3, padding=(0, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 5, H, W) -> (N, 96, H, W)."""
        return self.conv(frames.unsqueeze(1)).flatten(1, 2)


class SpatialBlock(nn.Module):
    """ConvGRU 4..7 at half resolution, each followed by a 1x1 projection (c3..c6) without bias."""

    def __init__(self, config: NetworkConfig, features: int) -> None:
        super().__init__()
        hidden = config.widths.spatial_state
        if config.spatial == "generated":
            widths, outputs = config.widths.spatial_generator, STATES_SPATIAL * hidden
            self.generator = Generator(config, features, widths, outputs, full_resolution=False)
        cell = ConvLSTM if config.spatial_cell == "lstm" else ConvGRU
        self.cells = nn.ModuleList(cell(hidden, hidden) for _ in range(STATES_SPATIAL))
        self.projections = nn.ModuleList(nn.Conv2d(hidden, hidden, 1, bias=False) for _ in range(STATES_SPATIAL))
        self.hidden = hidden

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        """features (N, 96 + frames, H, W), x (N, 32, H/2, W/2) -> (N, 32, H/2, W/2)."""
        if hasattr(self, "generator"):
            first = self.generator(features).chunk(STATES_SPATIAL, dim=1)
        else:
            first = None
            h = _zero_state(x, self.hidden)
        for i, (cell, projection) in enumerate(zip(self.cells, self.projections)):
            h = cell(x, first[i] if first is not None else h)
            x = projection(h)
        return x


def initialise(network: DeblurNetwork, scheme: str = "kaiming") -> None:
    """Draws new weights in place and zeroes the biases, from torch's global generator.

    "kaiming": He et al. 2015, with r2 at zero when the network is residual. "paper": N(0, 0.01) everywhere, for the record;
    it attenuates through the generators' ReLU layers by 1e-8, so that they hardly train.
    """
    if scheme not in ("kaiming", "paper"):
        raise ValueError(f"scheme is {scheme!r}, expected 'kaiming' or 'paper'")
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            if scheme == "paper":
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if scheme == "kaiming" and network.config.residual:
        nn.init.zeros_(network.r2.weight)


def _chain(cells: nn.ModuleList, inputs: list[Tensor], h: Tensor) -> list[Tensor]:
    states = []
    for cell, x in zip(cells, inputs):
        h = cell(x, h)
        states.append(h)
    return states


def _zero_state(like: Tensor, hidden: int) -> Tensor:
    return torch.zeros_like(like[:, :1]).repeat(1, hidden, 1, 1)


def _check_shape(blurry: Tensor, frames: int) -> None:
    if blurry.ndim != 4 or blurry.shape[1] != frames or blurry.shape[2] % MULTIPLE or blurry.shape[3] % MULTIPLE:
        raise ValueError(
            f"got {tuple(blurry.shape)}, expected (N, {frames}, H, W) H and W divisible by {MULTIPLE}: pad by reflection, crop"
        )
