"""A CUDA driver, its runtime and a TensorRT engine in host memory, for the few calls that the runner may make.

Any other call fails, as does one that is made in a context that is not the GPU's primary one. Work is done when it is queued, and
held against what a GPU would be free to do: an access to memory that neither its stream, nor events, nor a wait of the host put
after an earlier one that conflicts with it is a race, and fails. The engine negates.
"""

# ruff: noqa: N802, N803 - the names are CUDA's

import ctypes
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace

import numpy as np
from cuda.bindings import driver, runtime

from runtime.files.contract import INPUT, OUTPUT

PRIMARY = 0x100
LEGACY = 1
OK, DRIVER_OK = runtime.cudaError_t.cudaSuccess, driver.CUresult.CUDA_SUCCESS


@dataclass(frozen=True)
class Memory:
    pointer: int
    size: int
    context: int = PRIMARY
    device: int = 0
    on_host: bool = False
    keep: object = None

    def holds(self, pointer, size):
        return self.pointer <= pointer and pointer + size <= self.pointer + self.size


class Array:
    """What PyCUDA's arrays offer, and CuPy's where `named` is a stream."""

    def __init__(self, memory, shape, dtype, read_only=False, **named):
        self.memory, self.shape, self.dtype = memory, shape, np.dtype(dtype)
        layout = {"shape": shape, "typestr": self.dtype.str, "data": (memory.pointer, read_only), "strides": None}
        self.__cuda_array_interface__ = {**layout, "version": 3, **named}

    @property
    def host(self):
        raw = (ctypes.c_ubyte * self.memory.size).from_address(self.memory.pointer)
        return np.frombuffer(raw, self.dtype).reshape(self.shape)


class FakeGpu:
    def __init__(self):
        self.calls = []  # (name, arguments), of what counts for the order
        self.failing = {}  # name: the status that it is answered with
        self.numbers = count(0x1000)
        self.context_of_thread = defaultdict(int)
        self.contexts = {PRIMARY}
        self.memory = {}
        self.streams = {LEGACY: PRIMARY, 2: PRIMARY}
        self.events, self.captured, self.graphs = {}, {}, {}
        self.clocks, self.host_clock, self.accesses = defaultdict(dict), {}, []
        self.runtime, self.driver = FakeRuntime(self), FakeDriver(self)

    # what a program around the engine does

    @property
    def current(self):
        return self.context_of_thread[threading.get_ident()]

    @current.setter
    def current(self, context):
        self.context_of_thread[threading.get_ident()] = context

    def new_context(self):
        self.contexts.add(made := next(self.numbers))
        return made

    def new_stream(self, context=PRIMARY):
        self.streams[made := next(self.numbers)] = context
        return made

    def new_array(self, shape, dtype=np.float32, context=PRIMARY, device=0, offset=0, **facts):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self.allocate(size + offset, context, device)
        return Array(Memory(memory.pointer + offset, size, context, device, keep=memory), shape, dtype, **facts)

    def kernel(self, stream, reads=(), writes=(), value=None):
        """The program's own work on a stream of its own."""

        def fill():
            for array in writes:
                array.host[...] = value

        self.queue(stream, [span(a) for a in reads], [span(a) for a in writes], fill)

    # how it is kept

    def names(self):
        return [name for name, _ in self.calls]

    def allocate(self, size, context, device=0, on_host=False):
        raw = np.zeros(size + 256, np.uint8)
        pointer = -(-raw.ctypes.data // 256) * 256
        self.memory[pointer] = Memory(pointer, size, context, device, on_host, raw)
        return self.memory[pointer]

    def free(self, pointer):
        self.wait_for_all()
        memory = self.memory.pop(pointer)
        self.accesses = [seen for seen in self.accesses if not memory.holds(seen[0], 1)]

    def find(self, pointer, size=1):
        return next((memory for memory in self.memory.values() if memory.holds(pointer, size)), None)

    def wait_for_all(self):
        for clock in self.clocks.values():
            merge(self.host_clock, clock)

    def queue(self, stream, reads, writes, work):
        if stream in self.captured:
            self.captured[stream].append((reads, writes, work))
            return
        assert stream in self.streams, f"work on stream {stream:#x}, which there is not"
        clock = self.clocks[stream]
        merge(clock, self.host_clock)
        clock[stream] = clock.get(stream, 0) + 1
        for spans, writing in ((reads, False), (writes, True)):
            for pointer, size in spans:
                assert self.find(pointer, size), f"work on {size} bytes at {pointer:#x}, which are not allocated"
                for there, length, other, at, wrote in self.accesses:
                    if (wrote or writing) and there < pointer + size and pointer < there + length:
                        assert clock.get(other, 0) >= at, f"stream {stream:#x} races with stream {other:#x}"
                self.accesses.append((pointer, size, stream, clock[stream], writing))
        work()

    @contextmanager
    def recorded(self):
        """The calls meanwhile."""
        self.calls.clear()
        found = []
        yield found
        found.extend(self.calls)


def span(array):
    return array.memory.pointer, array.memory.size


def merge(clock, other):
    for stream, at in other.items():
        clock[stream] = max(clock.get(stream, 0), at)


def negate(source, target, size):
    given, found = (np.frombuffer((ctypes.c_ubyte * size).from_address(at), np.float32) for at in (source, target))
    found[...] = -given


class _Api:
    """Looks up enumerations in the real module; a function that is not defined here is outside the contract."""

    def __init__(self, gpu):
        self.gpu = gpu

    def __getattribute__(self, name):
        gpu = object.__getattribute__(self, "gpu")
        if name.startswith("_") or name == "gpu":
            return object.__getattribute__(self, name)
        if name not in type(self).__dict__:
            assert isinstance(getattr(self._real, name), (type, int)), f"{name} is outside the contract"
            return getattr(self._real, name)
        function = object.__getattribute__(self, name)

        def called(*arguments):
            assert not self._in_primary(name) or gpu.current == PRIMARY, f"{name} was called in context {gpu.current:#x}"
            gpu.calls.append((name, arguments))
            return (gpu.failing[name], None) if name in gpu.failing else function(*arguments)

        return called


class FakeRuntime(_Api):
    _real = runtime

    def _in_primary(self, name):
        return name not in ("cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaDriverGetVersion") and "Error" not in name

    def cudaGetDeviceCount(self):
        return OK, 1

    def cudaGetDeviceProperties(self, device):
        return OK, SimpleNamespace(name=b"Fake\0", major=9, minor=0, totalGlobalMem=1 << 30)

    def cudaDriverGetVersion(self):
        return OK, 13000

    def cudaGetErrorName(self, error):
        return OK, error.name.encode()

    def cudaGetErrorString(self, error):
        return OK, b"it was told to"

    def cudaMemGetInfo(self):
        return OK, 1 << 30, 1 << 30

    def cudaMalloc(self, size):
        return OK, self.gpu.allocate(size, PRIMARY).pointer

    def cudaFree(self, devPtr):
        self.gpu.free(devPtr)
        return (OK,)

    def cudaHostAlloc(self, size, flags):
        return OK, self.gpu.allocate(size, PRIMARY, on_host=True).pointer

    def cudaFreeHost(self, ptr):
        self.gpu.free(ptr)
        return (OK,)

    def cudaPointerGetAttributes(self, ptr):
        kinds, memory = runtime.cudaMemoryType, self.gpu.find(ptr)
        kind = kinds.cudaMemoryTypeUnregistered if memory is None or memory.on_host else kinds.cudaMemoryTypeDevice
        return OK, SimpleNamespace(type=kind, device=memory.device if memory else -2)

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == runtime.cudaStreamNonBlocking
        return OK, self.gpu.new_stream()

    def cudaStreamDestroy(self, stream):
        del self.gpu.streams[stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        assert stream not in self.gpu.captured
        merge(self.gpu.host_clock, self.gpu.clocks[stream])
        return (OK,)

    def cudaStreamWaitEvent(self, stream, event, flags):
        assert stream in self.gpu.streams
        merge(self.gpu.clocks[stream], self.gpu.events[event])
        return (OK,)

    def cudaEventCreateWithFlags(self, flags):
        self.gpu.events[made := next(self.gpu.numbers)] = {}
        return OK, made

    def cudaEventRecord(self, event, stream):
        assert self.gpu.streams[stream] == PRIMARY
        self.gpu.events[event] = dict(self.gpu.clocks[stream])
        return (OK,)

    def cudaEventSynchronize(self, event):
        merge(self.gpu.host_clock, self.gpu.events[event])
        return (OK,)

    def cudaEventDestroy(self, event):
        del self.gpu.events[event]
        return (OK,)

    def cudaMemcpyAsync(self, dst, src, count, kind, stream):
        pageable = [pointer for pointer in (dst, src) if self.gpu.find(pointer, count) is None]
        spans = [[(pointer, count)] if pointer not in pageable else [] for pointer in (src, dst)]
        self.gpu.queue(stream, *spans, lambda: ctypes.memmove(dst, src, count))
        return (OK,)

    def cudaMemsetAsync(self, devPtr, value, count, stream):
        self.gpu.queue(stream, [], [(devPtr, count)], lambda: ctypes.memset(devPtr, value, count))
        return (OK,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode == runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.gpu.captured[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        self.gpu.graphs[made := next(self.gpu.numbers)] = self.gpu.captured.pop(stream)
        return OK, made

    def cudaGraphInstantiate(self, graph, flags):
        self.gpu.graphs[made := next(self.gpu.numbers)] = list(self.gpu.graphs[graph])
        return OK, made

    def cudaGraphLaunch(self, graphExec, stream):
        for reads, writes, work in self.gpu.graphs[graphExec]:
            self.gpu.queue(stream, reads, writes, work)
        return (OK,)

    def cudaGraphDestroy(self, graph):
        del self.gpu.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec):
        del self.gpu.graphs[graphExec]
        return (OK,)


class FakeDriver(_Api):
    _real = driver

    def _in_primary(self, name):
        return name in ("cuPointerGetAttribute", "cuStreamGetCtx")

    def cuInit(self, Flags):
        return (DRIVER_OK,)

    def cuDeviceGet(self, ordinal):
        return DRIVER_OK, ordinal

    def cuDevicePrimaryCtxRetain(self, dev):
        return DRIVER_OK, PRIMARY

    def cuCtxGetCurrent(self):
        return DRIVER_OK, self.gpu.current

    def cuCtxSetCurrent(self, ctx):
        assert ctx in self.gpu.contexts | {0}
        self.gpu.current = ctx
        return (DRIVER_OK,)

    def cuStreamGetCtx(self, hStream):
        if hStream not in self.gpu.streams:
            return driver.CUresult.CUDA_ERROR_INVALID_HANDLE, None
        return DRIVER_OK, self.gpu.streams[hStream]

    def cuPointerGetAttribute(self, attribute, ptr):
        assert attribute == driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT
        return DRIVER_OK, self.gpu.find(ptr).context

    def cuGetErrorName(self, error):
        return DRIVER_OK, error.name.encode()

    def cuGetErrorString(self, error):
        return DRIVER_OK, b"it was told to"


class FakeLibrary:
    """As `runtime.backends.tensorrt_library.Library`, of an engine that takes any shape."""

    name, version, logger = "tensorrt", "11.4.0.106", None

    def __init__(self, gpu):
        engine = FakeEngine(gpu)
        self.module = SimpleNamespace(
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
            ExecutionContextAllocationStrategy=SimpleNamespace(__members__={"USER_MANAGED": 1}),
            nptype=lambda kind: kind,
        )

    @contextmanager
    def messages(self, verbose=False):
        yield SimpleNamespace(reason=lambda: "it was told to")


class FakeEngine:
    num_io_tensors, device_memory_size_v2 = 2, 1024

    def __init__(self, gpu):
        self.gpu = gpu

    def get_tensor_name(self, number):
        return (INPUT, OUTPUT)[number]

    def get_tensor_dtype(self, name):
        return np.float32

    def create_execution_context(self, strategy):
        return FakeExecution(self.gpu)


class FakeExecution:
    def __init__(self, gpu):
        self.gpu, self.addresses = gpu, {}

    def set_optimization_profile_async(self, profile, stream):
        return True

    def set_device_memory(self, pointer, size):
        self.scratch = pointer, size

    def set_input_shape(self, name, shape):
        self.size = int(np.prod(shape)) * 4
        return True

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream):
        assert self.gpu.current == PRIMARY
        source, target, size = self.addresses[INPUT], self.addresses[OUTPUT], self.size
        self.gpu.calls.append(("execute_async_v3", (stream,)))
        self.gpu.queue(stream, [(source, size)], [(target, size), self.scratch], lambda: negate(source, target, size))
        return True
