"""Memory for results: what one leaves behind, a later one on the same stream takes. cudaMalloc and cudaFree stall a device."""

from __future__ import annotations

import weakref
from collections import defaultdict

from runtime.backends.device_memory import DeviceBuffer
from runtime.errors import BackendError


class Lease:
    """Memory of a pool, which gets it back with this object."""

    def __init__(self, pool: OutputPool, buffer: DeviceBuffer, stream: int) -> None:
        self.pointer = buffer.pointer
        weakref.finalize(self, pool.take_back, buffer, stream).atexit = False


class OutputPool:
    """Buffers by size and stream. On that stream a later result is written after all that was queued to read the one before."""

    def __init__(self) -> None:
        self._free: defaultdict[tuple[int, int], list[DeviceBuffer]] = defaultdict(list)
        self._closed = False

    def take(self, size: int, stream: int) -> Lease:
        """Memory of `size` bytes; new where none was left behind, for which all that was is freed if the GPU has no other."""
        left = self._free[size, stream]
        return Lease(self, left.pop() if left else self._new(size), stream)

    def take_back(self, buffer: DeviceBuffer, stream: int) -> None:
        """In whatever thread the last reference to a result goes."""
        if self._closed:
            buffer.close()
        else:
            self._free[buffer.size, stream].append(buffer)

    def close(self) -> None:
        """Frees what is not in use; the rest is freed as it comes back."""
        self._closed = True
        self._empty()

    def _new(self, size: int) -> DeviceBuffer:
        try:
            return DeviceBuffer(size)
        except BackendError:
            self._empty()
            return DeviceBuffer(size)

    def _empty(self) -> None:
        for left in tuple(self._free.values()):
            while left:
                left.pop().close()
