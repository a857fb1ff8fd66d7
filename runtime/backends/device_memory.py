"""CUDA memory, streams, events and graphs of one GPU, through cuda-python; the only file that imports it.

The primary context is used, as PyTorch, CuPy and ONNX Runtime do, so their arrays can be read in place (`DeviceArray.of`).
Everything that owns something has an idempotent `close`. Every status is checked; a failure is a BackendError.
"""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import runtime as cuda

from runtime.backends.dlpack import LEGACY_DEFAULT_STREAM, BorrowedTensor, is_device_array
from runtime.errors import BackendError, InputError

DRIVER_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
MIB = 1 << 20
ALIGNMENT = 256  # bytes, of every address that TensorRT is given


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    index: int
    name: str
    compute_capability: tuple[int, int]  # (9, 0) is Hopper
    memory: int  # bytes in all
    driver: int  # the newest CUDA version that the driver supports, 13000 is 13.0


def open_gpu(index: int = 0) -> Gpu:
    """Makes the device current for this thread. Raises BackendError, without touching CUDA, where there is no driver."""
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        raise BackendError(
            f"no NVIDIA driver on this machine ({DRIVER_LIBRARY} is missing): install it, or run an .onnx file on the CPU"
        ) from error
    count = check(cuda.cudaGetDeviceCount(), "looking for GPUs")
    if not 0 <= index < count:
        raise BackendError(f"GPU {index} was asked for, this machine has {count}: number them from 0")
    use_gpu(index)
    facts = check(cuda.cudaGetDeviceProperties(index), f"reading the properties of GPU {index}")
    driver = check(cuda.cudaDriverGetVersion(), "reading the driver's version")
    return Gpu(index, facts.name.decode().strip("\0"), (facts.major, facts.minor), facts.totalGlobalMem, driver)


def use_gpu(index: int) -> None:
    """Makes the device current for this thread; each thread that works with it has to."""
    check(cuda.cudaSetDevice(index), f"opening GPU {index}")


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
    if status != cuda.cudaError_t.cudaSuccess:
        name, text = (_text(call(status)) for call in (cuda.cudaGetErrorName, cuda.cudaGetErrorString))
        raise BackendError(f"CUDA failed while {doing}: {name}, {text}{_remedy(status)}")
    return values[0] if len(values) == 1 else tuple(values)


class DeviceBuffer:
    """Device memory. `pointer` is its address, 256-byte aligned. It is freed by `close`, or with the object."""

    def __init__(self, size: int) -> None:
        self.size = size  # bytes
        self.pointer = int(check(cuda.cudaMalloc(size), f"allocating {size / MIB:.0f} MiB on the GPU"))
        self._free = weakref.finalize(self, cuda.cudaFree, self.pointer)
        self._free.atexit = False  # the process's memory goes with it, and CUDA may be gone before

    def close(self) -> None:
        """Frees the memory; no work that uses it may be in flight."""
        freed = self._free()  # None the second time
        if freed is not None:
            check(freed, "freeing memory of the GPU")


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


class Stream:
    """A queue of GPU work that does not wait for the default stream."""

    def __init__(self) -> None:
        self.handle = int(check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking), "creating a stream"))

    def copy_in(self, target: DeviceBuffer, source: npt.NDArray[Any]) -> None:
        """Queues a copy from pinned host memory."""
        self._copy(target.pointer, source.ctypes.data, source.nbytes, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def copy_out(self, target: npt.NDArray[Any], source: DeviceBuffer) -> None:
        """Queues a copy to pinned host memory."""
        self._copy(target.ctypes.data, source.pointer, target.nbytes, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def fill(self, target: DeviceBuffer, byte: int) -> None:
        """Queues the overwriting of a buffer with one byte value."""
        check(cuda.cudaMemsetAsync(target.pointer, byte, target.size, self.handle), "filling memory of the GPU")

    def hold(self, milliseconds: float) -> None:
        """Queues a pause: what is queued from here on waits for it."""
        self._pause = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
            lambda _: time.sleep(milliseconds / 1000)
        )  # kept: CUDA calls it later
        address = int(ctypes.cast(self._pause, ctypes.c_void_p).value or 0)
        check(cuda.cudaLaunchHostFunc(self.handle, cuda.cudaHostFn_t(address), 0), "queueing a pause")

    def wait_for(self, event: Event) -> None:
        """Work queued from here on starts after the event."""
        check(cuda.cudaStreamWaitEvent(self.handle, event.handle, 0), "making a stream wait")

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

    def record(self, stream: Stream) -> None:
        """Marks the work queued on the stream so far."""
        check(cuda.cudaEventRecord(self.handle, stream.handle), "recording an event")

    def synchronize(self) -> None:
        """Blocks until the marked work is done."""
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


@dataclass(frozen=True)
class DeviceArray:
    """C-contiguous device memory of this or another library, which `owner` keeps alive.

    Offers `__cuda_array_interface__`, which `torch.as_tensor`, `cupy.asarray`, PyCUDA and Numba take without a copy.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False), "strides": None, "version": 3}

    @classmethod
    def of(cls, array: Any) -> DeviceArray:
        """The memory behind an array with `__cuda_array_interface__` (PyTorch, CuPy, PyCUDA, Numba) or DLPack, not copied.

        Waits for the work that fills it. Raises InputError when the array is not on the current GPU, not C-contiguous, or not
        aligned.
        """
        if not is_device_array(array):
            raise InputError(f"got {type(array).__name__}, expected a numpy array, or one on the GPU (CUDA array or DLPack)")
        interface = getattr(array, "__cuda_array_interface__", None)
        if interface is None:
            lent = BorrowedTensor(array)
            found, strides, stream = cls(lent.pointer, lent.shape, lent.dtype, lent), lent.strides, LEGACY_DEFAULT_STREAM
        else:
            found = cls(interface["data"][0], tuple(interface["shape"]), np.dtype(interface["typestr"]), array)
            strides, stream = interface.get("strides"), interface.get("stream")
        if strides is not None and not _is_dense(strides, found.shape, found.dtype.itemsize):
            raise InputError(f"got an array on the GPU with strides {strides}, expected it C-contiguous: copy it first")
        if found.pointer % ALIGNMENT:
            raise InputError(f"got an array on the GPU at an address that is not a multiple of {ALIGNMENT}: copy it first")
        _check_place(found.pointer)
        _wait_for_producer(stream)
        return found


def _check_place(pointer: int) -> None:
    """Raises InputError unless the memory is on the current GPU: a kernel that reads another's ends all work of the process."""
    current = check(cuda.cudaGetDevice(), "asking for the current GPU")
    facts = check(cuda.cudaPointerGetAttributes(pointer), "asking where an array lies")
    if facts.type not in (cuda.cudaMemoryType.cudaMemoryTypeDevice, cuda.cudaMemoryType.cudaMemoryTypeManaged):
        raise InputError("got an array that is not in the memory of a GPU: hand it over as a numpy array")
    if facts.device != current:
        raise InputError(f"got an array on GPU {facts.device}, the engine is on GPU {current}: copy it there")


def _wait_for_producer(stream: int | None) -> None:
    """`stream` as in version 3 of the interface; without one, everything on the device may be filling the array."""
    if stream is None:
        check(cuda.cudaDeviceSynchronize(), "waiting for the array's producer")
    else:
        check(cuda.cudaStreamSynchronize(stream), "waiting for the array's producer")


def _is_dense(strides: Sequence[int], shape: tuple[int, ...], itemsize: int) -> bool:
    """Whether the bytes between samples are those of C order; along an axis of one sample any number will do."""
    step = itemsize
    for stride, length in zip(reversed(strides), reversed(shape)):
        if length > 1 and stride != step:
            return False
        step *= length
    return True


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
