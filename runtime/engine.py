"""`Engine`: a model file, ready to deblur windows of frames."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from runtime import backends
from runtime.backends.dlpack import is_device_array
from runtime.backends.runner import AHEAD, EngineElsewhere, Runner, WorksAhead, WorksOnDevice, checked
from runtime.bundle import open_bundle
from runtime.errors import BackendError, BusyError, InputError, ModelError
from runtime.fastest import PROMISED, open_fastest
from runtime.files.contract import Contract
from runtime.files.records import shortened
from runtime.life import FORKED, Life
from runtime.pixels import padding, sample_codes
from runtime.submissions import Finish, Submissions

UNIT_TOLERANCE = 0.5  # how far outside [0, 1] a float sample may be: limited-range foot-room and ringing, but not 0..255
CODE_TYPES = {"u8": np.uint8, "u16": np.uint16}
Observer = Callable[[int, float, bool], None]  # (frames, seconds, failed) of a call
_Finish = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]  # the runner's answer -> the engine's

log = logging.getLogger("videodeblur.engine")
log.addHandler(logging.NullHandler())

CODE_DEPTHS = {np.dtype(np.uint8): (8,), np.dtype(np.uint16): tuple(range(9, 17))}  # bits of a sample; the last if none are named


class Engine:
    """Runs a model on the best backend of this machine; a context manager.

    `path` is an ONNX file from `export/to_onnx.py`, a TensorRT engine from `export/to_engine.py`, a bundle (a folder) from
    `export/to_bundle.py`, or "grpc://HOST:PORT/MODEL" for a model on a Triton server, see docs/serving.md. `backend` is "auto",
    "openvino", "onnxruntime", "onnxruntime-cuda" or "tensorrt". `precision` "auto" takes the fastest arithmetic whose parity was
    measured at export and recorded in the file; "fp32" is exact; "bf16" forces bf16. `threads` limits the CPU cores, `device`
    picks the GPU. `reason` says in a sentence what was chosen and why.

    A bundle's members are tried in its order until one passes the bundle's own test; with `fallback` False the first must. With
    `fastest_at` (height, width in pixels) they are tested and timed, once on a machine and size, and the fastest of those is taken
    that lose at most `budget` dB of PSNR against the truth (0.0: fp32 alone; infinity: any). `trust` is a file with a public key:
    only a bundle that its owner signed is opened then, see docs/bundle.md.

    Raises ModelError for a broken, changed or foreign file, BackendError when nothing here can run it. Every method may be called
    from several threads, from callbacks, observers and signal handlers; windows are served one after the other. In a process that
    was forked since, BackendError: open one there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        device: int = 0,
        fallback: bool = True,
        fastest_at: tuple[int, int] | None = None,
        budget: float = PROMISED,
        trust: str | os.PathLike[str] | None = None,
    ) -> None:
        named = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(named, str) or not named:
            raise InputError(f"got {path!r:.80} for the model, expected a file's name: a str or a Path")
        self.path = Path(path)
        how = backends.How(backend, precision, threads, device, fallback)
        choice = _opened(str(path), how, None if trust is None else Path(trust), fastest_at, budget)
        self.file = choice.file or self.path  # of a bundle, the one that was chosen
        self.contract: Contract = choice.contract
        self._runner = choice.runner
        self.backend, self.precision = self._runner.name, self._runner.precision
        self.reason = f"{self.backend} {self.precision}: {choice.reason}"
        self._life = Life(self._runner)
        self._submissions = Submissions(AHEAD if isinstance(self._runner, WorksAhead) else 1)
        self._observers: list[Observer] = []

    def run(
        self,
        window: npt.NDArray[Any],
        bits: int | None = None,
        color_range: str | None = None,
        out: Any = None,
        stream: Any = None,
    ) -> npt.NDArray[Any]:
        """Deblurs one or more windows of consecutive luma frames.

        `window` is (N, F, H, W), F frames as `contract.frames` says (5), any H and W; the result is of the same shape and dtype: a
        new array, or `out`, a contiguous one that does not overlap the window. float32: BT.601 luma in [0, 1], not clipped on the
        way out. uint8 and uint16: sample codes of `bits` depth (8, and 9 to 16, default 16) in `color_range` "full" (default) or
        "limited", rounded and clipped on the way out.

        An array on the GPU (`__cuda_array_interface__` or DLPack) goes to a TensorRT engine as it is, in the engine's dtype and
        one of its shapes, and is not looked into. `out` is one there, too; the result is it, or a
        `runtime.backends.device_arrays.DeviceArray`, which those libraries take in turn. `stream`, the caller's, orders the work
        like any other on it, and nothing is waited for: what fails on the GPU is told by whatever waits for that stream. Without
        it the call returns when the result is there. The caller's CUDA context is current again afterwards; see docs/engines.md.
        Raises InputError when the window, `out` or `stream` does not fit, BackendError when the backend fails or yields NaN.
        """
        if is_device_array(window):
            sharp: npt.NDArray[Any] = self._begin_on_device(window, bits, color_range, out, stream)()
            return sharp
        with self._counting_refused():
            self._check(window, bits, out, stream)
        with _Watch(self._observers, window) as watch:
            return _delivered(self._life.serve(partial(self._sharpened, window, bits, color_range, watch)), out)

    def submit(
        self,
        window: npt.NDArray[Any],
        bits: int | None = None,
        color_range: str | None = None,
        out: Any = None,
        stream: Any = None,
    ) -> Future[npt.NDArray[Any]]:
        """`run` in the background: a future whose `result()` is the sharp window, or raises what `run` raises.

        Windows are served in the order in which they came, on most backends the next one prepared while one is computed; do not
        change one before its result is there. Blocks while four are unfinished, but not in a callback of one, which runs in the
        thread that is at work. With `stream` the result is there when the work is queued: what is queued on the stream after
        `result()` finds it. Raises BackendError when the engine is closed.
        """
        self._life.check()
        return self._submissions.submit(self._begin, window, bits, color_range, out, stream)

    def submit_nowait(
        self,
        window: npt.NDArray[Any],
        bits: int | None = None,
        color_range: str | None = None,
        out: Any = None,
        stream: Any = None,
    ) -> Future[npt.NDArray[Any]]:
        """`submit` that never blocks: raises BusyError while four are unfinished. In asyncio: `await wrap_future(...)` of it."""
        self._life.check()
        with self._counting_refused():
            return self._submissions.submit(self._begin, window, bits, color_range, out, stream, wait=False)

    def __reduce__(self) -> NoReturn:
        """Raises BackendError: what it holds is of this process."""
        raise BackendError("an engine cannot be sent to another process: send its path, and open one there")

    @property
    def unfinished(self) -> int:
        """Windows of `submit` that wait or are at work, 0 to 4."""
        return self._submissions.unfinished

    @property
    def state(self) -> str:
        """ "open", "at work", "failed" (the last window was; the next may be given), "closed" or "forked"."""
        return self._life.state

    def observe(self, observer: Observer) -> None:
        """Calls `observer(frames, seconds, failed)` after every window on the host, in the thread that ran it; see `Telemetry`.

        It may use the engine. What it raises is logged, and does not touch the result. One that has a method `refused()` is told of
        windows too that were not run, since they do not fit or, with `submit_nowait`, too many are unfinished.
        """
        self._observers.append(observer)

    @property
    def runner(self) -> Runner:
        """The backend behind it, for tools that measure it; it takes padded windows, in the model's own types, from one caller."""
        return self._runner

    def close(self) -> None:
        """Frees the backend; calling it again does nothing. Waits for the window at work; those after it fail with BackendError.

        In a signal handler that interrupted a window of this thread, that one ends first and those submitted fail.
        """
        if not self._life.interrupted and self._life.state != FORKED:
            self._submissions.close()
        self._life.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({str(self.path)!r}, {self.reason})"

    def _begin(self, window: Any, bits: int | None, color_range: str | None, out: Any, stream: Any) -> Finish:
        """Begins `run` for a window of `submit`."""
        if is_device_array(window):
            return self._begin_on_device(window, bits, color_range, out, stream)
        if not isinstance(self._runner, WorksAhead):
            sharp = self.run(window, bits, color_range, out, stream)
            return lambda: sharp
        with self._counting_refused():
            self._check(window, bits, out, stream)
        runner, watch = self._runner, _Watch(self._observers, window)

        def began() -> tuple[Any, _Finish]:
            given, finish = self._prepared(window, bits, color_range)
            return runner.submit(given), finish

        try:
            ticket, finish = self._life.serve(began)
        except BaseException:
            with watch:
                raise

        def ended() -> npt.NDArray[Any]:
            with watch:
                return _delivered(finish(self._life.serve(lambda: runner.result(ticket))), out)

        return ended

    @contextmanager
    def _counting_refused(self) -> Iterator[None]:
        try:
            yield
        except (InputError, BusyError):
            for observer in tuple(self._observers):
                with _logged():
                    getattr(observer, "refused", int)()
            raise

    def _sharpened(self, window: npt.NDArray[Any], bits: int | None, color_range: str | None, watch: _Watch) -> npt.NDArray[Any]:
        watch.start()
        if isinstance(self._runner, EngineElsewhere):
            return self._runner.run_window(window, bits, color_range)
        given, finish = self._prepared(window, bits, color_range)
        return finish(self._runner.run(given))

    def _begin_on_device(self, window: Any, bits: int | None, color_range: str | None, out: Any, stream: Any) -> Finish:
        runner, contract = self._runner, self.contract
        if not isinstance(runner, WorksOnDevice):
            raise InputError(f"got an array on the GPU, {self.backend} takes numpy arrays: open a TensorRT engine, or copy it")
        for name, got, built in (("bits", bits, contract.bits), ("color_range", color_range, contract.color_range)):
            if got not in (None, built):
                raise InputError(
                    f"got {name}={got!r} for an array on the GPU, which holds what the engine takes ({built}): leave it out"
                )
        ticket = self._life.serve(lambda: runner.submit_on_device(window, out, stream))
        return lambda: self._life.serve(lambda: runner.result_on_device(ticket))

    def _prepared(self, window: npt.NDArray[Any], bits: int | None, color_range: str | None) -> tuple[npt.NDArray[Any], _Finish]:
        """What the runner gets for a window, and what turns its answer into ours."""
        given, finish = self._converted(window, bits, color_range)
        return given, lambda sharp: finish(checked(sharp, given))

    def _converted(self, window: npt.NDArray[Any], bits: int | None, color_range: str | None) -> tuple[npt.NDArray[Any], _Finish]:
        if self.contract.io != "f32":
            return self._prepared_codes(window, bits, color_range)
        if window.dtype == np.float32:
            return self._prepared_unit(window)
        depth, meaning = bits or CODE_DEPTHS[window.dtype][-1], color_range or "full"
        padded, finish = self._prepared_unit(sample_codes.to_unit(window, depth, meaning))
        return padded, lambda sharp: sample_codes.from_unit(finish(sharp), depth, meaning)

    def _prepared_unit(self, window: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], _Finish]:
        height, width = window.shape[-2:]
        padded = padding.pad(window, self.contract.multiple)
        self._check_fixed(padded.shape)

        def finish(sharp: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if not np.isfinite(np.sum(sharp)):
                raise BackendError(f"{self.backend} {self.precision} produced NaN or infinite samples: use precision='fp32'")
            return np.ascontiguousarray(padding.crop(sharp, height, width))

        return padded, finish

    def _prepared_codes(
        self, window: npt.NDArray[Any], bits: int | None, color_range: str | None
    ) -> tuple[npt.NDArray[Any], _Finish]:
        contract = self.contract
        asked = (window.dtype, bits or contract.bits, color_range or contract.color_range)
        built = (np.dtype(CODE_TYPES[contract.io]), contract.bits, contract.color_range)
        if asked != built:
            words = ["{} codes of {} bits in {} range".format(*meaning) for meaning in (asked, built)]
            raise InputError(
                f"got {words[0]}, this model takes {words[1]}: export one with --io, --bits, --range, or with --io f32"
            )
        if min(window.shape[2:]) < (least := padding.SMALLEST_CODES):
            raise InputError(f"got {window.shape}, a model of codes takes {least} or more pixels each way: use --io f32")
        self._check_fixed(window.shape)
        if contract.io == "u8":
            return window, lambda sharp: sharp
        return sample_codes.to_pairs(window), sample_codes.from_pairs

    def _check(self, window: npt.NDArray[Any], bits: int | None, out: Any, stream: Any) -> None:
        frames = self.contract.frames
        if stream is not None:
            raise InputError("got a stream for a window that is not on a GPU, which has none: leave it out")
        if not isinstance(window, np.ndarray):
            raise InputError(f"got {type(window).__name__}, expected a numpy array (N, {frames}, H, W)")
        if isinstance(window, np.ma.MaskedArray):
            raise InputError("got a masked array, expected a plain one: fill it first")
        if window.ndim != 4 or window.shape[1] != frames or 0 in window.shape:
            remedy = "add the batch axis with window[None]" if window.ndim == 3 else "stack consecutive luma frames"
            raise InputError(f"got shape {window.shape}, expected (N, {frames}, H, W): {remedy}")
        if window.dtype != np.float32 and window.dtype not in CODE_DEPTHS:
            raise InputError(f"got {window.dtype}, expected float32 in [0, 1], uint8 or uint16: convert it with .astype")
        if bits is not None and window.dtype in CODE_DEPTHS and bits not in CODE_DEPTHS[window.dtype]:
            raise InputError(f"got {window.dtype} codes of {bits} bits, expected 8 in uint8, 9 to 16 in uint16: convert the array")
        if window.dtype == np.float32:
            low, high = float(window.min()), float(window.max())
            if np.isnan(low) or np.isnan(high):
                raise InputError("got NaN in the window, expected luma in [0, 1]: look at what decoded these frames")
            if low < -UNIT_TOLERANCE or high > 1 + UNIT_TOLERANCE:
                raise InputError(f"got float samples from {low:.4g} to {high:.4g}, expected luma in [0, 1]: divide codes by 255")
        depth = bits or self.contract.bits
        if window.dtype == np.uint16 and depth and (highest := int(window.max())) >= 1 << depth:
            raise InputError(
                f"got codes up to {highest}, expected {(1 << depth) - 1} at most in {depth} bits: name their depth in bits, or"
                f" shift codes that begin at the highest bit (P010, P016) right by {16 - depth}"
            )
        if out is not None:
            _check_out(out, window)

    def _check_fixed(self, shape: tuple[int, ...]) -> None:
        fixed = (self.contract.batch, self.contract.height, self.contract.width)
        for name, got, expected in zip(("N", "H", "W"), (shape[0], *shape[2:4]), fixed):
            if expected is not None and got != expected:
                raise InputError(
                    f"got {name} = {got} (padded), this model is fixed at {expected}: make one for this size, or for any"
                )


def _opened(path: str, how: backends.How, trust: Path | None, fastest_at: tuple[int, int] | None, budget: float) -> backends.Choice:
    try:
        if fastest_at is not None:
            return open_fastest(Path(path), how, fastest_at, budget, trust)
        if trust is not None and not Path(path).is_dir():
            raise InputError(f"{shortened(path, 200)} is no bundle, and only bundles are signed: make one, or leave out trust")
        if "://" in path:
            return backends.open_served(path, how)
        return open_bundle(Path(path), how, trust) if Path(path).is_dir() else backends.open_model(Path(path), how)
    except OSError as error:  # a name that is too long, a file that may not be read
        raise ModelError(f"{shortened(path, 200)}: {error.strerror or error}: name a file that can be read") from error
    except MemoryError as error:
        raise BackendError(f"there is not enough memory to open {path}: free some, or raise this process's limit") from error


def _check_out(out: Any, window: npt.NDArray[Any]) -> None:
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise InputError(
            f"got {type(out).__name__} for the output, expected a plain numpy array, as the window is: give one, or none"
        )
    if (out.shape, out.dtype) != (window.shape, window.dtype):
        wanted = f"{window.shape} {window.dtype}, as the window is"
        raise InputError(f"got an output of {out.shape} {out.dtype}, expected {wanted}: give such a one, or none")
    if not out.flags.writeable or not out.flags.c_contiguous:
        kind = "with gaps or turned axes" if out.flags.writeable else "that is read-only"
        raise InputError(f"got an output {kind}, expected a contiguous one that can be written: give a new one, or none")
    if np.may_share_memory(out, window):
        raise InputError("got an output that overlaps the window: give memory of its own, or none")


def _delivered(sharp: npt.NDArray[Any], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if out is None:
        return sharp
    np.copyto(out, sharp)
    return out


@contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception("an observer of windows failed; the window is not touched by that")


class _Watch:
    """Times a window, and tells the observers when the `with` block ends; enter it outside the engine's turn."""

    def __init__(self, observers: Sequence[Observer], window: npt.NDArray[Any]) -> None:
        self._observers, self._frames = observers, window.shape[0] * window.shape[1]
        self.start()

    def start(self) -> None:
        """Leaves out what was waited for before."""
        self._started = time.perf_counter()

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._started
        for observer in tuple(self._observers):
            with _logged():
                observer(self._frames, seconds, kind is not None)
