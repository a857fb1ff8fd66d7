"""The one protocol behind which every backend stands, so that nobody needs to ask what they run; and one that is ready."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from runtime.errors import ModelError
from runtime.files.contract import Contract

AHEAD = 2  # windows that an engine has at work in a runner: one is computed, the next is ready
IN_FLIGHT = AHEAD + 1  # windows that a runner must be able to hold: another thread may call `run` meanwhile


class Runner(Protocol):
    """Runs one model file. Not thread-safe: one caller at a time."""

    name: str  # "onnxruntime", "openvino", "torch", "tensorrt"
    precision: str  # arithmetic in use: "fp32", "bf16", "fp16", "int8", ...

    def run(self, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, F, H, W) as the model's contract says -> the same shape and dtype; C-contiguous host memory.

        The result belongs to the caller. Raises BackendError when the library fails.
        """
        ...

    def close(self) -> None:
        """Frees what the runner holds; calling it again does nothing."""
        ...


@runtime_checkable
class WorksAhead(Protocol):
    """A `Runner` to which the next windows can be given while one is computed. Results are taken in the order of submission."""

    def submit(self, blurry: npt.NDArray[Any]) -> Any:
        """Queues a window; returns what `result` exchanges. At most IN_FLIGHT may wait, that of a `run` meanwhile included."""
        ...

    def result(self, ticket: Any) -> npt.NDArray[Any]:
        """Waits for the window and returns what `run` would. Each ticket is good for one call."""
        ...


@runtime_checkable
class KeepsCompiled(Protocol):
    """A `Runner` that compiles the model, and can keep the result for the next process."""

    def keep_compiled(self, sha256: str, soon: tuple[int, ...] | None = None) -> None:
        """Keeps in the user's cache what is compiled and will be of the file with this hash, and takes from there what is whole:
        for `soon`, the shape (N, F, H, W) of windows that will come, in the background."""
        ...


@runtime_checkable
class WorksOnDevice(Protocol):
    """A `Runner` on a GPU that reads and fills arrays where they lie."""

    def submit_on_device(self, blurry: Any, out: Any = None, stream: Any = None) -> Any:
        """Queues a window on the GPU in the order of the caller's `stream`; returns what `result_on_device` exchanges."""
        ...

    def result_on_device(self, ticket: Any) -> Any:
        """The filled `out`, or an array on the GPU; submitted without a stream, it is waited for."""
        ...


@runtime_checkable
class EngineElsewhere(Protocol):
    """A `Runner` with a whole `Engine` behind it, which converts, pads and tests where it is."""

    def run_window(self, window: npt.NDArray[Any], bits: int | None, color_range: str | None) -> npt.NDArray[Any]:
        """See `Engine.run`."""
        ...


@dataclass(frozen=True)
class Choice:
    """A backend that is ready to run, and the sentence that explains it to the user."""

    runner: Runner
    contract: Contract  # of the model
    reason: str
    file: Path | None = None  # of a bundle, the one that was opened


def run_checked(runner: Any, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`Runner.run`. Raises ModelError when the result is of another shape or dtype than the window."""
    return checked(runner.run(blurry), blurry)


def checked(sharp: Any, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The result of a window. Raises ModelError when it is of another shape or dtype."""
    if not isinstance(sharp, np.ndarray) or sharp.shape != blurry.shape or sharp.dtype != blurry.dtype:
        got = f"{getattr(sharp, 'shape', '')} {getattr(sharp, 'dtype', type(sharp).__name__)}"
        raise ModelError(f"the model makes {got} of {blurry.shape} {blurry.dtype}, expected the same: export it again")
    return sharp
