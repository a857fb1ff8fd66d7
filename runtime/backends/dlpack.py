"""Reads arrays of other libraries in place, and lends ours, through DLPack (https://dmlc.github.io/dlpack).

Capsules are those of version 0.8, without a version of their own, which every library takes. PyAV's hardware frames, TensorFlow
and JAX offer them; PyTorch and CuPy have `__cuda_array_interface__` besides.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

from runtime.errors import InputError

CPU, CUDA, CUDA_MANAGED = 1, 2, 13  # DLDeviceType
KINDS = {0: "i", 1: "u", 2: "f"}  # DLDataTypeCode: numpy's kind
CODES = {kind: code for code, kind in KINDS.items()}
LEGACY_DEFAULT_STREAM = 1  # as DLPack numbers CUDA's streams
FRESH, TAKEN = b"dltensor", b"used_dltensor"  # names of a capsule, before and after its memory has an owner


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    """DLManagedTensor."""


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER)]

_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))

# Of a capsule that is being freed, which must not be counted as in use: by its address.
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_is_valid_at = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)(("PyCapsule_New", ctypes.pythonapi))
_lent: dict[int, tuple[object, ...]] = {}  # what lives as long as the taker of a capsule, by the address of its _Managed


def capsule(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], owner: object) -> object:
    """C-contiguous memory as a capsule; `owner` lives until its taker has given it back. `device` is DLDeviceType and number."""
    lengths = (ctypes.c_int64 * len(shape))(*shape)
    bits, code = dtype.itemsize * 8, CODES[dtype.kind]
    tensor = _Tensor(pointer, *device, len(shape), code, bits, 1, ctypes.cast(lengths, ctypes.POINTER(ctypes.c_int64)), None, 0)
    managed = _Managed(tensor, None, _taken_back)
    address = ctypes.addressof(managed)
    _lent[address] = (managed, lengths, owner)
    return _new(address, FRESH, _never_taken)


def _give_up(managed: Any) -> None:
    """The taker calls it, in any thread."""
    _lent.pop(ctypes.addressof(managed.contents), None)


def _give_up_untaken(address: int) -> None:
    if _is_valid_at(address, FRESH):
        _lent.pop(_pointer_at(address, FRESH), None)


_taken_back, _never_taken = _DELETER(_give_up), _DESTRUCTOR(_give_up_untaken)
for _callback in (_taken_back, _never_taken):  # never freed: takers call them while the process ends
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))


class BorrowedTensor:
    """Memory that belongs to another library, which gets it back with this object.

    `strides` are in bytes; None where the memory is C-contiguous by definition. `device_type` is CPU, CUDA or another number of
    DLDeviceType. CUDA's `stream` goes on after the work that fills the memory; the host does not wait.
    """

    def __init__(self, array: Any, stream: int = LEGACY_DEFAULT_STREAM) -> None:
        """Raises InputError when the library does not hand its memory out, or in a type that numpy lacks."""
        device, _ = array.__dlpack_device__()
        try:
            capsule = array.__dlpack__(stream=stream) if device in (CUDA, CUDA_MANAGED) else array.__dlpack__()
        except (BufferError, TypeError, ValueError, RuntimeError) as error:
            raise _refused(array, error) from error
        if not _is_valid(capsule, FRESH):
            raise InputError(f"{type(array).__name__} offers a newer DLPack than this reads: hand over a numpy array")
        managed = ctypes.cast(_pointer_of(capsule, FRESH), ctypes.POINTER(_Managed))
        _rename(capsule, TAKEN)
        weakref.finalize(self, _give_back, managed).atexit = False
        tensor = managed.contents.tensor
        if tensor.code not in KINDS or tensor.bits % 8 or tensor.lanes != 1:
            raise InputError(
                f"got samples of DLPack's type {tensor.code} with {tensor.bits} bits, expected float32, uint8 or uint16"
            )
        self.dtype = np.dtype(f"{KINDS[tensor.code]}{tensor.bits // 8}")
        self.shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
        dense = not tensor.strides
        self.strides = None if dense else tuple(tensor.strides[i] * self.dtype.itemsize for i in range(tensor.ndim))
        self.pointer = (tensor.data or 0) + tensor.byte_offset
        self.device_type, self.device_id = tensor.device_type, tensor.device_id


def is_device_array(array: object) -> bool:
    """Whether an array lives on an NVIDIA GPU, by `__cuda_array_interface__` or DLPack. Raises InputError when it will not tell."""
    try:
        if hasattr(array, "__cuda_array_interface__"):
            return True
    except RuntimeError as error:  # PyTorch's, of a tensor that collects gradients
        raise _refused(array, error) from error
    device = getattr(array, "__dlpack_device__", None)
    return device is not None and device()[0] in (CUDA, CUDA_MANAGED)


def _refused(array: object, error: Exception) -> InputError:
    return InputError(f"{type(array).__name__} does not lend its memory ({error}): detach or copy the array")


def _give_back(managed: Any) -> None:
    if managed.contents.deleter:
        managed.contents.deleter(managed)
