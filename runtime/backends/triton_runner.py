"""Runs windows on a Triton Inference Server, over gRPC or HTTP, on a model that `videodeblur to-triton` wrote.

With Triton's python backend a whole `Engine` is at the other end, and windows travel as they are. With its onnxruntime and
tensorrt backends it is the graph alone: this side converts and pads, as it does for a file.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from runtime.backends.runner import Choice
from runtime.errors import BackendError, InputError, MissingPackageError, ModelError
from runtime.files.contract import INPUT, OUTPUT, Contract
from runtime.files.records import parse_object
from runtime.machine.requirements import least_version

ADDRESS = re.compile(r"(grpc|http)://([^/\s]+:\d+)/([A-Za-z0-9_.-]+)")  # protocol, host and port, model
CONTRACT, PRECISION, DESCRIBE, DESCRIPTION = "contract", "precision", "describe", "description"  # agreed with serving/
KINDS = {"float32": "f32", "uint8": "u8", "uint16": "u16"}  # dtype: ending of the tensors' names
DATATYPES = {"float32": "FP32", "uint8": "UINT8", "uint16": "UINT16"}  # Triton's words
PROBE = 16  # pixels each way of the window that a server is asked with first
PATIENCE = 600.0  # seconds for one window
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before asking again where the queue is full, or the server restarts
BUSY = ("StatusCode.UNAVAILABLE", "503")  # of gRPC and HTTP
REFUSED = ("StatusCode.INVALID_ARGUMENT", "400")

log = logging.getLogger("videodeblur.triton")
log.addHandler(logging.NullHandler())


def open_served(url: str) -> Choice:
    """The model at "grpc://HOST:PORT/MODEL" or "http://HOST:PORT/MODEL"; one small window is run there.

    Raises InputError on another address, BackendError when the server does not answer, ModelError when the model is not one that
    `videodeblur to-triton` wrote.
    """
    match = ADDRESS.fullmatch(url)
    if not match:
        raise InputError(f"the server is {url!r}, expected grpc://HOST:PORT/MODEL or http://HOST:PORT/MODEL")
    protocol, host, model = match.groups()
    client = _Client(_module(protocol), host, model)
    try:
        return _open(client, url)
    except BaseException:
        client.close()
        raise


def _module(protocol: str) -> ModuleType:
    try:
        return import_module(f"tritonclient.{protocol}")
    except (ImportError, RuntimeError) as error:  # it raises RuntimeError where an extra was left out
        raise MissingPackageError(
            f"tritonclient[{protocol}]>={least_version('tritonclient')}", f"a server at {protocol}://"
        ) from error


def _open(client: _Client, url: str) -> Choice:
    config = client.config()
    parameters = {name: value.get("string_value", "") for name, value in config.get("parameters", {}).items()}
    if CONTRACT not in parameters:
        raise ModelError(f"{url} is not a model of this project: write its repository with `videodeblur to-triton`")
    if config.get("model_transaction_policy", {}).get("decoupled"):
        raise InputError(f"{url} takes streams of frames, expected the model of windows: its name is without _stream")
    contract = Contract.from_json(parameters[CONTRACT])
    if config.get("backend") == "python":
        engine = TritonEngineRunner(client, contract)
        return Choice(engine, contract, f"{url}, which runs {engine.description}")
    runner = TritonRunner(client, parameters.get(PRECISION, contract.precision))
    return Choice(runner, contract, f"{url}, Triton's {config.get('backend')} backend")


class TritonRunner:
    """A `Runner` of a graph on a server. Windows that find its queue full are sent again after a while, up to four times."""

    name = "triton"

    def __init__(self, client: _Client, precision: str) -> None:
        self._client, self.precision = client, precision

    def run(self, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runner.run`."""
        return self._client.infer({INPUT: blurry}, {})[OUTPUT]

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class TritonEngineRunner(TritonRunner):
    """An `Engine` on a server: it takes every window that `Engine.run` takes, and gives what that gives there."""

    def __init__(self, client: _Client, contract: Contract) -> None:
        outputs = client.infer({_name("blurry", _probe(contract)): _probe(contract)}, {DESCRIBE: True})
        if DESCRIPTION not in outputs:
            raise ModelError("the server's model does not say what it runs on: write its repository again with this version")
        told = parse_object(outputs[DESCRIPTION].reshape(-1)[0].decode())
        self.description = str(told.get("reason"))
        super().__init__(client, str(told.get("precision")))

    def run(self, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runner.run`, but codes of 16 bits are uint16."""
        return self.run_window(blurry, None, None)

    def run_window(self, window: npt.NDArray[Any], bits: int | None, color_range: str | None) -> npt.NDArray[Any]:
        """See `Engine.run`."""
        asked = {"bits": bits, "color_range": color_range}
        outputs = self._client.infer(
            {_name("blurry", window): window}, {name: value for name, value in asked.items() if value is not None}
        )
        return next(array for name, array in outputs.items() if name.startswith("sharp_"))


class _Client:
    """One model through tritonclient's gRPC or HTTP module, which are alike.

    All calls are made in a thread of its own, since the HTTP module's connections belong to the thread that opened them.
    """

    def __init__(self, module: ModuleType, host: str, model: str) -> None:
        self._module, self._host, self._model = module, host, model
        limits = {"connection_timeout": PATIENCE, "network_timeout": PATIENCE} if module.__name__.endswith("http") else {}
        self._patience = {} if limits else {"client_timeout": PATIENCE}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="videodeblur-triton")
        self._client = self._thread.submit(module.InferenceServerClient, host, **limits).result()

    def config(self) -> dict[str, Any]:
        """The model's configuration, as the server has it."""
        grpc = {"as_json": True} if self._patience else {}
        found = self._call(lambda: self._client.get_model_config(self._model, **grpc), pauses=())
        config: dict[str, Any] = found.get("config", found)
        return config

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], parameters: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """The outputs by name, of the shape of the first input but for those that are text."""
        tensors = [self._tensor(name, array) for name, array in inputs.items()]
        result = self._call(
            lambda: self._client.infer(self._model, tensors, parameters=dict(parameters) or None, **self._patience), PAUSES
        )
        shape = next(iter(inputs.values())).shape
        return {name: self._array(result, name, shape) for name in _output_names(result.get_response())}

    def close(self) -> None:
        """Closes the connection; calling it again does nothing."""
        if self._client is not None:
            self._thread.submit(self._client.close).result()
            self._thread.shutdown()
            self._client = None

    def _tensor(self, name: str, array: npt.NDArray[Any]) -> Any:
        tensor = self._module.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        return tensor

    def _array(self, result: Any, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        try:
            array = result.as_numpy(name)
        except ValueError as error:  # fewer bytes than the shape says
            raise BackendError(
                f"the server's {name} is damaged ({error}): does its Python have a numpy that its Triton knows, below 2?"
            ) from error
        if name != DESCRIPTION and array.shape != shape:
            raise BackendError(f"the server's {name} has shape {array.shape}, expected {shape}: it is another network")
        return np.array(array)  # the client's buffer is read-only

    def _call(self, call: Callable[[], Any], pauses: tuple[float, ...]) -> Any:
        asked = self._thread.submit(call)
        error = asked.exception()  # the call's alone: what a signal handler raises in this thread goes through
        if not isinstance(error, (InferenceServerException, OSError)):
            return asked.result()
        if not pauses or not _busy(error):
            raise self._error(error) from error
        log.warning("%s is busy, asking again in %g s: %s", self._host, pauses[0], error)
        time.sleep(pauses[0])
        return self._call(call, pauses[1:])

    def _error(self, error: Exception) -> Exception:
        said = error.message() if isinstance(error, InferenceServerException) else str(error)
        text = f"{self._model} on {self._host}: {said or type(error).__name__}"
        if isinstance(error, InferenceServerException) and error.status() in REFUSED:
            return InputError(text)
        return BackendError(f"{text}; is the server running there, with this model?" if _busy(error) else text)


def _busy(error: Exception) -> bool:
    return not isinstance(error, InferenceServerException) or error.status() in BUSY


def _output_names(response: Any) -> list[str]:
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    return [output["name"] if isinstance(output, dict) else output.name for output in outputs]


def _name(prefix: str, window: npt.NDArray[Any]) -> str:
    return f"{prefix}_{KINDS[window.dtype.name]}"


def _probe(contract: Contract) -> npt.NDArray[Any]:
    """A small window of what the engine takes."""
    size = -(-PROBE // contract.multiple) * contract.multiple
    shape = (contract.batch or 1, contract.frames, contract.height or size, contract.width or size)
    return np.zeros(shape, {"f32": np.float32, "u8": np.uint8, "u16": np.uint16}[contract.io])
