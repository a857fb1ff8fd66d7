"""`StreamDeblurrer`: frames in one by one, exactly as many sharp frames out, in order."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from operator import index
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from runtime.errors import BackendError, InputError
from runtime.files.contract import Contract
from runtime.pixels.strength import Strength, blend, checked_strength

Frame = npt.NDArray[Any]
Method = TypeVar("Method", bound=Callable[..., Any])


def _in_turn(method: Method) -> Method:
    @functools.wraps(method)
    def served(self: StreamDeblurrer, *arguments: Any, **named: Any) -> Any:
        with self._turn:
            return method(self, *arguments, **named)

    return cast("Method", served)


class RunsWindows(Protocol):
    """An `Engine`, or a `TiledEngine`."""

    contract: Contract

    def run(self, window: Frame, bits: int | None = None, color_range: str | None = None) -> Frame:
        """See `Engine.run`."""
        ...

    def submit(self, window: Frame, bits: int | None = None, color_range: str | None = None) -> Future[Frame]:
        """See `Engine.submit`; called only with `ahead`."""
        ...


class StreamDeblurrer:
    """Cuts a stream of frames into windows for an `Engine`.

    Windows start every `stride` frames, 1 to F (F = the model's window, 5). With stride F each frame is in one window; below it
    windows overlap and a frame is the mean of all its estimates. After the last frame the stream is continued by mirroring it in
    time, so a clip of any length, even one frame, is served.

    Latency: a frame is returned by the `push` that completes the last window holding it, at most F - 1 pushes after its own, or by
    `flush`. With `delay`, 0 to F - 1, it is at most so many pushes: windows end every `delay` + 1 frames and a frame is what the
    first window with it makes of it, without a mean. A stream's first windows are filled up by mirroring what there is. Windows
    cost the less the longer the delay; F - 1 is the same as no delay and no stride.

    `strength` keeps a part of what the network changes: `blend` of 0 (the very arrays that were pushed) to 1, or (H, W) of
    them, a mask. Memory: at most F frames and their estimates. `bits` and `color_range` are those of `Engine.run`.

    With `ahead` above 0 so many windows may be at work in the background when `push` returns: the caller prepares the next frames
    meanwhile, each frame comes `ahead` windows later, and so many more windows are held.

    A window that fails ends the stream: its error is raised, every call after it raises BackendError until `flush`, which then
    returns nothing. So no frame ever comes in another's place.

    A stream is one caller's. Calls from several threads are served one after the other, in whatever order they come.
    """

    def __init__(
        self,
        engine: RunsWindows,
        stride: int | None = None,
        bits: int | None = None,
        color_range: str | None = None,
        ahead: int = 0,
        strength: Strength = 1.0,
        delay: int | None = None,
    ) -> None:
        self._engine, self._size = engine, engine.contract.frames
        self._stride = self._size if stride is None else _whole(stride)
        if not 1 <= self._stride <= self._size:
            raise InputError(f"stride is {stride!r}, expected 1 to {self._size} (the frames of a window)")
        if delay is not None:
            if stride is not None:
                raise InputError(
                    f"got a stride of {stride} and a delay of {delay} frames, expected one: the delay has its own stride"
                )
            if not 0 <= _whole(delay) < self._size:
                raise InputError(f"delay is {delay!r}, expected 0 to {self._size - 1} frames (one less than a window has)")
            self._stride = _whole(delay) + 1
        self._early = self._size - self._stride if delay is not None else 0  # frames of a window that the one before returned
        self._strength = checked_strength(strength)
        self._bits, self._color_range, self._ahead = bits, color_range, _whole(ahead)
        if self._ahead < 0:
            raise InputError(f"ahead is {ahead!r}, expected 0 or more, a whole number of windows")
        self._turn = threading.RLock()
        self._reset()

    @_in_turn
    def push(self, frame: Frame) -> list[Frame]:
        """(H, W) luma, all of one shape and dtype -> the sharp frames that became final, oldest first, maybe none.

        Whatever numpy can look at is a frame: an array, a torch tensor on the host. It is copied only into the window that the
        backend sees; do not change it until it has been returned.
        """
        self._check_whole()
        frame = _as_array(frame)
        if isinstance(self._strength, np.ndarray) and frame.shape != self._strength.shape:
            raise InputError(f"got a frame {frame.shape} and a mask {self._strength.shape}, expected a mask of the frames' size")
        if self._recent and (frame.shape != self._recent[-1].shape or frame.dtype != self._recent[-1].dtype):
            was = self._recent[-1]
            raise InputError(
                f"got a frame {frame.shape} {frame.dtype} after {was.shape} {was.dtype}: flush, then start a new stream"
            )
        self._recent.append(frame)
        self._blurry.append(frame)
        self._pushed += 1
        return self._run_window() if self._pushed == self._start + self._size else []

    @_in_turn
    def precede(self, frames: Sequence[Frame]) -> None:
        """Begins where another stream stopped between two windows; call it before the first `push`.

        `frames` are the last F before the first, in order, sharp already: a window at the end of the stream may mirror into them.
        Nothing is done when windows overlap, since there is no such place then.
        """
        self._check_whole()
        if self._stride == self._size:
            self._reset()
            self._recent.extend(_as_array(frame) for frame in frames)
            self._pushed = self._returned = self._start = self._covered = len(self._recent)

    @property
    def between_windows(self) -> bool:
        """Whether every frame pushed is in a window at work or done, and the next begins a window: where a stream may be cut."""
        return self._start == self._pushed and self._stride == self._size

    @_in_turn
    def drain(self) -> list[Frame]:
        """Waits for the windows at work: the sharp frames that became final."""
        self._check_whole()
        ready: list[Frame] = []
        with self._failing_for_good():
            while self._at_work:
                ready += self._finish_window()
        return ready

    @_in_turn
    def flush(self) -> list[Frame]:
        """The rest of the stream's sharp frames; afterwards, failed or not, the deblurrer is ready for another stream.

        After a window that failed there is no rest. A window that fails here is raised, and the frames left are lost with it.
        """
        ready: list[Frame] = []
        try:
            while self._covered < self._pushed and self._failure is None:
                ready += self._run_window()
            if self._failure is None:
                ready += self.drain()
                ready += self._final(len(self._estimates))
        finally:
            self._reset()
        return ready

    def _reset(self) -> None:
        self._recent: deque[Frame] = deque(maxlen=self._size)
        self._estimates: deque[list[Frame]] = deque()  # of the frames from number _returned on
        self._blurry: deque[Frame] = deque()  # the same frames as they came
        self._pushed = self._returned = 0
        self._start = -self._early  # the next window begins at this frame
        self._covered = 0  # frames that are in a window
        self._at_work: deque[tuple[range, Callable[[], Frame]]] = deque()  # the frames of a window, and what waits for them
        self._failure: BaseException | None = None  # why the stream has a hole

    def _check_whole(self) -> None:
        if self._failure is not None:
            reason = str(self._failure) or type(self._failure).__name__
            raise BackendError(f"a window of this stream failed ({reason}): flush, then start a new stream") from self._failure

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # an interruption leaves a hole, too
            self._failure = error
            self._at_work.clear()
            raise

    def _run_window(self) -> list[Frame]:
        with self._failing_for_good():
            return self._next_window()

    def _next_window(self) -> list[Frame]:
        oldest = self._pushed - len(self._recent)
        numbers = range(self._start, self._start + self._size)
        window = np.stack([self._recent[mirrored(number, self._pushed) - oldest] for number in numbers])[None]
        if self._ahead:
            self._at_work.append((numbers, self._engine.submit(window, self._bits, self._color_range).result))
        else:
            sharp = self._engine.run(window, self._bits, self._color_range)
            self._at_work.append((numbers, lambda: sharp))
        self._start += self._stride
        self._covered = numbers.stop
        return self._finish_window() if len(self._at_work) > self._ahead else []

    def _finish_window(self) -> list[Frame]:
        numbers, wait = self._at_work.popleft()
        for number, sharp in zip(numbers, wait()[0]):
            if self._returned <= number < self._pushed:
                self._add(number - self._returned, sharp)
        return self._final(min(numbers.start + self._early + self._stride, self._pushed) - self._returned)

    def _final(self, count: int) -> list[Frame]:
        """The oldest frames, which nothing changes any more."""
        self._returned += count
        return [blend(self._blurry.popleft(), mean(self._estimates.popleft()), self._strength) for _ in range(count)]

    def _add(self, position: int, sharp: Frame) -> None:
        if position == len(self._estimates):
            self._estimates.append([])
        self._estimates[position].append(sharp)


def _whole(number: Any) -> int:
    """-1 where it is no whole number."""
    try:
        return -1 if isinstance(number, bool) else index(number)
    except TypeError:
        return -1


def _as_array(frame: Any) -> Frame:
    if isinstance(frame, np.ma.MaskedArray):  # its mask would be dropped
        raise InputError("got a masked array, expected a plain one: fill it first")
    try:
        array = np.asarray(frame)
    except TypeError as error:  # on a GPU
        raise InputError(f"got {type(frame).__name__} ({error}), expected a frame in host memory: copy it there first") from error
    if array.ndim != 2:
        kind = "" if isinstance(frame, np.ndarray) else f" ({type(frame).__name__})"
        raise InputError(f"got a frame{kind} of shape {array.shape}, expected (H, W) luma: take one plane")
    return array.astype(array.dtype.newbyteorder("="), copy=False)  # raw files and PGM have the other order


def mirrored(number: int, count: int) -> int:
    """The frame that stands for `number` in a stream of `count` frames continued by reflection: 0 1 2 1 0 1 2 ..."""
    period = max(2 * (count - 1), 1)
    number %= period
    return min(number, period - number) if count > 1 else 0


def mean(estimates: list[Frame]) -> Frame:
    """The mean of a frame's estimates, (H, W) each; codes are rounded, half to even."""
    if len(estimates) == 1:
        return estimates[0]
    average = np.asarray(np.mean(estimates, axis=0, dtype=np.float32))
    return np.rint(average).astype(estimates[0].dtype) if estimates[0].dtype.kind == "u" else average
