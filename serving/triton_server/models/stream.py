"""model.py of streams: a frame a request, and a response for each frame that became final, which may be none or several."""

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
from serving.triton_server.requests import KINDS, only_tensor, read_parameters
from serving.triton_server.streams import Streams

HERE = Path(__file__).resolve().parent


class TritonPythonModel:
    """What Triton's python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the engine; an error here makes the model unavailable, with its reason."""
        check_numpy()
        self._host = HostedEngine(HERE, args)
        self._host.warm_up()
        self._metrics = _counted(self._host.engine, args)
        self._streams = Streams(self._host)
        pb_utils.Logger.log_info(f"{args['model_name']}: {self._host.engine.reason}")

    def execute(self, requests: list) -> None:
        """Answers each request through its sender, since there may be more or fewer frames than one."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                for sharp in self._take(request):
                    tensor = pb_utils.Tensor(f"sharp_{KINDS[sharp.dtype.name]}", np.ascontiguousarray(sharp))
                    sender.send(pb_utils.InferenceResponse([tensor]))
            except Exception as error:  # a bug must cost one request, not the server
                sender.send(pb_utils.InferenceResponse(error=_triton_error(error)))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self) -> None:
        """Frees the engine."""
        self._host.close()

    def _take(self, request: pb_utils.InferenceRequest) -> list[np.ndarray]:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        start, end = (
            bool(request.flags() & flag)
            for flag in (pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
        )
        frame = only_tensor(tensors) if tensors else None
        return self._streams.take(request.correlation_id(), frame, read_parameters(request.parameters()), start, end)


def _triton_error(error: Exception) -> pb_utils.TritonError:
    if isinstance(error, InputError):
        return pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
    if not isinstance(error, DeployError):
        pb_utils.Logger.log_error(f"a frame failed: {type(error).__name__}: {error}")
    return pb_utils.TritonError(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)


def _counted(engine: Engine, args: dict[str, str]) -> ModelMetrics | None:
    """None where the server was told to have no metrics."""
    try:
        metrics = ModelMetrics(pb_utils, engine, args["model_name"], args["model_version"])
    except pb_utils.TritonModelException as error:
        pb_utils.Logger.log_warn(f"{args['model_name']} counts nothing: {error}")
        return None
    engine.observe(metrics)
    return metrics
