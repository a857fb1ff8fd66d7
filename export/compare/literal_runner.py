"""Computes a model file as its graph literally says, which matters where that says FP16 or BF16.

On most CPUs neither ONNX Runtime nor OpenVINO multiplies in these: they compute in fp32 from end to end, if at all, and what would
round or overflow between two operators does not. An operator that runs alone has to hand over what its type holds.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from calibration.onnx_file import load_onnx
from calibration.operator_runner import OperatorRunner
from export.graph.bf16_in_fp32 import bf16_in_fp32
from runtime.engine import Engine
from runtime.errors import BackendError
from runtime.files.contract import OUTPUT, read_contract
from runtime.pixels import padding, sample_codes

LITERAL = "literal"  # stands where a backend would

Array = npt.NDArray[Any]


class LiteralRunner:
    """A model file, one operator at a time on ONNX Runtime's CPU kernels; a context manager, used as an `Engine` is.

    Raises ModelError on a broken or foreign file, or an operator that ONNX Runtime lacks.
    """

    backend = LITERAL

    def __init__(self, path: Path) -> None:
        self.contract = read_contract(path)
        self.precision = self.contract.precision
        self.reason = f"{LITERAL} {self.precision}: one operator at a time, rounded to the graph's types in between"
        model, rounding = bf16_in_fp32(load_onnx(path))
        self._runner = OperatorRunner(model, rounding=rounding)

    def run(self, window: Array) -> Array:
        """(N, F, H, W) -> the same shape: float32 luma of any size, or the codes that the model takes.

        Raises BackendError where a tensor is NaN or infinite, and says which: in FP16 it went beyond 65504.
        """
        feed = padding.pad(window, self.contract.multiple) if self.contract.io == "f32" else window
        if self.contract.io == "u16":
            feed = sample_codes.to_pairs(feed)
        sharp = feed
        for name, value in self._runner.run(feed):
            if value.dtype in (np.float16, np.float32) and not np.isfinite(value).all():
                raise BackendError(f"{name} is NaN or infinite in {self.precision}")
            if name == OUTPUT:
                sharp = value
        if self.contract.io == "u16":
            return sample_codes.from_pairs(sharp)
        return np.ascontiguousarray(padding.crop(sharp, *window.shape[-2:]))

    def close(self) -> None:
        """Frees the operators; calling it again does nothing."""
        self._runner.close()

    def __enter__(self) -> LiteralRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_backend(path: Path, backend: str, precision: str = "auto") -> Engine | LiteralRunner:
    """A model file on a backend, LITERAL among them."""
    return LiteralRunner(path) if backend == LITERAL else Engine(path, backend, precision)


def exact_backend(model: onnx.ModelProto) -> str:
    """What computes a graph as it says: ONNX Runtime, but LITERAL where it holds FP16 or BF16."""
    types = {tensor.data_type for tensor in model.graph.initializer}  # of weights, or of the scales beside their codes
    return LITERAL if types & {TensorProto.FLOAT16, TensorProto.BFLOAT16} else "onnxruntime"
