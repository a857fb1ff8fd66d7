"""How much memory the network takes for how many pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.errors import InputError
from runtime.files.contract import Contract

# Bytes for each pixel of a window of five frames, and for libraries and weights, of the network with all its channels: measured
# as the growth of the peak of resident memory, OpenVINO 2026.2 and ONNX Runtime 1.31, 184x320 to 720x1280: 1850 to 2010 in fp32
# beyond some 75 MB, 1000 in bf16.
BYTES_PER_PIXEL = {"fp32": 2100, "bf16": 1100}
PAPER_CHANNELS = 256 + 3 * 32  # at full resolution where most are alive: around the temporal generator's last layer
FIXED_BYTES = 350_000_000
SHARE = 0.5  # of the memory at hand that is taken without being told


def bytes_for(pixels: int, contract: Contract, precision: str) -> int:
    """Peak memory of a process that runs windows of so many pixels on a CPU, in bytes, without the video's own frames."""
    return FIXED_BYTES + pixels * _per_pixel(contract, precision)


def pixels_within(memory: int, contract: Contract, precision: str) -> int:
    """The most pixels for which `bytes_for` is within `memory` bytes. Raises InputError when there are none."""
    pixels = (memory - FIXED_BYTES) // _per_pixel(contract, precision)
    if pixels < 1:
        raise InputError(
            f"there are {memory / 1e6:.0f} MB of memory for the network, expected more than {FIXED_BYTES / 1e6:.0f}: end other"
            " programs, raise the limit of the container, or say a larger --memory"
        )
    return pixels


def _per_pixel(contract: Contract, precision: str) -> int:
    """Activations shrink with the channels, but for the frames themselves and some scratch."""
    full = BYTES_PER_PIXEL.get(precision, BYTES_PER_PIXEL["fp32"])
    return max(round(full * _share(contract.configuration)), full // 4)


def _share(configuration: Mapping[str, Any]) -> float:
    widths = configuration.get("widths")
    if widths is None:
        return 1 / int(configuration.get("channel_divisor", 1))  # files from before profiles of widths
    return (int(widths["temporal_generator"][-1]) + 3 * int(widths["temporal_state"])) / PAPER_CHANNELS
