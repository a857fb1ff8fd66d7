"""A window in the memory of the GPU; needs cuda-bindings."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from runtime.backends.device_memory import DeviceArray, DeviceBuffer, PinnedArray, Stream


def on_device(window: np.ndarray) -> DeviceArray:
    """A copy of a window in the memory of the GPU; it is freed with the result."""
    memory = DeviceBuffer(window.nbytes)
    with closing(Stream()) as stream, closing(PinnedArray(window.shape, window.dtype)) as pinned:
        pinned.array[:] = window
        stream.copy_in(memory, pinned.array)
        stream.synchronize()
    return DeviceArray(memory.pointer, window.shape, window.dtype, memory)
