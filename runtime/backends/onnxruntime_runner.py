"""Runs ONNX files with ONNX Runtime on the CPU, in the types that the graph holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

from runtime.backends.failures import failures_of
from runtime.errors import BackendError, ModelError
from runtime.files.contract import INPUT, OUTPUT

ERRORS_ONLY = 3  # log severity
PACKAGE = "onnxruntime"


def describe() -> dict[str, Any]:
    """ONNX Runtime's version and providers, for `videodeblur doctor`."""
    return {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}


class OnnxRuntimeRunner:
    """A `Runner` on ONNX Runtime's CPU provider.

    `threads` is the number of cores it may use, all when None; `data` the bytes of the file where it was read already.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, precision: str, threads: int | None = None, data: bytes | None = None) -> None:
        self.precision = precision
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads or 0
        with failures_of(PACKAGE, f"ONNX Runtime {onnxruntime.__version__} cannot load {path}", ModelError):
            self._session: onnxruntime.InferenceSession | None = onnxruntime.InferenceSession(
                str(path) if data is None else data, options, providers=["CPUExecutionProvider"]
            )

    def run(self, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runner.run`."""
        if self._session is None:
            raise BackendError("the runner is closed")
        with failures_of(PACKAGE, f"ONNX Runtime failed on shape {blurry.shape}"):
            sharp: npt.NDArray[Any] = self._session.run([OUTPUT], {INPUT: blurry})[0]
        return sharp

    def close(self) -> None:
        """Frees the session."""
        self._session = None
