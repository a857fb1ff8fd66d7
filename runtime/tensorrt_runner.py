"""Runs TensorRT engines (full TensorRT 8.6 to 11, TensorRT-RTX, the lean runtime) and keeps the GPU busy.

Copy in, compute and copy out have a stream each, and windows take turns in a ring of buffers, so that the three overlap when a
caller submits the next window before it asks for the result of the last.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.contract import INPUT, OUTPUT
from runtime.default_model import cache_folder
from runtime.device_memory import (
    MIB,
    DeviceArray,
    DeviceBuffer,
    Event,
    Graph,
    PinnedArray,
    Stream,
    free_memory,
    is_device_array,
    open_gpu,
    use_gpu,
)
from runtime.errors import BackendError, DeployError, InputError, MissingPackageError, ModelError
from runtime.plan import Plan, load_plan
from runtime.tensorrt_library import Library, load_library

RING = 2  # windows in flight: one computes while the other is copied
SHAPES = 2  # input shapes whose buffers are kept
POISON = 0xFF  # byte that no result consists of: NaN in floats, white in codes

log = logging.getLogger("videodeblur.tensorrt")


@dataclass(frozen=True)
class Ticket:
    """A submitted window, to be exchanged for its result once."""

    shape: tuple[int, ...]
    slot: int


class TensorRtRunner:
    """A `Runner` on one GPU. `precision` is the plan's. One caller at a time; open a runner for each thread.

    `cuda_graph` records the work of each shape once and launches it with one call; the first window of a shape is computed both
    ways, and where they differ the runner goes on without graphs and says so in the log. `cache` is the file of TensorRT-RTX's
    compiled kernels, by default one for the engine in the user's cache.
    Raises BackendError when there is no GPU, no driver, or the engine is for another library, version or GPU; ModelError when
    the file is damaged. All of that is checked before the library sees the file.
    """

    name = "tensorrt"

    def __init__(self, path: Path, device: int = 0, cuda_graph: bool = True, cache: Path | None = None) -> None:
        self.plan: Plan = load_plan(path)
        self.precision = self.plan.precision
        self.gpu = open_gpu(device)
        self._library = _library_for(self.plan)
        self.plan.check_machine(self._library.name, self._library.version, self.gpu.compute_capability)
        self._loaded: _LoadedEngine | None = _LoadedEngine(self._library, path, self.plan)
        self._kernels = _kernel_cache(self._loaded, cache or _cache_path(self.plan, self.gpu.name))
        self._records = cuda_graph and self._kernels is None  # TensorRT-RTX records by itself
        self._cuda_graph = cuda_graph
        self._contexts: dict[int, Any] = {}  # by number of the profile
        self._rings: OrderedDict[tuple[int, ...], _Ring] = OrderedDict()
        with ExitStack() as streams:
            self._copy_in, self._compute, self._copy_out = (streams.enter_context(closing(Stream())) for _ in range(3))
            self._streams = streams.pop_all()

    def run(self, blurry: Any) -> Any:
        """See `Runner.run`. An array on the GPU (see `DeviceArray.of`) is neither copied nor moved, and yields a DeviceArray.

        Its memory is allocated by this call and freed with the result; the work is done when the call returns.
        """
        if is_device_array(blurry):
            return self._run_on_device(blurry)
        return self.result(self.submit(blurry))

    def submit(self, blurry: npt.NDArray[Any]) -> Ticket:
        """Queues a window, which may be changed as soon as this returns. At most `RING` may wait for `result`."""
        loaded = self._open()
        _check_dtype(blurry.dtype, loaded.dtype)
        slot = self._ring(blurry.shape).take()
        np.copyto(slot.host_in.array, blurry)
        self._prepare(slot)
        self._copy_in.copy_in(slot.device_in, slot.host_in.array)
        slot.arrived.record(self._copy_in)
        self._compute.wait_for(slot.arrived)
        self._launch(slot)
        slot.computed.record(self._compute)
        self._copy_out.wait_for(slot.computed)
        self._copy_out.copy_out(slot.host_out.array, slot.device_out)
        slot.returned.record(self._copy_out)
        slot.waiting = True
        return Ticket(blurry.shape, slot.number)

    def result(self, ticket: Ticket) -> npt.NDArray[Any]:
        """Waits for a submitted window and returns its sharp frames, a new array."""
        self._open()
        ring = self._rings.get(ticket.shape)
        if ring is None or not ring.slots[ticket.slot].waiting:
            raise BackendError("this window's result was already taken, or its buffers were freed: take results in order")
        slot = ring.slots[ticket.slot]
        slot.returned.synchronize()
        slot.waiting = False
        return np.array(slot.host_out.array)

    def layer_information(self) -> str:
        """The engine's layers as TensorRT's own JSON. Raises BackendError on the lean runtime, which cannot tell."""
        return self._open().layer_information()

    def close(self) -> None:
        """Waits for the GPU, then frees buffers, contexts and engine; calling it again does nothing."""
        if self._loaded is None:
            return
        use_gpu(self.gpu.index)
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._streams.close()
        if self._kernels is not None:
            self._kernels.save()
        self._contexts.clear()  # contexts before their engine
        self._kernels = self._loaded = None

    def _open(self) -> _LoadedEngine:
        """Makes the GPU current for the calling thread, whichever it is."""
        if self._loaded is None:
            raise BackendError("the runner is closed")
        use_gpu(self.gpu.index)
        return self._loaded

    def _ring(self, shape: tuple[int, ...]) -> _Ring:
        if shape not in self._rings:
            profile = self.plan.profile_of(shape)
            context = self._context(profile)
            if len(self._rings) == SHAPES:
                self._rings.popitem(last=False)[1].close()
            self._rings[shape] = _Ring(shape, self._open().dtype, context)
        self._rings.move_to_end(shape)
        return self._rings[shape]

    def _context(self, profile: int) -> Any:
        if profile not in self._contexts:
            self._contexts[profile] = _create_context(self._open(), self._kernels, self._cuda_graph)
            if profile and not self._contexts[profile].set_optimization_profile_async(profile, self._compute.handle):
                raise BackendError(f"TensorRT does not switch to profile {profile}: build an engine for this size alone")
            self._compute.synchronize()
        return self._contexts[profile]

    def _prepare(self, slot: _Slot) -> None:
        """The first window through a slot: computed plainly, then recorded, replayed into a poisoned buffer, and compared."""
        if slot.ready or not self._records:
            return
        slot.ready = True
        plain = self._compute_now(slot)
        try:
            slot.graph = Graph(self._compute, lambda: self._execute(slot.context, slot.shape))
            replayed = self._compute_now(slot)
        except DeployError as error:
            self._go_without_graphs(slot, str(error))
        else:
            if not np.array_equal(plain, replayed):
                self._go_without_graphs(slot, "its replay differs from the plain run")

    def _go_without_graphs(self, slot: _Slot, reason: str) -> None:
        log.warning("CUDA graphs are off for this engine, each window costs more launches: %s", reason)
        slot.drop_graph()
        self._records = False

    def _compute_now(self, slot: _Slot) -> npt.NDArray[Any]:
        self._compute.copy_in(slot.device_in, slot.host_in.array)
        self._compute.fill(slot.device_out, POISON)
        self._launch(slot)
        self._compute.copy_out(slot.host_out.array, slot.device_out)
        self._compute.synchronize()
        return np.array(slot.host_out.array)

    def _launch(self, slot: _Slot) -> None:
        if slot.graph is not None:
            slot.graph.launch(self._compute)
        else:
            self._bind(slot.context, slot.shape, slot.device_in.pointer, slot.device_out.pointer)
            self._execute(slot.context, slot.shape)

    def _bind(self, context: Any, shape: tuple[int, ...], source: int, target: int) -> None:
        with self._library.messages() as messages:
            bound = (
                context.set_input_shape(INPUT, shape)
                and context.set_tensor_address(INPUT, source)
                and context.set_tensor_address(OUTPUT, target)
            )
        if not bound:
            raise BackendError(f"TensorRT does not take shape {shape}: {messages.reason()}")

    def _execute(self, context: Any, shape: tuple[int, ...]) -> None:
        with self._library.messages() as messages:
            done = context.execute_async_v3(self._compute.handle)
        if not done:
            raise BackendError(f"TensorRT failed on shape {shape}: {messages.reason()}")

    def _run_on_device(self, array: Any) -> DeviceArray:
        loaded = self._open()
        blurry = DeviceArray.of(array)
        _check_dtype(blurry.dtype, loaded.dtype)
        context = self._context(self.plan.profile_of(blurry.shape))
        memory = DeviceBuffer(int(np.prod(blurry.shape)) * blurry.dtype.itemsize)
        self._bind(context, blurry.shape, blurry.pointer, memory.pointer)
        self._execute(context, blurry.shape)
        self._compute.synchronize()
        return DeviceArray(memory.pointer, blurry.shape, blurry.dtype, memory)


class _LoadedEngine:
    """A deserialised engine, checked to be what its record says, and everything that must live as long."""

    def __init__(self, library: Library, path: Path, plan: Plan) -> None:
        self.library, self.plan = library, plan
        self._runtime = library.module.Runtime(library.logger)
        self.engine = self._deserialize(path)
        self.dtype = np.dtype(np.float32 if plan.contract.io == "f32" else np.uint8)  # of both tensors
        self._check_tensors(path)

    @property
    def memory(self) -> int:
        """Bytes that a context needs beside the weights, for the largest shape."""
        engine = self.engine
        return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)

    def layer_information(self) -> str:
        """See `TensorRtRunner.layer_information`."""
        if not hasattr(self.library.module, "EngineInspector"):  # the lean runtime has the engine's method all the same
            raise BackendError(f"{self.library.name} cannot inspect engines: use full TensorRT")
        layout = self.library.module.LayerInformationFormat.JSON
        return str(self.engine.create_engine_inspector().get_engine_information(layout))

    def _deserialize(self, path: Path) -> Any:
        plan, runtime = path.read_bytes(), self._runtime
        with self.library.messages() as messages:
            if hasattr(runtime, "get_engine_validity"):
                self._check_validity(plan, path)
            if self.plan.version_compatible:
                runtime.engine_host_code_allowed = True  # the hash was checked: the file is the one that the record is of
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            name = f"{self.library.name} {self.library.version}"
            raise ModelError(f"{name} cannot load {path}: {messages.reason()}; build it again on this machine")
        return engine

    def _check_validity(self, plan: bytes, path: Path) -> None:
        """TensorRT-RTX tells from the header what runs here."""
        trt = self.library.module
        validity, mask = self._runtime.get_engine_validity(plan[: self._runtime.engine_header_size])
        names = [name for name, bit in trt.EngineInvalidityDiagnostics.__members__.items() if int(mask) & int(bit)]
        reason = ", ".join(names) or "no reason given"
        if validity == trt.EngineValidity.INVALID:
            raise BackendError(f"TensorRT-RTX says that {path} does not run on this GPU or release ({reason}): build it here")
        if validity != trt.EngineValidity.VALID:
            log.warning("TensorRT-RTX says that %s runs here, but not at its best (%s): build it on this machine", path, reason)

    def _check_tensors(self, path: Path) -> None:
        names = {self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)}
        if names != {INPUT, OUTPUT}:
            raise ModelError(
                f"{path} has tensors {sorted(names)}, expected {INPUT} and {OUTPUT}: build it from export/to_onnx.py's file"
            )
        for name in (INPUT, OUTPUT):
            found = np.dtype(self.library.module.nptype(self.engine.get_tensor_dtype(name)))
            if found != self.dtype:
                raise ModelError(f"{path} has {name} as {found}, its contract says {self.dtype}: build it again")


class _Slot:
    """The buffers of one window in flight; input and output have the same shape and dtype."""

    def __init__(self, number: int, shape: tuple[int, ...], dtype: np.dtype[Any], context: Any, owned: ExitStack) -> None:
        self.number, self.shape, self.context = number, shape, context
        self.host_in, self.host_out = (owned.enter_context(closing(PinnedArray(shape, dtype))) for _ in range(2))
        size = self.host_in.array.nbytes
        self.device_in, self.device_out = (owned.enter_context(closing(DeviceBuffer(size))) for _ in range(2))
        self.arrived, self.computed, self.returned = (owned.enter_context(closing(Event())) for _ in range(3))
        owned.callback(self.drop_graph)
        self.graph: Graph | None = None
        self.ready = self.waiting = False

    def drop_graph(self) -> None:
        if self.graph is not None:
            self.graph.close()
            self.graph = None


class _Ring:
    """`RING` slots for one input shape, taken in turn."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], context: Any) -> None:
        with ExitStack() as owned:
            self.slots = [_Slot(number, shape, dtype, context, owned) for number in range(RING)]
            self._owned = owned.pop_all()
        self._taken = 0

    def take(self) -> _Slot:
        slot = self.slots[self._taken % RING]
        if slot.waiting:
            raise BackendError(f"{RING} windows are in flight: take a result before submitting another")
        self._taken += 1
        return slot

    def close(self) -> None:
        for slot in self.slots:
            if slot.waiting:
                slot.returned.synchronize()
        self._owned.close()


class _KernelCache:
    """TensorRT-RTX's compiled kernels, kept from one process to the next."""

    def __init__(self, config: Any, path: Path) -> None:
        self.config, self._path = config, path
        self._cache = config.create_runtime_cache()
        if path.is_file() and not self._cache.deserialize(path.read_bytes()):
            log.info("the kernels in %s are of another environment and will be compiled anew", path)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Written whole, then renamed: of several processes, the last one's stays."""
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(memoryview(self._cache.serialize()))
            partial.replace(self._path)
        except OSError as error:
            log.warning("the compiled kernels could not be kept, the next start will compile again: %s", error)


def _library_for(plan: Plan) -> Library:
    """The library that built the engine; the lean runtime where that is missing and the engine allows it."""
    try:
        return load_library(plan.library)
    except MissingPackageError:
        if not plan.version_compatible:
            raise
        return load_library("tensorrt_lean")


def _cache_path(plan: Plan, gpu: str) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in gpu)
    return cache_folder() / "kernels" / f"{plan.sha256[:12]}-{plan.version}-{name}.cache"


def _kernel_cache(loaded: _LoadedEngine, path: Path) -> _KernelCache | None:
    """None where the library compiles when it builds, as full TensorRT does."""
    if not hasattr(loaded.library.module, "CudaGraphStrategy"):
        return None
    return _KernelCache(loaded.engine.create_runtime_config(), path)


def _create_context(loaded: _LoadedEngine, kernels: _KernelCache | None, cuda_graph: bool) -> Any:
    free = free_memory()
    if loaded.memory > free:
        raise BackendError(_too_large(loaded, free))
    with loaded.library.messages() as messages:
        if kernels is None:
            context = loaded.engine.create_execution_context()
        else:
            trt, config = loaded.library.module, kernels.config
            config.cuda_graph_strategy = getattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE" if cuda_graph else "DISABLED")
            # compiled when a shape is first met: a fall-back kernel first would change the picture in mid-video
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            context = loaded.engine.create_execution_context(config)
    if context is None:
        raise BackendError(f"{_too_large(loaded, free)}. {messages.reason()}")
    return context


def _too_large(loaded: _LoadedEngine, free: int) -> str:
    return (
        f"the engine needs {loaded.memory / MIB:.0f} MiB for its largest shape, {free / MIB:.0f} MiB are free on the GPU: "
        "build it for smaller frames, or free memory"
    )


def _check_dtype(got: np.dtype[Any], expected: np.dtype[Any]) -> None:
    if got != expected:
        raise InputError(f"got {got}, this engine takes {expected}: convert it with astype")
