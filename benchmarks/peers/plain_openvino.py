"""OpenVINO on the CPU, compiled for one shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino


def open_compiled(model: Path, shape: tuple[int, ...], hint: str) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]:
    """One infer request in the arithmetic of `hint` ("f32" or "bf16"), called without any checks."""
    core = openvino.Core()
    network = core.read_model(model)
    network.reshape(list(shape))
    request = core.compile_model(
        network, "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    ).create_infer_request()

    def call(window: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        request.infer({0: window}, share_inputs=True)
        return request.get_output_tensor().data

    return call
