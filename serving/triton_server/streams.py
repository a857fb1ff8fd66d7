"""Streams of frames as they come to a model server, several at a time: a `StreamDeblurrer` each, all on one engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from runtime.engine import UNIT_TOLERANCE
from runtime.errors import InputError
from runtime.streaming import StreamDeblurrer
from serving.triton_server.host import HostedEngine
from serving.triton_server.requests import Parameters

Key = Union[int, str]  # Triton's correlation id
Frame = npt.NDArray[Any]


@dataclass
class _Stream:
    deblurrer: StreamDeblurrer
    used: float  # when its last frame came, seconds


class Streams:
    """The streams that are open. Not thread-safe: Triton calls a model.py from one thread."""

    def __init__(self, host: HostedEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._host, self._clock = host, clock
        self._streams: dict[Key, _Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def take(self, key: Key, frame: Frame | None, parameters: Parameters, start: bool, end: bool) -> list[Frame]:
        """The frames of stream `key` that became final with this one, oldest first; at its end, all that are left.

        `parameters` count at the start. The end may come with the last frame, or alone. Raises InputError when the frame cannot
        be one: it is left out, and the stream goes on. Any other error ends the stream.
        """
        self._forget_idle()
        if start:
            self._streams.pop(key, None)  # also when the new one is refused
            self._streams[key] = _Stream(self._deblurrer(parameters), self._clock())
        stream = self._streams.get(key)
        if stream is None:
            raise InputError(f"there is no stream {key}: it failed, ended, or was idle; start it again")
        stream.used = self._clock()
        try:
            if frame is not None:
                self._check(frame)
            elif not end:
                raise InputError("got no frame, expected one, or the end of the stream")
            return self._advance(key, stream.deblurrer, frame, end)
        finally:
            if end:
                self._streams.pop(key, None)

    def _advance(self, key: Key, deblurrer: StreamDeblurrer, frame: Frame | None, end: bool) -> list[Frame]:
        try:
            ready = [] if frame is None else deblurrer.push(frame)
            return ready + deblurrer.flush() if end else ready
        except BaseException:  # frames are missing in the middle now
            self._streams.pop(key, None)
            raise

    def _deblurrer(self, parameters: Parameters) -> StreamDeblurrer:
        return StreamDeblurrer(
            _Windows(self._host),
            parameters.stride,
            parameters.bits,
            parameters.color_range,
            strength=parameters.strength,
            delay=parameters.delay,
        )

    def _check(self, frame: Frame) -> None:
        if frame.ndim != 2:
            raise InputError(f"got a frame of shape {frame.shape}, expected (H, W) luma")
        self._host.check_size(*frame.shape)
        if frame.dtype == np.float32 and not np.all(np.abs(frame - 0.5) <= 0.5 + UNIT_TOLERANCE):  # NaN too
            raise InputError("got samples outside [0, 1], or NaN, expected luma in [0, 1]: divide codes by 255")

    def _forget_idle(self) -> None:
        oldest = self._clock() - self._host.hosting.idle
        self._streams = {key: stream for key, stream in self._streams.items() if stream.used >= oldest}


class _Windows:
    """What a StreamDeblurrer needs of an engine."""

    def __init__(self, host: HostedEngine) -> None:
        self.contract, self.run, self.submit = host.engine.contract, host.run, host.engine.submit
