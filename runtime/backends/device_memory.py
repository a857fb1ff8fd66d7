"""CUDA memory, streams, events and graphs of one GPU, through cuda-python; the only file that imports it.

The primary context is used, as PyTorch, CuPy and ONNX Runtime do, so their arrays can be read in place; it is current inside
`on_gpu` alone, after which the caller's own context is current again. Everything that owns something has an idempotent `close`.
Every status is checked; a failure is a BackendError.
"""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import driver
from cuda.bindings import runtime as cuda

from runtime.backends.dlpack import LEGACY_DEFAULT_STREAM
from runtime.errors import BackendError, InputError

DRIVER_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
MIB = 1 << 20
PER_THREAD_STREAM = 2  # a handle that has a meaning, as LEGACY_DEFAULT_STREAM and 0, which are the same, have
NO_STREAM = (  # how the driver answers for a stream that was destroyed, where it can tell
    driver.CUresult.CUDA_ERROR_INVALID_HANDLE,
    driver.CUresult.CUDA_ERROR_INVALID_CONTEXT,
    driver.CUresult.CUDA_ERROR_CONTEXT_IS_DESTROYED,
    driver.CUresult.CUDA_ERROR_INVALID_VALUE,
)
OWN_CONTEXT = "take the GPU's primary context: import pycuda.autoprimaryctx, in place of pycuda.autoinit"


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    index: int
    name: str
    compute_capability: tuple[int, int]  # (9, 0) is Hopper
    memory: int  # bytes in all
    driver: int  # the newest CUDA version that the driver supports, 13000 is 13.0
    context: int = field(default=0, repr=False)  # handle of its primary context, which this process keeps until it ends


def open_gpu(index: int = 0) -> Gpu:
    """Looks at a device. Raises BackendError, without touching CUDA, where there is no driver."""
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        raise BackendError(
            f"no NVIDIA driver on this machine ({DRIVER_LIBRARY} is missing): install it, or run an .onnx file on the CPU"
        ) from error
    count = check(cuda.cudaGetDeviceCount(), "looking for GPUs")
    if not 0 <= index < count:
        raise BackendError(f"GPU {index} was asked for, this machine has {count}: number them from 0")
    facts = check(cuda.cudaGetDeviceProperties(index), f"reading the properties of GPU {index}")
    version = check(cuda.cudaDriverGetVersion(), "reading the driver's version")
    check(driver.cuInit(0), "starting CUDA")
    device = check(driver.cuDeviceGet(index), f"opening GPU {index}")
    context = int(check(driver.cuDevicePrimaryCtxRetain(device), f"opening GPU {index}"))
    return Gpu(index, facts.name.decode().strip("\0"), (facts.major, facts.minor), facts.totalGlobalMem, version, context)


@contextmanager
def on_gpu(gpu: Gpu) -> Iterator[None]:
    """The GPU's primary context is current for this thread meanwhile; after it, also by an exception, what was current before."""
    with _current(gpu.context):
        yield


def enter_gpu(gpu: Gpu) -> None:
    """The GPU's primary context is current for this thread from now on: for threads and processes of our own only."""
    check(driver.cuCtxSetCurrent(gpu.context), "making the GPU's context current")


@contextmanager
def _current(context: int) -> Iterator[None]:
    before = check(driver.cuCtxGetCurrent(), "asking for the caller's context")
    check(driver.cuCtxSetCurrent(context), "making the GPU's context current")
    try:
        yield
    finally:
        check(driver.cuCtxSetCurrent(before), "giving the caller its context back")


def free_memory() -> int:
    """Bytes free on the current device."""
    free, _ = check(cuda.cudaMemGetInfo(), "reading the free memory")
    return int(free)


def most_persisting_cache(index: int) -> int:
    """Bytes of the L2 cache that may be set aside for what is used again."""
    attribute = cuda.cudaDeviceAttr.cudaDevAttrMaxPersistingL2CacheSize
    return int(check(cuda.cudaDeviceGetAttribute(attribute, index), "asking for the size of the L2 cache"))


def check(result: tuple[Any, ...], doing: str) -> Any:
    """What a cuda-python call returned, less its status. Raises BackendError with the status's name, text and remedy."""
    status, *values = result
    if int(status) != 0:
        name, text = _said(status)
        raise BackendError(f"CUDA failed while {doing}: {name}, {text}{_remedy(status)}")
    return values[0] if len(values) == 1 else tuple(values)


def check_place(pointer: int, gpu: Gpu) -> None:
    """Raises InputError unless the memory is the GPU's and of its primary context, or of none, as that of memory pools is.

    A kernel that reads other memory ends all work of the process.
    """
    facts = check(cuda.cudaPointerGetAttributes(pointer), "asking where an array lies")
    if facts.type not in (cuda.cudaMemoryType.cudaMemoryTypeDevice, cuda.cudaMemoryType.cudaMemoryTypeManaged):
        raise InputError("got an array that is not in the memory of a GPU (freed, or its context gone?): hand over one that is")
    if facts.device != gpu.index:
        raise InputError(f"got an array on GPU {facts.device}, the engine is on GPU {gpu.index}: copy it there")
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT
    context = int(check(driver.cuPointerGetAttribute(attribute, pointer), "asking for an array's context"))
    if context not in (0, gpu.context):
        raise InputError(f"got an array of another CUDA context than the engine's: {OWN_CONTEXT}")


def callers_stream(handle: int, gpu: Gpu) -> AnyStream:
    """A stream of the caller's. Raises InputError where it is of another context, or CUDA can tell that it was destroyed."""
    if handle in (0, LEGACY_DEFAULT_STREAM):
        return AnyStream(LEGACY_DEFAULT_STREAM)
    if handle == PER_THREAD_STREAM:
        raise InputError("got the per-thread default stream, which is another one in every thread: give one that was made")
    answer = driver.cuStreamGetCtx(handle)
    if answer[0] in NO_STREAM:
        raise InputError(f"got a stream that CUDA does not know ({_said(answer[0])[0]}), was it destroyed? give one that is open")
    if int(check(answer, "asking for a stream's context")) != gpu.context:
        raise InputError(f"got a stream of another CUDA context than the engine's: {OWN_CONTEXT}")
    return AnyStream(handle)


class DeviceBuffer:
    """Device memory. `pointer` is its address, 256-byte aligned. It is freed by `close`, or with the object."""

    def __init__(self, size: int) -> None:
        self.size = size  # bytes
        self.pointer = int(check(cuda.cudaMalloc(size), f"allocating {size / MIB:.0f} MiB on the GPU"))
        context = int(check(driver.cuCtxGetCurrent(), "asking for the memory's context"))
        self._free = weakref.finalize(self, _free, self.pointer, context)
        self._free.atexit = False  # the process's memory goes with it, and CUDA may be gone before

    def close(self) -> None:
        """Frees the memory; no work that uses it may be in flight."""
        self._free()  # does nothing the second time


def _free(pointer: int, context: int) -> None:
    """In whatever thread the last reference to the memory goes, and whatever context is current there."""
    with _current(context):
        check(cuda.cudaFree(pointer), "freeing memory of the GPU")


class PinnedArray:
    """A numpy array in page-locked host memory, which the GPU copies from and to while the CPU goes on."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._pointer = int(check(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault), f"pinning {size / MIB:.0f} MiB of memory"))
        raw = (ctypes.c_ubyte * size).from_address(self._pointer)
        self.array: npt.NDArray[Any] = np.ctypeslib.as_array(raw).view(dtype).reshape(shape)

    def close(self) -> None:
        """Frees the memory; `array` and its views must no longer be used."""
        if self._pointer:
            self.array = np.empty(0, self.array.dtype)
            check(cuda.cudaFreeHost(self._pointer), "freeing pinned memory")
            self._pointer = 0


class AnyStream:
    """A queue of GPU work, ours or the caller's."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def hold(self, milliseconds: float) -> None:
        """Queues a pause: what is queued from here on waits for it."""
        self._pause = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
            lambda _: time.sleep(milliseconds / 1000)
        )  # kept: CUDA calls it later
        address = int(ctypes.cast(self._pause, ctypes.c_void_p).value or 0)
        check(cuda.cudaLaunchHostFunc(self.handle, cuda.cudaHostFn_t(address), 0), "queueing a pause")

    def wait_for(self, event: Event) -> None:
        """Work queued from here on starts after the event; the host does not wait."""
        check(cuda.cudaStreamWaitEvent(self.handle, event.handle, 0), "making a stream wait")


class Stream(AnyStream):
    """A queue of GPU work that does not wait for the default stream. Addresses are those of device memory."""

    def __init__(self) -> None:
        super().__init__(int(check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking), "creating a stream")))

    def copy_in(self, target: int, source: npt.NDArray[Any]) -> None:
        """Queues a copy from host memory; from pinned memory the host does not wait."""
        self._copy(target, source.ctypes.data, source.nbytes, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def copy_out(self, target: npt.NDArray[Any], source: int) -> None:
        """Queues a copy to host memory; to pinned memory the host does not wait."""
        self._copy(target.ctypes.data, source, target.nbytes, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def fill(self, target: int, byte: int, size: int) -> None:
        """Queues the overwriting of `size` bytes with one value."""
        check(cuda.cudaMemsetAsync(target, byte, size, self.handle), "filling memory of the GPU")

    def synchronize(self) -> None:
        """Blocks until everything queued is done; reports what failed meanwhile."""
        check(cuda.cudaStreamSynchronize(self.handle), "waiting for the GPU")

    def close(self) -> None:
        """Destroys the stream once its work is done."""
        if self.handle:
            check(cuda.cudaStreamDestroy(self.handle), "destroying a stream")
            self.handle = 0

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        check(cuda.cudaMemcpyAsync(target, source, size, kind, self.handle), f"copying {size / MIB:.1f} MiB")


class Event:
    """A point in a stream's work."""

    def __init__(self) -> None:
        self.handle = int(check(cuda.cudaEventCreateWithFlags(cuda.cudaEventDisableTiming), "creating an event"))

    def record(self, stream: AnyStream) -> None:
        """Marks the work queued on the stream so far."""
        check(cuda.cudaEventRecord(self.handle, stream.handle), "recording an event")

    def synchronize(self) -> None:
        """Blocks until the marked work is done, as it is once the event was closed."""
        if self.handle:
            check(cuda.cudaEventSynchronize(self.handle), "waiting for the GPU")

    def close(self) -> None:
        """Destroys the event."""
        if self.handle:
            check(cuda.cudaEventDestroy(self.handle), "destroying an event")
            self.handle = 0


class TimedEvent(Event):
    """A point in a stream's work whose time is kept. A thread that waits for it spins, or sleeps where `blocking`."""

    def __init__(self, blocking: bool = False) -> None:
        flags = cuda.cudaEventBlockingSync if blocking else cuda.cudaEventDefault
        self.handle = int(check(cuda.cudaEventCreateWithFlags(flags), "creating an event"))

    def milliseconds_after(self, start: TimedEvent) -> float:
        """From `start` to this; both were waited for."""
        return float(check(cuda.cudaEventElapsedTime(start.handle, self.handle), "reading the time of an event"))


class Graph:
    """Work recorded once, then launched with a single call. The addresses that it uses are fixed."""

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Records what `enqueue` queues on `stream`, which must not synchronise, or raises what it raises."""
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cuda.cudaStreamBeginCapture(stream.handle, mode), "starting to record a CUDA graph")
        try:
            enqueue()
        except BaseException:
            _, unfinished = cuda.cudaStreamEndCapture(stream.handle)  # a stream left recording would be unusable
            if unfinished is not None:
                cuda.cudaGraphDestroy(unfinished)
            raise
        graph = check(cuda.cudaStreamEndCapture(stream.handle), "recording a CUDA graph")
        try:
            self._executable = check(cuda.cudaGraphInstantiate(graph, 0), "instantiating a CUDA graph")
        finally:
            check(cuda.cudaGraphDestroy(graph), "freeing a recorded graph")

    def launch(self, stream: Stream) -> None:
        """Queues the recorded work."""
        check(cuda.cudaGraphLaunch(self._executable, stream.handle), "launching a CUDA graph")

    def close(self) -> None:
        """Frees the graph."""
        if self._executable is not None:
            check(cuda.cudaGraphExecDestroy(self._executable), "freeing a CUDA graph")
            self._executable = None


def _said(status: Any) -> tuple[str, str]:
    """The name and the text of a status of the driver or of the runtime."""
    if isinstance(status, driver.CUresult):
        return _text(driver.cuGetErrorName(status)), _text(driver.cuGetErrorString(status))
    return _text(cuda.cudaGetErrorName(status)), _text(cuda.cudaGetErrorString(status))


def _text(result: tuple[Any, ...]) -> str:
    raw = result[1]
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def _remedy(status: Any) -> str:
    errors = cuda.cudaError_t
    if status == errors.cudaErrorMemoryAllocation:
        return ": use smaller frames or tiles, or free GPU memory"
    if status in (errors.cudaErrorInsufficientDriver, errors.cudaErrorNoDevice):
        return ": this needs an NVIDIA GPU, with a driver that is not older than the cuda-bindings package"
    return ""
