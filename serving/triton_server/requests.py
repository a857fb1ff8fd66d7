"""Windows as they come to a model server: read, checked, run together where they are alike, and each answered for itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import BackendError, DeployError, InputError
from runtime.files.records import parse_object, read_record
from runtime.pixels.strength import blend, checked_strength
from serving.triton_server.host import HostedEngine

KINDS = {"float32": "f32", "uint8": "u8", "uint16": "u16"}  # dtype: ending of a tensor's name

log = logging.getLogger("videodeblur.triton")


@dataclass(frozen=True)
class Parameters:
    """What may be said with a request, in its parameters."""

    bits: int | None = None  # depth of the codes; see Engine.run
    color_range: str | None = None  # "full" or "limited"; see Engine.run
    describe: bool = False  # whether the answer tells what it was run on
    strength: float = 1.0  # see StreamDeblurrer
    stride: int | None = None  # of a stream, with its first frame: see StreamDeblurrer
    delay: int | None = None  # of a stream, in place of the stride

    def __post_init__(self) -> None:
        """Raises InputError on a strength that is none."""
        checked_strength(self.strength)


@dataclass(frozen=True)
class WindowRequest:
    """A request for a window, checked."""

    window: npt.NDArray[Any]  # (N, F, H, W)
    parameters: Parameters


def read_parameters(text: str) -> Parameters:
    """Parameters from a request's JSON. Raises InputError when a value is of another type."""
    try:
        return read_record(Parameters, parse_object(text or "{}"))
    except ValueError as error:
        raise InputError(f"the request's parameters: {error}") from error


def only_tensor(tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The one tensor of a request. Raises InputError when there are others."""
    if len(tensors) != 1:
        raise InputError(f"got {len(tensors)} tensors ({', '.join(sorted(tensors)) or 'none'}), expected one")
    return next(iter(tensors.values()))


def read_window(host: HostedEngine, tensors: Mapping[str, npt.NDArray[Any]], parameters: str) -> WindowRequest:
    """A request from its tensors by name and its parameters as JSON. Raises InputError."""
    window = only_tensor(tensors)
    if window.ndim != 4:
        raise InputError(f"got shape {window.shape}, expected (N, {host.engine.contract.frames}, H, W)")
    host.check_size(*window.shape[2:])
    return WindowRequest(window, read_parameters(parameters))


def answer(host: HostedEngine, requests: Sequence[WindowRequest]) -> list[npt.NDArray[Any] | DeployError]:
    """The sharp window of each request, or why there is none. Those that are alike are run as one batch.

    A batch that is refused is run again one by one, so that nobody pays for what came along.
    """
    answers: list[npt.NDArray[Any] | DeployError] = [BackendError("not run")] * len(requests)
    for numbers in _alike(requests):
        batch = [requests[number] for number in numbers]
        sharp = _run(host, batch)
        if isinstance(sharp, DeployError) and len(batch) > 1:
            for number, request in zip(numbers, batch):
                answers[number] = _run(host, [request])
        else:
            for number, part in zip(numbers, _split(sharp, batch)):
                answers[number] = part
    return [_mixed(request, sharp) for request, sharp in zip(requests, answers)]


def _mixed(request: WindowRequest, sharp: npt.NDArray[Any] | DeployError) -> npt.NDArray[Any] | DeployError:
    return sharp if isinstance(sharp, DeployError) else blend(request.window, sharp, request.parameters.strength)


def _alike(requests: Sequence[WindowRequest]) -> list[list[int]]:
    """Numbers of the requests that can be stacked."""
    groups: dict[Any, list[int]] = {}
    for number, request in enumerate(requests):
        told = request.parameters
        key = (request.window.dtype, request.window.shape[1:], told.bits, told.color_range)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _run(host: HostedEngine, batch: Sequence[WindowRequest]) -> npt.NDArray[Any] | DeployError:
    windows, told = [request.window for request in batch], batch[0].parameters
    try:
        return host.run(windows[0] if len(windows) == 1 else np.concatenate(windows), told.bits, told.color_range)
    except DeployError as error:
        return error
    except Exception as error:  # a bug must cost one request, not the server
        log.exception("a window of shape %s failed", windows[0].shape)
        return BackendError(f"the server failed ({type(error).__name__}: {error}): see its log")


def _split(sharp: npt.NDArray[Any] | DeployError, batch: Sequence[WindowRequest]) -> Sequence[npt.NDArray[Any] | DeployError]:
    if isinstance(sharp, DeployError):
        return [sharp] * len(batch)
    return np.split(sharp, np.cumsum([len(request.window) for request in batch])[:-1])
