"""A window in the memory of the GPU; needs cuda-bindings."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from runtime.backends.device_arrays import DeviceArray
from runtime.backends.device_memory import DeviceBuffer, PinnedArray, Stream, on_gpu, open_gpu


def on_device(window: np.ndarray) -> DeviceArray:
    """A copy of a window in the memory of the GPU; it is freed with the result."""
    gpu = open_gpu()
    with on_gpu(gpu), closing(Stream()) as stream, closing(PinnedArray(window.shape, window.dtype)) as pinned:
        memory = DeviceBuffer(window.nbytes)
        pinned.array[:] = window
        stream.copy_in(memory.pointer, pinned.array)
        stream.synchronize()
    return DeviceArray(memory.pointer, window.shape, window.dtype, memory, gpu)
