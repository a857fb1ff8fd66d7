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
)
from runtime.errors import BackendError, DeployError, ModelError
from runtime.plan import Plan, load_plan
from runtime.tensorrt_library import Library, load_library

RING = 2  # windows in flight: one computes while the other is copied
SHAPES = 2  # input shapes whose buffers are kept

log = logging.getLogger("videodeblur.tensorrt")


@dataclass(frozen=True)
class Ticket:
    """A submitted window, to be exchanged for its result once."""

    shape: tuple[int, ...]
    slot: int


class TensorRtRunner:
    """A `Runner` on one GPU. `precision` is the contract's. One caller at a time; open a runner for each thread.

    `cuda_graph` records the work of each shape once and launches it with one call; the first window of a shape is computed both
    ways, and where they differ the runner goes on without graphs and says so in the log.
    Raises BackendError when there is no GPU, no driver, or the engine is for another library, version or GPU; ModelError when
    the file is damaged.
    """

    name = "tensorrt"

    def __init__(self, path: Path, device: int = 0, cuda_graph: bool = True, cache: Path | None = None) -> None:
        self.plan: Plan = load_plan(path)
        self.precision = self.plan.contract.precision
        self.gpu = open_gpu(device)
        library = load_library(self.plan.library)
        self.plan.check_machine(library.name, library.version, self.gpu.compute_capability)
        self._cuda_graph, self._rings = cuda_graph, OrderedDict[tuple[int, ...], _Ring]()
        self._engine = _deserialize(library, path, self.plan)
        _check_tensors(self._engine, library, path, self.plan)
        self._context, self._cache = _create_context(library, self._engine, cuda_graph, cache)
        self._captures = cuda_graph and not hasattr(library.module, "CudaGraphStrategy")  # RTX captures by itself
        self._open = ExitStack()
        self._streams = [self._open.enter_context(closing(Stream())) for _ in range(3)]

    def run(self, blurry: Any) -> Any:
        """See `Runner.run`. An array on the GPU (see `DeviceArray.of`) is neither copied nor moved, and yields a DeviceArray.

        Its memory is allocated by this call and freed with the result; the work is done when the call returns.
        """
        if is_device_array(blurry):
            return self._run_on_device(DeviceArray.of(blurry))
        return self.result(self.submit(blurry))

    def submit(self, blurry: npt.NDArray[Any]) -> Ticket:
        """Queues a window, which may be changed as soon as this returns. At most `RING` may wait for `result`."""
        ring = self._ring(blurry.shape)
        slot = ring.take()
        np.copyto(slot.host_in.array, blurry)
        self._prepare(slot)
        copy_in, compute, copy_out = self._streams
        copy_in.copy_in(slot.device_in, slot.host_in.array)
        slot.arrived.record(copy_in)
        compute.wait_for(slot.arrived)
        self._launch(slot)
        slot.computed.record(compute)
        copy_out.wait_for(slot.computed)
        copy_out.copy_out(slot.host_out.array, slot.device_out)
        slot.returned.record(copy_out)
        slot.waiting = True
        return Ticket(blurry.shape, slot.number)

    def result(self, ticket: Ticket) -> npt.NDArray[Any]:
        """Waits for a submitted window and returns its sharp frames, a new array."""
        ring = self._rings.get(ticket.shape)
        if ring is None or not ring.slots[ticket.slot].waiting:
            raise BackendError("this window's result was already taken, or its buffers were freed: take results in order")
        slot = ring.slots[ticket.slot]
        slot.returned.synchronize()
        slot.waiting = False
        return np.array(slot.host_out.array)

    def layer_information(self) -> str:
        """The engine's layers as TensorRT's own JSON. Raises BackendError on the lean runtime, which cannot tell."""
        if not hasattr(self._engine, "create_engine_inspector"):
            raise BackendError(f"{self.plan.library} cannot inspect engines: use full TensorRT")
        trt = load_library(self.plan.library).module
        return str(self._engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Waits for the GPU, then frees buffers, context and engine; calling it again does nothing."""
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._open.close()
        if self._cache is not None:
            self._cache.save()
        self._context = self._engine = self._cache = None

    def _ring(self, shape: tuple[int, ...]) -> _Ring:
        if self._context is None:
            raise BackendError("the runner is closed")
        if shape not in self._rings:
            self.plan.check_shape(shape[:4])
            if len(self._rings) == SHAPES:
                self._rings.popitem(last=False)[1].close()
            self._rings[shape] = _Ring(shape, self._dtype(INPUT), self._dtype(OUTPUT))
        self._rings.move_to_end(shape)
        return self._rings[shape]

    def _dtype(self, tensor: str) -> np.dtype[Any]:
        trt = load_library(self.plan.library).module
        found: np.dtype[Any] = np.dtype(trt.nptype(self._engine.get_tensor_dtype(tensor)))
        return found

    def _prepare(self, slot: _Slot) -> None:
        """The first window through a slot: computed plainly, then recorded, replayed and compared."""
        if slot.ready:
            return
        slot.ready = True
        if not self._captures:
            return
        eager = self._compute_now(slot)
        try:
            slot.graph = Graph(self._streams[1], lambda: self._enqueue(slot.device_in.pointer, slot.device_out.pointer, slot.shape))
            replayed = self._compute_now(slot)
        except DeployError as error:
            self._go_without_graphs(slot, str(error))
        else:
            if not np.array_equal(eager, replayed):
                self._go_without_graphs(slot, "its replay differs from the plain run")

    def _go_without_graphs(self, slot: _Slot, reason: str) -> None:
        log.warning("CUDA graphs are off for this engine, each window costs more launches: %s", reason)
        slot.drop_graph()
        self._captures = False

    def _compute_now(self, slot: _Slot) -> npt.NDArray[Any]:
        compute = self._streams[1]
        compute.copy_in(slot.device_in, slot.host_in.array)
        self._launch(slot)
        compute.copy_out(slot.host_out.array, slot.device_out)
        compute.synchronize()
        return np.array(slot.host_out.array)

    def _launch(self, slot: _Slot) -> None:
        if slot.graph is not None:
            slot.graph.launch(self._streams[1])
        else:
            self._enqueue(slot.device_in.pointer, slot.device_out.pointer, slot.shape)

    def _enqueue(self, source: int, target: int, shape: tuple[int, ...]) -> None:
        context = self._context
        library = load_library(self.plan.library)
        with library.messages() as messages:
            done = (
                context.set_input_shape(INPUT, shape)
                and context.set_tensor_address(INPUT, source)
                and context.set_tensor_address(OUTPUT, target)
                and context.execute_async_v3(self._streams[1].handle)
            )
        if not done:
            raise BackendError(f"TensorRT failed on shape {shape}: {messages.reason()}")

    def _run_on_device(self, blurry: DeviceArray) -> DeviceArray:
        self.plan.check_shape(blurry.shape[:4])
        if blurry.dtype != self._dtype(INPUT):
            raise BackendError(f"got {blurry.dtype} on the GPU, this engine takes {self._dtype(INPUT)}: convert it there")
        dtype = self._dtype(OUTPUT)
        memory = DeviceBuffer(int(np.prod(blurry.shape)) * dtype.itemsize)
        self._enqueue(blurry.pointer, memory.pointer, blurry.shape)
        self._streams[1].synchronize()
        return DeviceArray(memory.pointer, blurry.shape, dtype, memory)


class _Slot:
    """The buffers of one window in flight."""

    def __init__(
        self, number: int, shape: tuple[int, ...], dtype_in: np.dtype[Any], dtype_out: np.dtype[Any], owned: ExitStack
    ) -> None:
        self.number, self.shape = number, shape
        self.host_in, self.host_out = (owned.enter_context(closing(PinnedArray(shape, d))) for d in (dtype_in, dtype_out))
        self.device_in, self.device_out = (
            owned.enter_context(closing(DeviceBuffer(host.array.nbytes))) for host in (self.host_in, self.host_out)
        )
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

    def __init__(self, shape: tuple[int, ...], dtype_in: np.dtype[Any], dtype_out: np.dtype[Any]) -> None:
        with ExitStack() as owned:
            self.slots = [_Slot(number, shape, dtype_in, dtype_out, owned) for number in range(RING)]
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


class _RuntimeCache:
    """TensorRT-RTX's compiled kernels, kept from one process to the next."""

    def __init__(self, cache: Any, path: Path) -> None:
        self._cache, self._path = cache, path
        if path.is_file() and not cache.deserialize(path.read_bytes()):
            log.info("the runtime cache %s is of another environment and will be filled anew", path)

    def save(self) -> None:
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(memoryview(self._cache.serialize()))
            partial.replace(self._path)
        except OSError as error:
            log.warning("the runtime cache could not be kept, the next start will compile again: %s", error)


def _deserialize(library: Library, path: Path, plan: Plan) -> Any:
    trt = library.module
    with library.messages() as messages:
        runtime = trt.Runtime(library.logger)
        if plan.version_compatible and hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True  # the record's hash was checked: the file is the one that was built
        if hasattr(runtime, "get_engine_validity"):
            _check_validity(trt, runtime, path)
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ModelError(
            f"{library.name} {library.version} cannot load {path}: {messages.reason()}; build it again on this machine"
        )
    return engine


def _check_validity(trt: Any, runtime: Any, path: Path) -> None:
    with path.open("rb") as file:
        validity, diagnostics = runtime.get_engine_validity(file.read(runtime.engine_header_size))
    if validity == trt.EngineValidity.INVALID:
        raise BackendError(
            f"TensorRT-RTX says that {path} does not fit this GPU or release (diagnostics {diagnostics}): build it here"
        )
    if validity != trt.EngineValidity.VALID:
        log.warning("TensorRT-RTX says that %s runs here, but not at its best: build it on this machine", path)


def _check_tensors(engine: Any, library: Library, path: Path, plan: Plan) -> None:
    names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    if names != {INPUT, OUTPUT}:
        raise ModelError(
            f"{path} has tensors {sorted(names)}, expected {INPUT} and {OUTPUT}: build it from export/to_onnx.py's file"
        )
    expected = np.float32 if plan.contract.io == "f32" else np.uint8
    for name in (INPUT, OUTPUT):
        found = np.dtype(library.module.nptype(engine.get_tensor_dtype(name)))
        if found != expected:
            raise ModelError(f"{path} has {name} as {found}, its contract says {np.dtype(expected)}: build it again")


def _create_context(library: Library, engine: Any, cuda_graph: bool, cache: Path | None) -> tuple[Any, _RuntimeCache | None]:
    trt, kept = library.module, None
    with library.messages() as messages:
        if hasattr(trt, "CudaGraphStrategy"):
            config = engine.create_runtime_config()
            strategy = trt.CudaGraphStrategy
            config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if cuda_graph else strategy.DISABLED
            if cache is not None:
                runtime_cache = config.create_runtime_cache()
                kept = _RuntimeCache(runtime_cache, cache)
                config.set_runtime_cache(runtime_cache)
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
    if context is None:
        needed: int = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
        sizes = f"its largest shape needs {needed / MIB:.0f} MiB, {free_memory() / MIB:.0f} MiB are free"
        raise BackendError(
            f"TensorRT cannot prepare the engine ({sizes}): build it for smaller frames, or free memory. {messages.reason()}"
        )
    return context, kept
