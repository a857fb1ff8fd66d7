"""The PyTorch network behind the runner protocol, so that it can be measured like any deployed model."""

from __future__ import annotations

from types import TracebackType

import numpy as np
import torch
from torch.nn import functional

from model.config import MULTIPLE
from model.network import DeblurNetwork

PRECISIONS = ("fp32", "bf16")


class TorchRunner:
    """Runs a network on the CPU or a GPU. A context manager; not thread-safe."""

    name = "torch"

    def __init__(self, network: DeblurNetwork, precision: str = "fp32", device: str = "cpu") -> None:
        """precision: "fp32", or "bf16" for autocast. The network moves to `device`, and into evaluation mode."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self.frames = network.config.frames
        self._device = torch.device(device)
        flat = network.config.temporal != "conv3d"  # a 3-D convolution's kernel has no channels-last layout of this kind
        self._layout = torch.channels_last if flat else torch.contiguous_format
        self._network: DeblurNetwork | None = network.to(self._device).to(memory_format=self._layout).eval()

    @torch.inference_mode()
    def run(self, window: np.ndarray) -> np.ndarray:
        """(N, frames, H, W) float32 luma in [0, 1], any H and W -> the same shape, float32, not clipped; host memory, the caller's.

        Sizes that are no multiples of 8 are padded by reflection at the bottom and right, and cropped again.
        """
        if self._network is None:
            raise ValueError("this runner is closed: make another")
        height, width = window.shape[-2:]
        blurry = torch.from_numpy(window).to(self._device)
        blurry = functional.pad(blurry, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="reflect")
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            sharp = self._network(blurry.contiguous(memory_format=self._layout))
        return np.ascontiguousarray(sharp[..., :height, :width].float().cpu().numpy())

    def close(self) -> None:
        """Frees the network; calling it again does nothing."""
        self._network = None

    def __enter__(self) -> TorchRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
