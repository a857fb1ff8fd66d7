"""Runs ONNX files with OpenVINO on the CPU, in an arithmetic that the caller names: OpenVINO would choose bf16 by itself."""

from __future__ import annotations

import functools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from runtime.contract import INPUT, OUTPUT
from runtime.errors import BackendError, ModelError

DEVICE = "CPU"
COMPILED_SHAPES = 4  # compiled models kept; a video needs one, a service of mixed sizes a few
HINTS = {"fp32": "f32", "bf16": "bf16"}


@functools.cache
def _core() -> openvino.Core:
    """One for the process, never freed. Each loads the CPU plugin, which puts the thread's signal handlers on a stack of its own;
    where two are freed in the order in which they were made, 2026.4 leaves the thread with a stack that is gone, and the next
    SIGTERM or Ctrl-C is a segmentation fault."""
    return openvino.Core()


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AMX or AVX512-BF16)."""
    return "BF16" in _core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def describe() -> dict[str, Any]:
    """OpenVINO's version and devices, for `videodeblur doctor`."""
    return {"version": openvino.__version__, "devices": _core().available_devices, "bf16": native_bf16()}


class OpenVinoRunner:
    """A `Runner` that compiles the model once per shape, since fixed shapes run faster.

    `precision` is "fp32" or "bf16", the arithmetic of everything the graph does not quantise; `threads` the number of cores it
    may use, all when None.
    """

    name = "openvino"

    def __init__(self, path: Path, precision: str, threads: int | None = None) -> None:
        self.precision = precision
        if precision not in HINTS:
            raise BackendError(f"precision is {precision!r}, OpenVINO on a CPU offers {' and '.join(HINTS)}")
        if precision == "bf16" and not native_bf16():
            raise BackendError("this CPU has no bf16 arithmetic (AMX or AVX512-BF16): use precision='fp32'")
        self._core = _core()
        self._properties = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._properties["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._model: openvino.Model | None = self._core.read_model(path)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO {openvino.__version__} cannot load {path}: {error}") from error
        self._requests: OrderedDict[tuple[int, ...], openvino.InferRequest] = OrderedDict()

    def run(self, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runner.run`. The first call with a shape compiles the model for it."""
        request = self._request(blurry.shape)
        try:
            request.infer({INPUT: openvino.Tensor(np.ascontiguousarray(blurry), shared_memory=True)})
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on shape {blurry.shape}: {error}") from error
        return np.array(request.get_tensor(OUTPUT).data)

    def compiled(self, shape: tuple[int, ...]) -> openvino.CompiledModel:
        """The compiled model for an input shape, for tools that read its runtime graph or its profile."""
        return self._request(shape).get_compiled_model()

    def close(self) -> None:
        """Frees the model and everything compiled from it."""
        self._model = None
        self._requests.clear()

    def _request(self, shape: tuple[int, ...]) -> openvino.InferRequest:
        if self._model is None:
            raise BackendError("the runner is closed")
        if shape in self._requests:
            self._requests.move_to_end(shape)
            return self._requests[shape]
        try:
            model = self._model.clone()
            if model.is_dynamic():
                model.reshape({INPUT: list(shape)})
            request = self._core.compile_model(model, DEVICE, self._properties).create_infer_request()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot compile the model for shape {shape}: {error}") from error
        self._requests[shape] = request
        if len(self._requests) > COMPILED_SHAPES:
            self._requests.popitem(last=False)
        return request
