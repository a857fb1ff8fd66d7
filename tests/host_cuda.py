"""CUDA's calls, done at once by the host in its own memory: what uses them runs, whatever it computes; others than these fail."""

# ruff: noqa: N802, N815 - the names are CUDA's

import ctypes
import time

from cuda.bindings import runtime as real

OK = real.cudaError_t.cudaSuccess


class HostCuda:
    """In place of `cuda` in runtime/backends/device_memory.py; `open` counts what was made and not destroyed."""

    def __init__(self):
        self.memory, self.events, self.open, self.capturing, self.launched = {}, {}, {}, False, 0
        self.names = iter(range(1, 1 << 20))

    def __getattr__(self, name):  # enumerations and flags are CUDA's own
        value = getattr(real, name)
        if callable(value) and not isinstance(value, type):
            raise AssertionError(f"{name} is called, and no one has said what it does")
        return value

    def _new(self, kind):
        self.open[kind] = self.open.get(kind, 0) + 1
        return OK, next(self.names)

    def _gone(self, kind):
        self.open[kind] -= 1
        return (OK,)

    def cudaDeviceGetAttribute(self, attribute, index):
        return OK, 4 << 20

    def cudaMalloc(self, size):
        block = (ctypes.c_ubyte * size)()
        self.memory[ctypes.addressof(block)] = block
        self.open["memory"] = self.open.get("memory", 0) + 1
        return OK, ctypes.addressof(block)

    def cudaHostAlloc(self, size, flags):
        return self.cudaMalloc(size)

    def cudaFree(self, pointer):
        del self.memory[pointer]
        return self._gone("memory")

    cudaFreeHost = cudaFree

    def cudaStreamCreateWithFlags(self, flags):
        return self._new("stream")

    def cudaStreamDestroy(self, handle):
        return self._gone("stream")

    def cudaStreamSynchronize(self, handle):
        assert not self.capturing
        return (OK,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        ctypes.memmove(target, source, size)
        return (OK,)

    def cudaLaunchHostFunc(self, stream, function, data):
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(int(function))(data)
        return (OK,)

    def cudaEventCreateWithFlags(self, flags):
        assert flags in (real.cudaEventDefault, real.cudaEventBlockingSync)  # without a time it measures nothing
        return self._new("event")

    def cudaEventDestroy(self, handle):
        return self._gone("event")

    def cudaEventRecord(self, handle, stream):
        self.events[handle] = time.perf_counter()
        return (OK,)

    def cudaEventSynchronize(self, handle):
        assert handle in self.events
        return (OK,)

    def cudaStreamWaitEvent(self, stream, handle, flags):
        assert handle in self.events  # CUDA does not wait for an event that was never recorded
        return (OK,)

    def cudaEventElapsedTime(self, start, end):
        return OK, 1000 * (self.events[end] - self.events[start])

    def cudaStreamBeginCapture(self, stream, mode):
        self.capturing = True
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        self.capturing = False
        return OK, next(self.names)

    def cudaGraphInstantiate(self, graph, flags):
        return self._new("graph")

    def cudaGraphDestroy(self, graph):
        return (OK,)

    def cudaGraphLaunch(self, graph, stream):
        self.launched += 1
        return (OK,)

    def cudaGraphExecDestroy(self, graph):
        return self._gone("graph")


class HostDriver:
    """In place of `driver` there: a thread's current context is the last that was set."""

    current = 0

    def cuCtxGetCurrent(self):
        return OK, self.current

    def cuCtxSetCurrent(self, context):
        self.current = context
        return (OK,)
