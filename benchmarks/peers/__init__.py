"""What this project is compared with, each as its users would run it, in a file that can be read beside its documentation.

`open_peer` makes a call for one window out of a name; a peer that cannot run here raises `BackendError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from runtime.errors import BackendError, DeployError

Arguments, Result = ParamSpec("Arguments"), TypeVar("Result")
Call = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]  # (N, F, H, W) luma in [0, 1] -> the same shape, numpy both


@dataclass(frozen=True)
class PeerInput:
    """What a peer is made from."""

    model: Path  # ONNX file in fp32, float I/O, any size
    checkpoint: Path | None  # that it was exported from; None when it is not at hand
    shape: tuple[int, int, int, int]  # N, F, H, W of the windows to come
    folder: Path  # where it may keep what it prepared, for the next process
    calibration: npt.NDArray[np.float32]  # (n, 1, F, H, W) blurry windows of a clip
    truth: npt.NDArray[np.float32]  # the same windows, sharp; none where that is not known

    @property
    def weights(self) -> Path:
        """`checkpoint`, for peers that cannot do without. Raises BackendError when it is not at hand."""
        if self.checkpoint is None:
            raise BackendError("the checkpoint is not at hand: name it with --checkpoint")
        return self.checkpoint


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
    """The peer's call for windows of `given.shape`. Raises BackendError where its library or its hardware is missing, or it fails;
    so does the call."""
    module, _, function = PEERS[name].opener.partition(":")

    def opened() -> Call:
        return getattr(import_module(f"benchmarks.peers.{module}"), function)(given)

    return guarded(guarded(opened)())


def guarded(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`call`, which raises BackendError whatever goes wrong in a library that is not ours."""

    def call_or_say_why(*arguments: Arguments.args, **words: Arguments.kwargs) -> Result:
        try:
            return call(*arguments, **words)
        except DeployError:
            raise
        except ModuleNotFoundError as error:
            raise BackendError(f"{error.name} is not installed") from error
        except Exception as error:  # those of other libraries share no base but Exception
            first, *_ = [*str(error).strip().splitlines(), ""]
            raise BackendError(f"{type(error).__name__}: {first}") from error

    return call_or_say_why
