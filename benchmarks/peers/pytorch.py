"""PyTorch, eager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model import load_checkpoint

Call = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]


def open_eager(checkpoint: Path | None) -> Call:
    """The network in float32."""
    network = load_checkpoint(checkpoint)

    def call(window: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            return network(torch.from_numpy(window)).numpy()

    return call


def open_bf16(checkpoint: Path | None) -> Call:
    """The network under bf16 autocast in channels-last layout, the fast way in eager PyTorch on a CPU."""
    network = load_checkpoint(checkpoint).to(memory_format=torch.channels_last)

    def call(window: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return network(torch.from_numpy(window).contiguous(memory_format=torch.channels_last)).float().numpy()

    return call
