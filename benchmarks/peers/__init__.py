"""What this project is compared with, each as its users would run it, in a file that can be read beside its documentation.

`open_peer` makes a call for one window out of a name; a peer that cannot run here raises `BackendError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import BackendError

Call = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]  # (N, F, H, W) luma in [0, 1] -> the same shape, numpy both


@dataclass(frozen=True)
class PeerInput:
    """What a peer is made from."""

    model: Path  # ONNX file in fp32, float I/O, any size
    checkpoint: Path  # that it was exported from
    shape: tuple[int, int, int, int]  # N, F, H, W of the windows to come
    folder: Path  # where it may keep what it prepared, for the next process
    calibration: npt.NDArray[np.float32]  # (n, 1, F, H, W) blurry windows of a clip
    truth: npt.NDArray[np.float32]  # the same windows, sharp


@dataclass(frozen=True)
class Peer:
    """Where a peer is opened."""

    opener: str  # "module:function" in this folder
    precision: str  # arithmetic
    quick: bool = False  # also measured by `--quick`
    gpu: bool = False  # needs an NVIDIA GPU: none of these has run yet


PEERS = {
    "pytorch fp32": Peer("pytorch:open_eager", "fp32"),
    "pytorch fp32 channels_last": Peer("pytorch:open_channels_last", "fp32"),
    "pytorch bf16 channels_last": Peer("pytorch:open_bf16", "bf16", quick=True),
    "torch.compile fp32": Peer("pytorch:open_compiled", "fp32"),
    "torch.compile bf16 channels_last": Peer("pytorch:open_compiled_bf16", "bf16"),
    "onnxruntime": Peer("plain_onnxruntime:open_session", "fp32", quick=True),
    "openvino": Peer("plain_openvino:open_defaults", "its choice", quick=True),
    "openvino fp32 fixed shape": Peer("plain_openvino:open_fp32", "fp32"),
    "openvino bf16 fixed shape": Peer("plain_openvino:open_bf16", "bf16"),
    "openvino nncf int8": Peer("openvino_nncf:open_quantized", "int8"),
    "openvino nncf int8 max_drop": Peer("openvino_nncf:open_accuracy_controlled", "int8"),
    "polygraphy onnxruntime": Peer("polygraphy_runners:open_onnxruntime", "fp32"),
    "pytorch cuda fp16 channels_last": Peer("pytorch_cuda:open_fp16", "fp16", gpu=True),
    "torch.compile cuda fp16 channels_last": Peer("pytorch_cuda:open_compiled_fp16", "fp16", gpu=True),
    "onnxruntime cuda": Peer("onnxruntime_cuda:open_session", "tf32", gpu=True),
    "torch-tensorrt fp16": Peer("torch_tensorrt_module:open_fp16", "fp16", gpu=True),
    "polygraphy tensorrt": Peer("polygraphy_runners:open_tensorrt", "tf32", gpu=True),
}


def open_peer(name: str, given: PeerInput) -> Call:
    """The peer's call for windows of `given.shape`. Raises BackendError where its library or its hardware is missing."""
    module, _, function = PEERS[name].opener.partition(":")
    try:
        opener: Callable[[PeerInput], Call] = getattr(import_module(f"benchmarks.peers.{module}"), function)
    except ImportError as error:
        raise BackendError(f"{error.name or error} is not installed") from error
    return opener(given)
