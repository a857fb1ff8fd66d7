"""The bare computation on one window: its input lies where the library wants it, its output stays where the library puts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from runtime import Engine
from runtime.pixels import padding, sample_codes


def call_without_copies(engine: Engine, window: npt.NDArray[Any]) -> Callable[[], object]:
    """What is left of `engine.run(window)` without checks, padding, conversion, and copies in and out.

    On OpenVINO the inference request alone; on TensorRT the run on memory of the GPU, which is not recorded as a CUDA graph; on
    ONNX Runtime on a CPU the runner, which copies nothing that the library does not.
    """
    samples = _as_the_graph_takes_it(engine, window)
    if engine.backend == "tensorrt":
        return _on_gpu(engine, samples)
    if engine.backend == "openvino":
        runner: Any = engine.runner
        request = runner.compiled(samples.shape).create_infer_request()
        return lambda: request.infer({0: samples}, share_inputs=True, share_outputs=True)
    return lambda: engine.runner.run(samples)


def _as_the_graph_takes_it(engine: Engine, window: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if engine.contract.io == "f32":
        return padding.pad(window, engine.contract.multiple)
    if engine.contract.io == "u8":
        return window
    return sample_codes.to_pairs(window)


def _on_gpu(engine: Engine, samples: npt.NDArray[Any]) -> Callable[[], object]:
    from benchmarks.gpu.engines import on_device  # needs cuda-bindings

    resident = on_device(samples)
    return lambda: engine.run(resident)
