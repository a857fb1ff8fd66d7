"""Runs TensorRT engines (full TensorRT 8.6 to 11, TensorRT-RTX, the lean runtime) and keeps the GPU busy.

Copy in, compute and copy out have a stream each, and windows take turns in a ring of buffers, so that the three overlap when a
caller submits the next window before it asks for the result of the last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends.device_arrays import DeviceArray, stream_handle
from runtime.backends.device_memory import (
    AnyStream,
    DeviceBuffer,
    Event,
    Stream,
    callers_stream,
    check_place,
    on_gpu,
    open_gpu,
)
from runtime.backends.dlpack import is_device_array
from runtime.backends.output_pool import OutputPool
from runtime.backends.tensorrt_bindings import Bindings
from runtime.backends.tensorrt_buffers import Ring
from runtime.backends.tensorrt_engine import LoadedEngine, cache_path, kernel_cache, library_for
from runtime.errors import BackendError, InputError
from runtime.files.engine_record import EngineRecord, read_engine
from runtime.files.on_disk import Read

SHAPES = 2  # input shapes whose buffers are kept


@dataclass(frozen=True)
class Ticket:
    """A submitted window, to be exchanged for its result once."""

    shape: tuple[int, ...]
    slot: int


@dataclass(frozen=True)
class DeviceTicket:
    """A submitted window in the memory of the GPU, to be exchanged for its result."""

    sharp: Any  # the caller's output, or a DeviceArray
    unfinished: Event | None = None  # what the result waits for; None where a stream of the caller's does
    window: DeviceArray | None = None  # which is read until then


class TensorRtRunner:
    """A `Runner` on one GPU. `precision` is the record's. One caller at a time; open a runner for each thread.

    It works in the GPU's primary context, and leaves to every caller the context that was current.

    `cuda_graph` records the work for each set of buffers once and launches it with one call; the first window through them is
    computed both ways, and where they differ the runner goes on without graphs and says so in the log. `cache` is the file of
    TensorRT-RTX's compiled kernels, by default one for the engine in the user's cache. `read` reads the engine and its record.
    Raises BackendError when there is no GPU, no driver, or the engine is for another library, version or GPU; ModelError when
    the file is damaged. All of that is checked before the library sees the file.
    """

    name = "tensorrt"

    def __init__(
        self, path: Path, device: int = 0, cuda_graph: bool = True, cache: Path | None = None, read: Read = Path.read_bytes
    ) -> None:
        self.record: EngineRecord
        self.record, plan = read_engine(path, read)
        self.precision = self.record.precision
        self.gpu = open_gpu(device)
        library = library_for(self.record)
        self.record.check_machine(library.name, library.version, self.gpu.compute_capability)
        with on_gpu(self.gpu), ExitStack() as owned:
            self._copy_in, self._compute, self._copy_out = (owned.enter_context(closing(Stream())) for _ in range(3))
            self._arrived = owned.enter_context(closing(Event()))  # what callers queued before their windows
            self._loaded: LoadedEngine | None = LoadedEngine(library, path, self.record, plan)
            self._kernels = kernel_cache(self._loaded, cache or cache_path(self.record, self.gpu.name))
            self._bindings = Bindings(self._loaded, self._kernels, self._compute, cuda_graph)
            self._outputs = OutputPool()
            self._owned = owned.pop_all()
        self._rings: OrderedDict[tuple[int, ...], Ring] = OrderedDict()

    def run(self, blurry: Any, out: Any = None, stream: Any = None) -> Any:
        """See `Runner.run`; for an array on the GPU, which takes `out` and `stream`, see `submit_on_device`."""
        if is_device_array(blurry):
            return self.result_on_device(self.submit_on_device(blurry, out, stream))
        return self.result(self.submit(blurry))

    def submit(self, blurry: npt.NDArray[Any]) -> Ticket:
        """Queues a window, which may be changed as soon as this returns. At most IN_FLIGHT may wait for `result`."""
        with self._at_work() as loaded:
            _check_dtype(blurry.dtype, loaded.dtype)
            slot = self._ring(blurry.shape, loaded).take()
            binding = slot.binding(self._bindings)
            np.copyto(slot.host_in.array, blurry)
            self._copy_in.copy_in(slot.device_in.pointer, slot.host_in.array)
            slot.arrived.record(self._copy_in)
            self._compute.wait_for(slot.arrived)
            self._bindings.launch(binding)
            self._copy_out.wait_for(binding.computed)
            self._copy_out.copy_out(slot.host_out.array, slot.device_out.pointer)
            slot.returned.record(self._copy_out)
            slot.waiting = True
            return Ticket(blurry.shape, slot.number)

    def result(self, ticket: Ticket) -> npt.NDArray[Any]:
        """Waits for a submitted window and returns its sharp frames, a new array."""
        with self._at_work():
            ring = self._rings.get(ticket.shape)
            if ring is None or not ring.slots[ticket.slot].waiting:
                raise BackendError("this window's result was already taken, or its buffers were freed: take results in order")
            slot = ring.slots[ticket.slot]
            slot.waiting = False  # whatever comes: a window that fails does not keep its buffers from the next
            slot.returned.synchronize()
            return np.array(slot.host_out.array)

    def submit_on_device(self, blurry: Any, out: Any = None, stream: Any = None) -> DeviceTicket:
        """Queues a window on the GPU (see `DeviceArray.of`), which is read in place; the result goes to `out`, or to new memory.

        With `stream`, the caller's, this is one more piece of work in its order: what was queued on it before fills the window and
        has read `out`, what is queued on it later finds the result, and the host waits for nothing. Nor does it allocate, once
        sizes and addresses repeat: memory of results that are gone is used again for results on the same stream.
        Without, the window is read after the work on the stream that it names, else on the legacy default stream.
        Raises InputError when the window, `out` or `stream` does not fit, lies on another GPU or belongs to another context.
        """
        handle = None if stream is None else stream_handle(stream)
        with self._at_work() as loaded:
            order = None if handle is None else callers_stream(handle, self.gpu)
            window = DeviceArray.of(blurry, order.handle if order else None)
            check_place(window.pointer, self.gpu)
            _check_dtype(window.dtype, loaded.dtype)
            self.record.profile_of(window.shape)
            target = self._to_fill(out, window, order)
            for before in [order] if order else self._named_by(window, target):
                self._arrived.record(before)
                self._compute.wait_for(self._arrived)
            binding = self._bindings.guest(window.shape, window.pointer, target.pointer)
            self._bindings.launch(binding)
            if order is None:
                return DeviceTicket(target if out is None else out, binding.computed, window)
            order.wait_for(binding.computed)
            sharp = DeviceArray(target.pointer, target.shape, target.dtype, target.owner, self.gpu, order.handle, binding.computed)
            return DeviceTicket(sharp if out is None else out)

    def result_on_device(self, ticket: DeviceTicket) -> Any:
        """The `out` that was given, or a DeviceArray. Submitted with a stream it is ready in that one's order, else it is ready."""
        if ticket.unfinished is not None:
            with self._at_work():
                ticket.unfinished.synchronize()
        return ticket.sharp

    def layer_information(self) -> str:
        """The engine's layers as TensorRT's own JSON. Raises BackendError on the lean runtime, which cannot tell."""
        with self._at_work() as loaded:
            return loaded.layer_information()

    def close(self) -> None:
        """Waits for the GPU, then frees buffers, contexts and engine; calling it again does nothing."""
        if self._loaded is None:
            return
        with on_gpu(self.gpu):
            for ring in self._rings.values():
                ring.close()
            self._rings.clear()
            self._bindings.close()  # contexts before their engine
            self._outputs.close()
            self._owned.close()
            if self._kernels is not None:
                self._kernels.save()
            self._loaded.close()
            self._kernels = self._loaded = None

    @contextmanager
    def _at_work(self) -> Iterator[LoadedEngine]:
        """The GPU's context is current for the calling thread, whichever it is, and afterwards what was current before."""
        if self._loaded is None:
            raise BackendError("the runner is closed")
        with on_gpu(self.gpu):
            yield self._loaded

    def _ring(self, shape: tuple[int, ...], loaded: LoadedEngine) -> Ring:
        if shape not in self._rings:
            self.record.profile_of(shape)
            unused = [known for known, ring in self._rings.items() if ring.idle]
            if len(self._rings) >= SHAPES and unused:
                self._rings.pop(unused[0]).close()
            self._rings[shape] = Ring(shape, loaded.dtype)
        self._rings.move_to_end(shape)
        return self._rings[shape]

    def _named_by(self, *arrays: DeviceArray) -> list[AnyStream]:
        handles = {array.stream: None for array in arrays if array.stream is not None}
        return [callers_stream(handle, self.gpu) for handle in handles]

    def _to_fill(self, out: Any, window: DeviceArray, order: AnyStream | None) -> DeviceArray:
        if out is not None:
            target = DeviceArray.to_fill(out, window, order.handle if order else None)
            check_place(target.pointer, self.gpu)
            return target
        # without a stream nobody can tell when who reads a result is done with its memory: it is not used again
        memory = DeviceBuffer(window.nbytes) if order is None else self._outputs.take(window.nbytes, order.handle)
        return DeviceArray(memory.pointer, window.shape, window.dtype, memory, self.gpu)


def _check_dtype(got: np.dtype[Any], expected: np.dtype[Any]) -> None:
    if got != expected:
        raise InputError(f"got {got}, this engine takes {expected}: convert it with astype")
