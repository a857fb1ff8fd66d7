"""DLPack read in place from libraries that are at hand on a CPU: numpy and PyTorch."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime import InputError
from runtime.backends.device_arrays import DeviceArray
from runtime.backends.dlpack import CPU, BorrowedTensor, capsule, is_device_array


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


class Lender:
    """Lends its memory as our arrays on a GPU do."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return CPU, 0

    def __dlpack__(self, **_):
        return capsule(self.array.ctypes.data, self.array.shape, self.array.dtype, (CPU, 0), self)


@pytest.mark.parametrize("take", [np.from_dlpack, torch.from_dlpack])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
def test_what_we_lend_is_taken_and_given_back(take, dtype):
    lender = Lender(np.arange(24, dtype=dtype).reshape(2, 3, 4))
    gone, expected = weakref.ref(lender), lender.array.copy()
    taken = take(lender)
    del lender
    gc.collect()
    np.testing.assert_array_equal(np.asarray(taken), expected)
    del taken
    gc.collect()
    assert gone() is None


def test_a_capsule_that_nobody_takes_is_given_back():
    lender = Lender(np.zeros(3, np.float32))
    gone, lent = weakref.ref(lender), lender.__dlpack__()
    del lender
    gc.collect()
    assert gone() is not None
    del lent
    gc.collect()
    assert gone() is None


def test_a_process_may_end_with_what_it_took():
    code = """
import sys, numpy, torch
sys.path.insert(0, sys.argv[1])
from test_dlpack import Lender
sys.kept = [take(Lender(numpy.zeros(3, numpy.float32))) for take in (numpy.from_dlpack, torch.from_dlpack)]
"""
    here = Path(__file__).parent
    found = subprocess.run([sys.executable, "-c", code, here], cwd=here.parent, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


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
