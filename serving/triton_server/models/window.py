"""model.py of windows: one request, one window, or a few, sharp."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# the code that was copied beside this file, then what the environment says, which Triton's stub does not heed
sys.path[:0] = [str(Path(__file__).resolve().parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]

import numpy as np
import triton_python_backend_utils as pb_utils

from runtime.engine import Engine
from runtime.errors import DeployError, InputError
from serving.triton_server.host import HostedEngine, check_numpy
from serving.triton_server.metrics import ModelMetrics
from serving.triton_server.requests import KINDS, WindowRequest, answer, read_window

HERE = Path(__file__).resolve().parent


class TritonPythonModel:
    """What Triton's python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the engine; an error here makes the model unavailable, with its reason."""
        check_numpy()
        self._host = HostedEngine(HERE, args)
        self._metrics = _counted(self._host.engine, args)
        pb_utils.Logger.log_info(f"{args['model_name']}: {self._host.engine.reason}")

    def execute(self, requests: list) -> list:
        """A response for each request, of a sharp window or of an error."""
        read = [self._read(request) for request in requests]
        answers = iter(answer(self._host, [each for each in read if isinstance(each, WindowRequest)]))
        return [self._response(each, next(answers) if isinstance(each, WindowRequest) else each) for each in read]

    def finalize(self) -> None:
        """Frees the engine."""
        self._host.close()

    def _read(self, request: pb_utils.InferenceRequest) -> WindowRequest | DeployError:
        try:
            return read_window(self._host, {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}, request.parameters())
        except DeployError as error:
            if self._metrics:
                self._metrics.refused()
            return error

    def _response(self, request: WindowRequest | DeployError, sharp: np.ndarray | DeployError) -> pb_utils.InferenceResponse:
        if isinstance(sharp, DeployError):
            code = pb_utils.TritonError.INVALID_ARG if isinstance(sharp, InputError) else pb_utils.TritonError.INTERNAL
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(sharp), code))
        tensors = [pb_utils.Tensor(f"sharp_{KINDS[sharp.dtype.name]}", np.ascontiguousarray(sharp))]
        if request.parameters.describe:
            text = self._host.description().encode()
            tensors.append(pb_utils.Tensor("description", np.array([[text]] * len(sharp), np.object_)))
        return pb_utils.InferenceResponse(tensors)


def _counted(engine: Engine, args: dict[str, str]) -> ModelMetrics | None:
    """None where the server was told to have no metrics."""
    try:
        metrics = ModelMetrics(pb_utils, engine, args["model_name"], args["model_version"])
    except pb_utils.TritonModelException as error:
        pb_utils.Logger.log_warn(f"{args['model_name']} counts nothing: {error}")
        return None
    engine.observe(metrics)
    return metrics
