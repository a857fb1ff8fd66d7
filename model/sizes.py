"""The sizes of the network that are trained here, by name; every command that takes a checkpoint takes each."""

from __future__ import annotations

from model.config import NetworkConfig
from model.widths import Widths

DEFAULT_SIZE = "light"

SIZES: dict[str, NetworkConfig] = {
    "paper": NetworkConfig(),  # 489 GFLOP a frame of 1280x720, convolutions only
    "light": NetworkConfig(  # few channels at full resolution, most at half, where blur is removed
        widths=Widths(
            temporal_state=4,
            spatial_state=32,
            fine=16,
            merged=16,
            temporal_generator=(8, 8, 8, 16, 16, 32, 32, 32, 64, 64, 32, 16, 16, 16),
            spatial_generator=(16, 16, 48, 48, 64, 64, 64, 96, 96, 64, 48, 48, 48),
        ),
        generator_skips=True,
    ),
}
