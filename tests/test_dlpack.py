"""DLPack read in place from libraries that are at hand on a CPU: numpy and PyTorch."""

import gc
import weakref

import numpy as np
import pytest
import torch

from runtime import InputError
from runtime.backends.device_memory import DeviceArray
from runtime.backends.dlpack import CPU, BorrowedTensor, is_device_array


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "uint16", "int64"])
def test_numpy_arrays_are_read_in_place(dtype):
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    lent = BorrowedTensor(array)
    assert (lent.pointer, lent.shape, lent.dtype, lent.device_type) == (array.ctypes.data, (2, 3, 4), array.dtype, CPU)
    assert lent.strides in (None, array.strides)


def test_strides_and_offsets_are_those_of_the_view():
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    view = whole[1:, ::2]
    lent = BorrowedTensor(view)
    assert (lent.pointer, lent.shape, lent.strides) == (whole.data_ptr() + 24, (3, 3), (24, 8))


def test_the_lender_gets_its_memory_back():
    array = np.zeros((2, 2), np.float32)
    gone = weakref.ref(array)
    lent = BorrowedTensor(array)
    del array
    gc.collect()
    assert gone() is not None
    del lent
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (torch.zeros(2, requires_grad=True), "does not lend its memory"),
        (torch.zeros(2, dtype=torch.bfloat16), "DLPack's type 4 with 16 bits"),
        (torch.zeros(2, dtype=torch.complex64), "DLPack's type 5 with 64 bits"),
    ],
)
def test_what_cannot_be_borrowed(array, message):
    with pytest.raises(InputError, match=message):
        BorrowedTensor(array)


def test_arrays_on_the_cpu_are_no_device_arrays():
    assert [is_device_array(array) for array in (np.zeros(2), torch.zeros(2), [1])] == [False, False, False]
    with pytest.raises(InputError, match="got Tensor, expected a numpy array, or one on the GPU"):
        DeviceArray.of(torch.zeros(2))


class CollectsGradients:
    """As PyTorch's tensors do on a GPU."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("it requires grad")


def test_tensor_that_collects_gradients_is_refused():
    with pytest.raises(InputError, match=r"does not lend its memory \(it requires grad\): detach"):
        is_device_array(CollectsGradients())
