"""Runs TensorRT engines (full TensorRT 8.6 to 11, TensorRT-RTX, the lean runtime) and keeps the GPU busy.

Copy in, compute and copy out have a stream each, and windows take turns in a ring of buffers, so that the three overlap when a
caller submits the next window before it asks for the result of the last.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends.device_memory import (
    DeviceArray,
    DeviceBuffer,
    Graph,
    Stream,
    open_gpu,
    use_gpu,
)
from runtime.backends.dlpack import is_device_array
from runtime.backends.tensorrt_buffers import Ring, Slot
from runtime.backends.tensorrt_engine import LoadedEngine, cache_path, create_context, kernel_cache, library_for
from runtime.errors import BackendError, DeployError, InputError
from runtime.files.contract import INPUT, OUTPUT
from runtime.files.engine_record import EngineRecord, read_engine
from runtime.files.on_disk import Read

SHAPES = 2  # input shapes whose buffers are kept

log = logging.getLogger("videodeblur.tensorrt")


@dataclass(frozen=True)
class Ticket:
    """A submitted window, to be exchanged for its result once."""

    shape: tuple[int, ...]
    slot: int


class TensorRtRunner:
    """A `Runner` on one GPU. `precision` is the record's. One caller at a time; open a runner for each thread.

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
        self._library = library_for(self.record)
        self.record.check_machine(self._library.name, self._library.version, self.gpu.compute_capability)
        self._loaded: LoadedEngine | None = LoadedEngine(self._library, path, self.record, plan)
        self._kernels = kernel_cache(self._loaded, cache or cache_path(self.record, self.gpu.name))
        self._records = cuda_graph and self._kernels is None  # TensorRT-RTX records by itself
        self._cuda_graph = cuda_graph
        self._guests: dict[int, Any] = {}  # by number of the profile, the context for arrays that lie on the GPU already
        self._rings: OrderedDict[tuple[int, ...], Ring] = OrderedDict()
        with ExitStack() as streams:
            self._copy_in, self._compute, self._copy_out = (streams.enter_context(closing(Stream())) for _ in range(3))
            self._streams = streams.pop_all()

    def run(self, blurry: Any) -> Any:
        """See `Runner.run`. An array on the GPU (see `DeviceArray.of`) is neither copied nor moved, and yields a DeviceArray.

        Its memory is allocated by this call and freed with the result; the work is done when the call returns.
        """
        if is_device_array(blurry):
            return self._run_on_device(blurry)
        return self.result(self.submit(blurry))

    def submit(self, blurry: npt.NDArray[Any]) -> Ticket:
        """Queues a window, which may be changed as soon as this returns. At most IN_FLIGHT may wait for `result`."""
        loaded = self._open()
        _check_dtype(blurry.dtype, loaded.dtype)
        slot = self._ring(blurry.shape).take()
        np.copyto(slot.host_in.array, blurry)
        self._prepare(slot)
        self._copy_in.copy_in(slot.device_in, slot.host_in.array)
        slot.arrived.record(self._copy_in)
        self._compute.wait_for(slot.arrived)
        self._launch(slot)
        slot.computed.record(self._compute)
        self._copy_out.wait_for(slot.computed)
        self._copy_out.copy_out(slot.host_out.array, slot.device_out)
        slot.returned.record(self._copy_out)
        slot.waiting = True
        return Ticket(blurry.shape, slot.number)

    def result(self, ticket: Ticket) -> npt.NDArray[Any]:
        """Waits for a submitted window and returns its sharp frames, a new array."""
        self._open()
        ring = self._rings.get(ticket.shape)
        if ring is None or not ring.slots[ticket.slot].waiting:
            raise BackendError("this window's result was already taken, or its buffers were freed: take results in order")
        slot = ring.slots[ticket.slot]
        slot.waiting = False  # whatever comes: a window that fails does not keep its buffers from the next
        slot.returned.synchronize()
        return np.array(slot.host_out.array)

    def layer_information(self) -> str:
        """The engine's layers as TensorRT's own JSON. Raises BackendError on the lean runtime, which cannot tell."""
        return self._open().layer_information()

    def close(self) -> None:
        """Waits for the GPU, then frees buffers, contexts and engine; calling it again does nothing."""
        if self._loaded is None:
            return
        use_gpu(self.gpu.index)
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._streams.close()
        if self._kernels is not None:
            self._kernels.save()
        self._guests.clear()  # contexts before their engine
        self._loaded.close()
        self._kernels = self._loaded = None

    def _open(self) -> LoadedEngine:
        """Makes the GPU current for the calling thread, whichever it is."""
        if self._loaded is None:
            raise BackendError("the runner is closed")
        use_gpu(self.gpu.index)
        return self._loaded

    def _ring(self, shape: tuple[int, ...]) -> Ring:
        if shape not in self._rings:
            self.record.profile_of(shape)
            unused = [known for known, ring in self._rings.items() if ring.idle]
            if len(self._rings) >= SHAPES and unused:
                self._rings.pop(unused[0]).close()
            self._rings[shape] = Ring(shape, self._open().dtype)
        self._rings.move_to_end(shape)
        return self._rings[shape]

    def _context(self, profile: int, cuda_graph: bool) -> Any:
        return create_context(self._open(), self._kernels, cuda_graph, profile, self._compute)

    def _prepare(self, slot: Slot) -> None:
        """Gives a new slot a context of its own: a CUDA graph is of one context with one shape and one set of buffers."""
        if slot.context is not None:
            return
        context = self._context(self.record.profile_of(slot.shape), self._cuda_graph)
        self._bind(context, slot.shape, slot.device_in.pointer, slot.device_out.pointer)
        slot.context = context
        if self._records:
            self._record(slot)

    def _record(self, slot: Slot) -> None:
        """The window is computed plainly, then replayed into a buffer that differs from the result, and compared."""
        plain = self._compute_now(slot)
        try:
            slot.graph = Graph(self._compute, lambda: self._execute(slot.context, slot.shape))
            self._compute.fill(slot.device_out, 0xFF ^ int(plain.view(np.uint8).flat[0]))
            replayed = self._compute_now(slot)
        except DeployError as error:
            self._go_without_graphs(str(error))
        else:
            if not np.array_equal(plain, replayed):
                self._go_without_graphs("a replay differs from the plain run")

    def _go_without_graphs(self, reason: str) -> None:
        log.warning("CUDA graphs are off for this engine, each window costs more launches: %s", reason)
        self._records = False
        for ring in self._rings.values():
            for slot in ring.slots:
                slot.drop_graph()

    def _compute_now(self, slot: Slot) -> npt.NDArray[Any]:
        self._compute.copy_in(slot.device_in, slot.host_in.array)
        self._launch(slot)
        self._compute.copy_out(slot.host_out.array, slot.device_out)
        self._compute.synchronize()
        return np.array(slot.host_out.array)

    def _launch(self, slot: Slot) -> None:
        if slot.graph is not None:
            slot.graph.launch(self._compute)
        else:
            self._execute(slot.context, slot.shape)

    def _bind(self, context: Any, shape: tuple[int, ...], source: int, target: int) -> None:
        with self._library.messages() as messages:
            bound = (
                context.set_input_shape(INPUT, shape)
                and context.set_tensor_address(INPUT, source)
                and context.set_tensor_address(OUTPUT, target)
            )
        if not bound:
            raise BackendError(f"TensorRT does not take shape {shape}: {messages.reason()}")

    def _execute(self, context: Any, shape: tuple[int, ...]) -> None:
        with self._library.messages() as messages:
            done = context.execute_async_v3(self._compute.handle)
        if not done:
            raise BackendError(f"TensorRT failed on shape {shape}: {messages.reason()}")

    def _run_on_device(self, array: Any) -> DeviceArray:
        loaded = self._open()
        blurry = DeviceArray.of(array)
        _check_dtype(blurry.dtype, loaded.dtype)
        profile = self.record.profile_of(blurry.shape)
        context = self._guests.get(profile) or self._context(profile, cuda_graph=False)
        self._guests[profile] = context
        memory = DeviceBuffer(int(np.prod(blurry.shape)) * blurry.dtype.itemsize)
        self._bind(context, blurry.shape, blurry.pointer, memory.pointer)
        self._execute(context, blurry.shape)
        self._compute.synchronize()
        return DeviceArray(memory.pointer, blurry.shape, blurry.dtype, memory)


def _check_dtype(got: np.dtype[Any], expected: np.dtype[Any]) -> None:
    if got != expected:
        raise InputError(f"got {got}, this engine takes {expected}: convert it with astype")
