"""`MeasuredEngine`: an engine with the contexts, buffers, streams and timed events that `inference_loop` measures.

Never run yet: it needs a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends.device_memory import (
    DeviceBuffer,
    Gpu,
    Graph,
    PinnedArray,
    Stream,
    TimedEvent,
    enter_gpu,
    most_persisting_cache,
    open_gpu,
)
from runtime.backends.inference_loop import Work
from runtime.backends.layer_times import LayerTimes, build_profiler
from runtime.backends.run_options import STRATEGIES, RunOptions
from runtime.backends.tensorrt_engine import LoadedEngine, bare_context, cache_path, kernel_cache, library_for
from runtime.backends.tensorrt_library import Library, load_library
from runtime.errors import BackendError, DeployError
from runtime.files.engine_record import EngineRecord, read_engine

TURNS = 2  # queries of a lane in flight
LOADS, WARM_LOADS = 20, 2  # of a measurement of loading


class MeasuredEngine:
    """A loaded engine; `options` have a shape (`RunOptions.with_shape`).

    Raises what `TensorRtRunner` raises: no GPU, no driver, another library, version or GPU, a damaged file.
    """

    def __init__(self, path: Path, options: RunOptions) -> None:
        self._options = options
        self._record, plan = read_engine(path)
        self.gpu = open_gpu(options.device)
        enter_gpu(self.gpu)
        self._library = _library(self._record, options)
        self._record.check_machine(self._library.name, self._library.version, self.gpu.compute_capability)
        self._loaded = LoadedEngine(self._library, path, self._record, plan)
        self._kernels = kernel_cache(self._loaded, cache_path(self._record, self.gpu.name))
        self._closed = False

    @property
    def aux_streams(self) -> int:
        """Streams of its own that a context uses beside the caller's."""
        return int(getattr(self._loaded.engine, "num_aux_streams", 0))

    def device(self, cuda_graph: bool, times: LayerTimes | None = None) -> EngineDevice:
        """What `inference_loop.measure` takes: a lane for each of `streams`. With `times`, one lane, which fills them and is slower
        for it."""
        streams = 1 if times else self._options.streams
        with ExitStack() as owned:
            lanes = [owned.enter_context(closing(self._lane(cuda_graph, times))) for _ in range(streams)]
            return EngineDevice(self.gpu, lanes, owned.pop_all())

    def layers(self, device: EngineDevice, form: str) -> str:
        """The engine's layers as TensorRT tells them, in its form JSON or ONELINE, with the shapes of the first lane."""
        trt = self._library.module
        if not hasattr(trt, "EngineInspector"):
            raise BackendError(f"{self._library.name} cannot inspect engines: use full TensorRT")
        inspector = self._loaded.engine.create_engine_inspector()
        inspector.execution_context = device.lanes[0].context
        return str(inspector.get_engine_information(trt.LayerInformationFormat.__members__[form]))

    def close(self) -> None:
        """Frees the engine; its devices must be closed. Calling it again does nothing."""
        if not self._closed:
            self._closed = True
            enter_gpu(self.gpu)
            if self._kernels is not None:
                self._kernels.save()
            self._kernels = None
            self._loaded.close()

    def _lane(self, cuda_graph: bool, times: LayerTimes | None) -> EngineLane:
        context = bare_context(self._loaded, self._kernels, cuda_graph, STRATEGIES[self._options.strategy])
        if context is None:
            raise BackendError("TensorRT makes no context: use fewer --infStreams, or free GPU memory")
        if self._options.cache_ratio:
            context.persistent_cache_limit = int(self._options.cache_ratio * most_persisting_cache(self.gpu.index))
        lane = EngineLane(self._library, context, self._options, self._loaded.dtype, self._record.tensors)
        if times is not None:
            lane.profile(times)
        elif cuda_graph and self._kernels is None:  # TensorRT-RTX records by itself
            lane.record_graph()
        return lane


class EngineDevice:
    """An `inference_loop.Device` on a GPU."""

    def __init__(self, gpu: Gpu, lanes: list[EngineLane], owned: ExitStack) -> None:
        self.lanes = lanes
        self._gpu, self._owned = gpu, owned
        self._main = owned.enter_context(closing(Stream()))
        self._start = owned.enter_context(closing(TimedEvent()))
        self._began = 0.0

    @property
    def notes(self) -> list[str]:
        """What the user should know of the lanes."""
        return [note for lane in self.lanes for note in lane.notes]

    def enter(self) -> None:
        """See `Device.enter`."""
        enter_gpu(self._gpu)

    def begin(self, hold: float) -> None:
        """See `Device.begin`."""
        if hold:
            self._main.hold(hold)
        self._began = time.perf_counter()
        self._start.record(self._main)
        for lane in self.lanes:
            lane.begin(self._start)

    def now(self) -> float:
        """See `Device.now`."""
        return 1000 * (time.perf_counter() - self._began)

    def sleep(self, milliseconds: float) -> None:
        """See `Device.sleep`."""
        time.sleep(milliseconds / 1000)

    def close(self) -> None:
        """Waits for the GPU and frees all lanes; calling it again does nothing."""
        enter_gpu(self._gpu)
        self._owned.close()


class EngineLane:
    """An `inference_loop.Lane`: a context with its buffers, a stream for each work, and a timed event for each of its ends."""

    def __init__(self, library: Library, context: Any, options: RunOptions, dtype: np.dtype[Any], tensors: tuple[str, str]) -> None:
        self.context, self._library, self._tensors = context, library, tensors
        self.notes: list[str] = []
        self._graph: Graph | None = None
        self._profiler: Any = None
        self._start: TimedEvent | None = None
        shape = options.shape or ()
        with ExitStack() as owned:
            self._host_in, self._host_out = (owned.enter_context(closing(PinnedArray(shape, dtype))) for _ in range(2))
            size = self._host_in.array.nbytes
            self._device_in, self._device_out = (owned.enter_context(closing(DeviceBuffer(size))) for _ in range(2))
            self._streams = {work: owned.enter_context(closing(Stream())) for work in Work}
            self._events = {
                (work, end, turn): owned.enter_context(closing(TimedEvent(blocking=not options.spin)))
                for work in Work
                for end in (False, True)
                for turn in range(TURNS)
            }
            self.input[...] = noise(shape, dtype)
            memory = self._bind(options)
            if memory is not None:
                owned.enter_context(closing(memory))
            self._owned = owned.pop_all()

    @property
    def input(self) -> npt.NDArray[Any]:
        """See `Lane.input`."""
        return self._host_in.array

    @property
    def output(self) -> npt.NDArray[Any]:
        """See `Lane.output`."""
        return self._host_out.array

    def copy_in(self) -> None:
        """See `Lane.copy_in`."""
        self._streams[Work.COPY_IN].copy_in(self._device_in.pointer, self._host_in.array)

    def compute(self) -> None:
        """See `Lane.compute`."""
        if self._graph is not None:
            self._graph.launch(self._streams[Work.COMPUTE])
        else:
            self._execute()
        if self._profiler is not None and not self.context.report_to_profiler():
            raise BackendError("TensorRT does not tell the layers' times: leave --dumpProfile and --exportProfile out")

    def copy_out(self) -> None:
        """See `Lane.copy_out`."""
        self._streams[Work.COPY_OUT].copy_out(self._host_out.array, self._device_out.pointer)

    def mark(self, work: Work, end: bool, turn: int) -> None:
        """See `Lane.mark`."""
        self._events[work, end, turn].record(self._streams[work])

    def order(self, work: Work, turn: int, following: Work) -> None:
        """See `Lane.order`."""
        self._streams[following].wait_for(self._events[work, True, turn])

    def wait(self, work: Work, turn: int) -> None:
        """See `Lane.wait`."""
        self._events[work, True, turn].synchronize()

    def at(self, work: Work, end: bool, turn: int) -> float:
        """See `Lane.at`."""
        if self._start is None:
            raise BackendError("times are read before the device began: call its begin() first")
        return self._events[work, end, turn].milliseconds_after(self._start)

    def begin(self, start: TimedEvent) -> None:
        """All times count from `start`, and all work starts after it."""
        self._start = start
        for stream in self._streams.values():
            stream.wait_for(start)

    def record_graph(self) -> None:
        """Records the inference as a CUDA graph, or notes why it runs without one."""
        stream = self._streams[Work.COMPUTE]
        stream.copy_in(self._device_in.pointer, self._host_in.array)
        self._execute()  # what happens at a context's first run only must not be in the graph
        stream.synchronize()
        try:
            self._graph = Graph(stream, self._execute)
        except DeployError as error:
            self.notes.append(f"CUDA graph capture failed, the inference is launched without one: {error}")

    def profile(self, times: LayerTimes) -> None:
        """From here on each inference adds its layers' times, and waits for the GPU to tell them."""
        self._profiler = build_profiler(self._library.module, times.add)
        self.context.profiler = self._profiler
        self.context.enqueue_emits_profile = False

    def close(self) -> None:
        """Waits for the GPU and frees everything; calling it again does nothing."""
        for stream in self._streams.values():
            if stream.handle:
                stream.synchronize()
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self.context = None
        self._owned.close()

    def _bind(self, options: RunOptions) -> DeviceBuffer | None:
        """Sets profile, shape and addresses; returns the context's memory where it is the caller's."""
        context, compute, memory = self.context, self._streams[Work.COMPUTE], None
        blurry, sharp = self._tensors
        with self._library.messages() as messages:
            bound = context.set_optimization_profile_async(options.profile, compute.handle)
            bound = bound and context.set_input_shape(blurry, options.shape)
            if bound and options.strategy == "runtime":
                memory = self._memory_for_shape()
            bound = bound and context.set_tensor_address(blurry, self._device_in.pointer)
            bound = bound and context.set_tensor_address(sharp, self._device_out.pointer)
            compute.synchronize()
        if not bound:
            raise BackendError(f"TensorRT does not take shape {options.shape}: {messages.reason()}: name another with --shapes")
        return memory

    def _memory_for_shape(self) -> DeviceBuffer:
        if not hasattr(self.context, "update_device_memory_size_for_shapes"):
            raise BackendError(f"{self._library.name} {self._library.version} has no --allocationStrategy=runtime: leave it out")
        memory = DeviceBuffer(max(int(self.context.update_device_memory_size_for_shapes()), 1))
        self.context.set_device_memory(memory.pointer, memory.size)
        return memory

    def _execute(self) -> None:
        if not self.context.execute_async_v3(self._streams[Work.COMPUTE].handle):
            raise BackendError("TensorRT failed to queue an inference: --verbose shows what it said")


def time_loading(path: Path, options: RunOptions, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """(milliseconds of one load of the engine, of LOADS further ones together), once the files are in the system's cache."""
    record, _ = read_engine(path)
    gpu, library = open_gpu(options.device), _library(record, options)
    enter_gpu(gpu)
    record.check_machine(library.name, library.version, gpu.compute_capability)

    def load() -> float:
        began = clock()
        loaded = LoadedEngine(library, path, record, path.read_bytes())
        taken = 1000 * (clock() - began)
        loaded.close()
        return taken

    for _ in range(WARM_LOADS):
        load()
    return load(), sum(load() for _ in range(LOADS))


def noise(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """What trtexec feeds where no input is named: -1 to 1, or all codes; the same at every call."""
    generator = np.random.default_rng(0)
    if dtype == np.uint8:
        return generator.integers(0, 256, shape, np.uint8)
    return (2 * generator.random(shape, np.float32) - 1).astype(dtype)


def _library(record: EngineRecord, options: RunOptions) -> Library:
    return load_library("tensorrt_lean") if options.lean else library_for(record)
