"""Opens whatever a user names: a checkpoint, an ONNX file, an engine or a bundle, with a backend and a precision behind an @."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from export.compare.literal_runner import LITERAL, open_backend
from export.compare.luma import run_luma
from runtime import InputError
from runtime.files.contract import Contract
from runtime.files.model_spec import parse

CHECKPOINTS = (".safetensors", ".pth", ".pt")


class Runs(Protocol):
    """`Engine`, `LiteralRunner` and `model.reference.TorchRunner`."""

    def run(self, window: npt.NDArray[Any], /) -> npt.NDArray[Any]:
        """(N, F, H, W) -> the same shape."""
        ...


@dataclass(frozen=True)
class Opened:
    """Something that runs windows."""

    runner: Runs
    frames: int  # of a window
    precision: str  # a key of runtime.files.contract.MIN_PARITY
    what: str  # file, backend and precision in words
    contract: Contract | None  # None: the network itself

    def run(self, window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, F, H, W) luma in [0, 1], any H and W -> the same shape, whatever the model's own input is."""
        return self.runner.run(window) if self.contract is None else run_luma(self.runner, window)


@contextmanager
def open_any(spec: str, exact: bool = False) -> Iterator[Opened]:
    """Opens "FILE", "FILE@BACKEND" or "FILE@BACKEND:PRECISION" and closes it again.

    A checkpoint runs in PyTorch. Backend "literal" is `LiteralRunner`. `exact` asks for fp32 arithmetic where `spec` names none;
    otherwise the engine chooses. Raises what the opening raises.
    """
    file, backend, precision = parse(spec)
    path = Path(file)
    if path.suffix in CHECKPOINTS:
        with _open_network(path, backend, precision) as opened:
            yield opened
        return
    if backend == LITERAL and precision:
        raise InputError(f"{LITERAL} computes in the graph's own types, not in {precision}: leave the precision out")
    with open_backend(path, backend or "auto", precision or ("fp32" if exact else "auto")) as engine:
        kept = engine.contract.precision
        lowered = engine.precision if kept == "fp32" else kept  # a typed graph is judged by its types
        yield Opened(engine, engine.contract.frames, lowered, f"{path}, {engine.reason}", engine.contract)


@contextmanager
def _open_network(path: Path, backend: str, precision: str) -> Iterator[Opened]:
    if backend not in ("", "torch"):
        raise InputError(f"{path} is a checkpoint, which runs in torch only, not in {backend}: export it first")
    from model import CheckpointError, load_checkpoint  # torch, where a network is named
    from model.reference import TorchRunner

    try:
        network = load_checkpoint(path)
    except CheckpointError as error:
        raise InputError(str(error)) from error
    with TorchRunner(network, precision or "fp32") as runner:
        yield Opened(runner, network.config.frames, precision or "fp32", f"{path}, torch {precision or 'fp32'}", None)
