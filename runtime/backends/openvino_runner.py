"""Runs ONNX files with OpenVINO on the CPU, in an arithmetic that the caller names: OpenVINO would choose bf16 by itself."""

from __future__ import annotations

import functools
import io
import logging
import math
import os
from collections import OrderedDict
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends.failures import failures_of, is_callers
from runtime.errors import BackendError, ModelError
from runtime.files.compiled_files import CompiledFiles
from runtime.files.contract import INPUT, OUTPUT
from runtime.machine.background import begin
from runtime.machine.forks import never_free_in_a_fork
from runtime.machine.hardware import computing_here
from runtime.machine.no_telemetry import without_openvino_telemetry

with without_openvino_telemetry():
    import openvino

DEVICE, PACKAGE = "CPU", "openvino"
COMPILED_SHAPES = 4  # compiled models kept whatever their size; a video needs one, a service of mixed sizes a few
MOST_SHAPES, MOST_SAMPLES = 32, 5 << 20  # kept as long as they have so many samples together: some 1 GB of buffers, as 720p has
HINTS = {"fp32": "f32", "bf16": "bf16"}

log = logging.getLogger("videodeblur.openvino")
log.addHandler(logging.NullHandler())


@functools.cache
def core() -> openvino.Core:
    """One for the process, never freed. Each loads the CPU plugin, which puts the thread's signal handlers on a stack of its own;
    where two are freed in the order in which they were made, 2026.4 leaves the thread with a stack that is gone, and the next
    SIGTERM or Ctrl-C is a segmentation fault."""
    made = openvino.Core()
    never_free_in_a_fork(made)
    return made


if hasattr(os, "register_at_fork"):  # a child makes its own
    os.register_at_fork(after_in_child=core.cache_clear)


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AMX or AVX512-BF16)."""
    return "BF16" in core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def settings(precision: str, threads: int | None = None) -> dict[str, str]:
    """What a model is compiled with. Raises BackendError for a precision that there is none of here."""
    if precision not in HINTS:
        raise BackendError(f"precision is {precision!r}, OpenVINO on a CPU offers {' and '.join(HINTS)}")
    if precision == "bf16" and not native_bf16():
        raise BackendError("this CPU has no bf16 arithmetic (AMX or AVX512-BF16): use precision='fp32'")
    found = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        found["INFERENCE_NUM_THREADS"] = str(threads)
        found["ENABLE_CPU_PINNING"] = "NO"  # every process pins to the first cores: two would share them
    return found


def describe() -> dict[str, Any]:
    """OpenVINO's version and devices, for `videodeblur doctor`."""
    return {"version": openvino.__version__, "devices": core().available_devices, "bf16": native_bf16()}


@dataclass(frozen=True)
class Ticket:
    """A submitted window, to be exchanged for its result once."""

    shape: tuple[int, ...]
    request: openvino.InferRequest
    given: npt.NDArray[Any]  # read until the result is there


class _Closed:
    """Whether a model was closed: its threads end then, and a child of a fork that compiles one waits for them."""

    here = before_a_fork = False

    @classmethod
    def forked(cls) -> None:
        """In the child."""
        cls.before_a_fork = cls.here


if hasattr(os, "register_at_fork"):  # where processes are forked at all
    os.register_at_fork(after_in_child=_Closed.forked)


class OpenVinoRunner:
    """A `Runner` that compiles the model once per shape, since fixed shapes run faster.

    `precision` is "fp32" or "bf16", the arithmetic of everything the graph does not quantise; `threads` the number of cores it
    may use, all when None; `data` the bytes of the file where it was read already. A file that is `known`, since an earlier process
    ran it, is not looked at before there is something to compile.
    """

    name = "openvino"

    def __init__(
        self, path: Path, precision: str, threads: int | None = None, data: bytes | None = None, known: bool = False
    ) -> None:
        self.precision = precision
        if _Closed.before_a_fork:
            raise BackendError(
                "the process that this one was forked from has closed a model of OpenVINO, so that one here would wait for ever:"
                " start processes with spawn, or open and close none before the fork, or take backend='onnxruntime'"
            )
        self._properties = settings(precision, threads)
        self._core = core()
        self._path, self._data, self._closed = path, data, False
        self._kept: CompiledFiles | None = None
        self._loading: dict[tuple[int, ...], Future[openvino.CompiledModel | None]] = {}  # what was kept, by shape
        self._model: openvino.Model | None = None if known else self._read()
        self._compiled: OrderedDict[tuple[int, ...], openvino.CompiledModel] = OrderedDict()
        self._free: dict[tuple[int, ...], list[openvino.InferRequest]] = {}  # requests that nobody waits for, by shape

    def run(self, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runner.run`. The first call with a shape compiles the model for it."""
        return self.result(self.submit(blurry))

    def submit(self, blurry: npt.NDArray[Any]) -> Ticket:
        """See `WorksAhead.submit`. The window must not change before its result is there."""
        shape = blurry.shape
        compiled = self.compiled(shape)
        free = self._free.setdefault(shape, [])
        request = free.pop() if free else compiled.create_infer_request()
        given = np.require(blurry, requirements=["C", "A", "W"])  # a copy of what lies in a read-only buffer
        with failures_of(PACKAGE, f"OpenVINO failed on shape {shape}"):
            request.start_async({INPUT: openvino.Tensor(given, shared_memory=True)})
        return Ticket(shape, request, given)

    def result(self, ticket: Ticket) -> npt.NDArray[Any]:
        """See `WorksAhead.result`."""
        with failures_of(PACKAGE, f"OpenVINO failed on shape {ticket.shape}"):
            ticket.request.wait()
            sharp = np.array(ticket.request.get_tensor(OUTPUT).data)
        if ticket.shape in self._free:
            self._free[ticket.shape].append(ticket.request)
        return sharp

    def compiled(self, shape: tuple[int, ...]) -> openvino.CompiledModel:
        """The compiled model for an input shape; tools read its runtime graph and its profile."""
        if self._closed:
            raise BackendError("the runner is closed")
        if shape not in self._compiled:
            self._compiled[shape] = self._kept_model(shape) or self._compile_and_keep(shape)
        self._compiled.move_to_end(shape)
        while self._too_many():
            self._free.pop(self._compiled.popitem(last=False)[0], None)
        return self._compiled[shape]

    def keep_compiled(self, sha256: str, soon: tuple[int, ...] | None = None) -> None:
        """See `KeepsCompiled.keep_compiled`."""
        self._kept = CompiledFiles([sha256, openvino.__version__, *computing_here(), self._properties])
        for shape, compiled in self._compiled.items():
            self._keep(shape, compiled)
        if soon and soon not in self._compiled:
            self._loading[soon] = begin("videodeblur-openvino", self._loaded, self._kept, soon)

    def close(self) -> None:
        """Frees the model and everything compiled from it."""
        _Closed.here = True
        wait(self._loading.values())
        self._loading.clear()
        self._model, self._data, self._closed = None, None, True
        self._compiled.clear()
        self._free.clear()

    def _too_many(self) -> bool:
        count, samples = len(self._compiled), sum(math.prod(shape) for shape in self._compiled)
        return count > COMPILED_SHAPES and (count > MOST_SHAPES or samples > MOST_SAMPLES)

    def _kept_model(self, shape: tuple[int, ...]) -> openvino.CompiledModel | None:
        if shape in self._loading:
            return self._loading.pop(shape).result()
        return self._loaded(self._kept, shape) if self._kept else None

    def _loaded(self, kept: CompiledFiles, shape: tuple[int, ...]) -> openvino.CompiledModel | None:
        if data := kept.load(shape):
            try:
                return self._core.import_model(io.BytesIO(data), DEVICE, self._properties)
            except RuntimeError as error:  # it is compiled anew
                if is_callers(error, PACKAGE):
                    raise
                log.warning("OpenVINO %s cannot load what it compiled before: %s", openvino.__version__, error)
        return None

    def _read(self) -> openvino.Model:
        with failures_of(PACKAGE, f"OpenVINO {openvino.__version__} cannot load {self._path}", ModelError):
            model = self._core.read_model(self._path if self._data is None else self._data)
        self._data = None
        return model

    def _compile_and_keep(self, shape: tuple[int, ...]) -> openvino.CompiledModel:
        self._model = self._model or self._read()
        compiled = self._compile(self._model.clone(), shape)
        self._keep(shape, compiled)
        return compiled

    def _keep(self, shape: tuple[int, ...], compiled: openvino.CompiledModel) -> None:
        if self._kept:
            self._kept.save(shape, compiled.export_model().getvalue())

    def _compile(self, model: openvino.Model, shape: tuple[int, ...]) -> openvino.CompiledModel:
        with failures_of(PACKAGE, f"OpenVINO cannot compile the model for shape {shape}"):
            if model.is_dynamic():
                model.reshape({INPUT: list(shape)})
            return self._core.compile_model(model, DEVICE, self._properties)
