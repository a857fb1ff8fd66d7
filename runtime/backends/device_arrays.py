"""Arrays in the memory of a GPU: those of PyTorch, CuPy, PyCUDA and Numba read in place, ours handed to them, and their streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.backends.device_memory import Event, Gpu, callers_stream, on_gpu
from runtime.backends.dlpack import CUDA, LEGACY_DEFAULT_STREAM, BorrowedTensor, capsule, is_device_array
from runtime.errors import InputError

ALIGNMENT = 256  # bytes, of every address that TensorRT is given
STREAM_ATTRIBUTES = ("cuda_stream", "ptr", "handle")  # PyTorch before 2.10, CuPy, PyCUDA and Numba
NO_ORDER = -1  # DLPack's "leave the order to me"


@dataclass(frozen=True)
class DeviceArray:
    """C-contiguous device memory of this or another library, which `owner` keeps alive.

    Offers `__cuda_array_interface__` (version 3), which `torch.as_tensor`, `cupy.asarray`, PyCUDA and Numba take without a copy,
    and DLPack (`torch.from_dlpack`), which also makes the taker's stream wait.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    gpu: Gpu | None = None  # where it lies; None for the first
    stream: int | None = None  # handle of the stream in whose order it is ready; None: it is ready
    ready: Event | None = None  # comes when it is ready; None: it is ready

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        layout = {"shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False), "strides": None}
        return {**layout, "version": 3, "stream": self.stream}

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self.gpu.index if self.gpu else 0

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule of DLPack 0.8, whatever `max_version` is; what is queued on `stream` from here on finds the array ready."""
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("this array is lent where it lies: copy what is lent")
        if self.ready is not None and self.ready.handle and self.gpu is not None and stream != NO_ORDER:
            with on_gpu(self.gpu):
                callers_stream(LEGACY_DEFAULT_STREAM if stream is None else stream, self.gpu).wait_for(self.ready)
        return capsule(self.pointer, self.shape, self.dtype, self.__dlpack_device__(), self.owner)

    @classmethod
    def of(cls, array: Any, stream: int | None = None) -> DeviceArray:
        """The memory behind an array with `__cuda_array_interface__` (PyTorch, CuPy, PyCUDA, Numba) or DLPack, not copied.

        Its `stream` is the one after whose work it may be read: the one given, else the one that the array names, else CUDA's
        legacy default stream. Raises InputError when the array is not C-contiguous or not aligned; where it lies is not looked at.
        """
        if not is_device_array(array):
            raise InputError(f"got {type(array).__name__}, expected a numpy array, or one on the GPU (CUDA array or DLPack)")
        order = LEGACY_DEFAULT_STREAM if stream is None else stream
        interface = getattr(array, "__cuda_array_interface__", None)
        if interface is None or (stream is None and "stream" not in interface and hasattr(array, "__dlpack__")):
            lent = BorrowedTensor(array, order)  # its library makes that stream wait
            found, strides = cls(lent.pointer, lent.shape, lent.dtype, lent, stream=order), lent.strides
        else:
            order = (interface.get("stream") or order) if stream is None else order
            facts = interface["data"][0], tuple(interface["shape"]), np.dtype(interface["typestr"])
            found, strides = cls(*facts, array, stream=order), interface.get("strides")
        if strides is not None and not is_dense(strides, found.shape, found.dtype.itemsize):
            raise InputError(f"got an array on the GPU with strides {strides}, expected it C-contiguous: copy it first")
        if found.pointer % ALIGNMENT:
            raise InputError(f"got an array on the GPU at an address that is not a multiple of {ALIGNMENT}: copy it first")
        return found

    @classmethod
    def to_fill(cls, out: Any, blurry: DeviceArray, stream: int | None) -> DeviceArray:
        """The memory behind the caller's output for a window; see `of`. Raises InputError when it cannot take the result."""
        if not is_device_array(out):
            raise InputError(f"got {type(out).__name__} to fill, the window is on the GPU: give an array there, or none")
        interface = getattr(out, "__cuda_array_interface__", None)
        if interface is None or interface["data"][1]:
            raise InputError("got an output that is read-only, or does not tell (DLPack alone): give another, or none")
        found = cls.of(out, stream)
        if (found.shape, found.dtype) != (blurry.shape, blurry.dtype):
            wanted = f"{blurry.shape} {blurry.dtype}, as the window is"
            raise InputError(f"got an output of {found.shape} {found.dtype}, expected {wanted}: give such a one, or none")
        if found.pointer < blurry.pointer + blurry.nbytes and blurry.pointer < found.pointer + found.nbytes:
            raise InputError("got an output that overlaps the window, which is read until the end: give memory of its own")
        return found


def stream_handle(stream: Any) -> int:
    """What CUDA calls a stream that is an int, offers `__cuda_stream__`, or is PyTorch's, CuPy's, PyCUDA's or Numba's.

    Raises InputError for anything else.
    """
    if callable(protocol := getattr(stream, "__cuda_stream__", None)):
        return int(protocol()[1])
    named = next((getattr(stream, name) for name in STREAM_ATTRIBUTES if hasattr(stream, name)), stream)
    number = getattr(named, "value", named)  # Numba's is a c_void_p, of which None is 0
    if number is None and named is not stream:
        return 0
    if isinstance(number, bool) or not hasattr(number, "__int__") or isinstance(number, (float, np.ndarray)) or int(number) < 0:
        raise InputError(f"got {type(stream).__name__} for the stream, expected one of PyTorch, CuPy, PyCUDA, Numba, or its handle")
    return int(number)


def is_dense(strides: Sequence[int], shape: tuple[int, ...], itemsize: int) -> bool:
    """Whether the bytes between samples are those of C order; along an axis of one sample any number will do."""
    step = itemsize
    for stride, length in zip(reversed(strides), reversed(shape)):
        if length > 1 and stride != step:
            return False
        step *= length
    return True
