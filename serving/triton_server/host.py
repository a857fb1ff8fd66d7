"""The engine inside Triton's python backend: opened as the repository says, with limits that keep the server alive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backends import CPU_BACKENDS
from runtime.engine import Engine
from runtime.errors import BackendError, InputError, ModelError
from runtime.files.contract import Contract
from runtime.files.records import parse_object, read_record
from runtime.machine.memory import memory_at_hand
from runtime.run import network_memory

CONTRACT, HOSTING = (
    "contract",
    "hosting",
)  # keys of config.pbtxt's parameters, the former agreed with runtime/backends/triton_runner.py
THIS_PROGRAM = Path("/proc/self/exe")  # Triton's stub, the process that runs model.py
NUMPY_2 = b"numpy._core"  # a name that every pybind11 which knows numpy 2 looks up, and none before


@dataclass(frozen=True)
class Hosting:
    """What a model.py is told; a JSON object among the parameters of its config.pbtxt."""

    model: str  # the bundle or file beside model.py
    backend: str = "auto"  # see Engine
    precision: str = "auto"  # see Engine
    threads: int | None = None  # CPU cores, all when None
    max_pixels: int = 4096 * 2304  # of a frame
    warm_up: tuple[tuple[int, int], ...] = ()  # heights and widths that are run before the model is ready
    idle: float = 60.0  # seconds after which a stream without frames is forgotten

    def to_json(self) -> str:
        """The text in the config."""
        return json.dumps(asdict(self))


class HostedEngine:
    """An `Engine`, what it was told, and the memory that it may take."""

    def __init__(self, folder: Path, arguments: Mapping[str, str]) -> None:
        """`folder` is that of model.py, `arguments` those of its `initialize`.

        Raises ModelError when the engine is not the one that the config was written for, and the DeployErrors of Engine.
        """
        parameters = json.loads(arguments["model_config"])["parameters"]
        self.hosting = read_record(Hosting, parse_object(parameters[HOSTING]["string_value"]))
        device = int(arguments["model_instance_device_id"]) if arguments["model_instance_kind"] == "GPU" else 0
        how = self.hosting
        self.engine = Engine(folder / how.model, how.backend, how.precision, how.threads, device)
        _check_kind(self.engine.contract, Contract.from_json(parameters[CONTRACT]["string_value"]))
        self._fitted: set[tuple[int, ...]] = set()  # shapes that have been run: their memory is taken already

    def run(self, window: np.ndarray[Any, Any], bits: int | None = None, color_range: str | None = None) -> np.ndarray[Any, Any]:
        """See `Engine.run`. Raises BackendError too when the window would take more memory than there is."""
        if window.shape not in self._fitted:
            self._check_memory(window.shape)
        sharp = self.engine.run(window, bits, color_range)
        self._fitted.add(window.shape)
        return sharp

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError when a frame is empty or too large."""
        if not 1 <= height * width <= self.hosting.max_pixels:
            raise InputError(
                f"got {width}x{height} pixels, this server takes 1 to {self.hosting.max_pixels} of a frame: send tiles, as "
                "`videodeblur run --tile` does, or write the repository with --max-pixels"
            )

    def warm_up(self) -> None:
        """Runs a window of each size that the repository names, so that the first client need not wait for compilers."""
        contract = self.engine.contract
        for height, width in self.hosting.warm_up:
            self.run(np.zeros((contract.batch or 1, contract.frames, height, width), codes_type(contract)))

    def description(self) -> str:
        """What the engine runs on, a JSON object."""
        engine = self.engine
        return json.dumps({"backend": engine.backend, "precision": engine.precision, "reason": engine.reason})

    def close(self) -> None:
        """Frees the engine."""
        self.engine.close()

    def _check_memory(self, shape: tuple[int, ...]) -> None:
        batch, _, height, width = shape
        at_hand = memory_at_hand() if self.engine.backend in CPU_BACKENDS else None
        if at_hand is None:
            return
        needed = network_memory.bytes_for(batch * height * width, self.engine.contract, self.engine.precision)
        if needed > at_hand:
            raise BackendError(
                f"{batch} x {width}x{height} pixels take about {needed / 1e9:.1f} GB, the server has {at_hand / 1e9:.1f}: use tiles"
            )


def codes_type(contract: Contract) -> type[np.generic]:
    """The dtype in which an engine of this contract takes frames from a camera."""
    return np.uint16 if contract.io == "u16" else np.uint8


def check_numpy(stub: Path = THIS_PROGRAM, version: str = np.__version__) -> None:
    """Raises BackendError when `stub` was built before numpy 2 and this is numpy 2.

    Such a server, up to 2.51 at least, takes requests and answers with empty tensors.
    """
    if int(version.split(".")[0]) >= 2 and NUMPY_2 not in stub.read_bytes():
        raise BackendError(
            f"this server's Python backend was built for numpy 1 and would answer with empty tensors, numpy is {version}: "
            "pip install 'numpy<2' for the server"
        )


def _check_kind(found: Contract, written: Contract) -> None:
    kinds = [(each.frames, each.io, each.bits, each.color_range) for each in (found, written)]
    if kinds[0] != kinds[1]:
        raise ModelError(f"the engine takes {kinds[0]}, the repository was written for {kinds[1]}: write it again")
