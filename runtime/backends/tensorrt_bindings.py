"""Execution contexts bound to the memory that they read and write, and the CUDA graphs of that.

Every set of addresses has a context of its own, since a CUDA graph is of one context with one shape and one set of addresses. All
contexts of an engine compute in the same memory, so their work is queued on one stream.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends.device_memory import Event, Graph, Stream
from runtime.backends.tensorrt_engine import KernelCache, LoadedEngine, create_context
from runtime.errors import BackendError, DeployError

GUESTS = 8  # pairs of callers' addresses that are kept bound: three inputs in turn with two or three outputs

log = logging.getLogger("videodeblur.tensorrt")


class Binding:
    """A context that has its shape and its addresses; `target` is that of the result.

    `computed` comes when the last window through it is computed.
    """

    def __init__(self, context: Any, shape: tuple[int, ...], target: int, record_at: int) -> None:
        self.context, self.shape, self.target = context, shape, target
        self.record_at = record_at  # the launch that records a graph
        self.launches = 0
        self.computed = Event()
        self.graph: Graph | None = None

    def drop_graph(self) -> None:
        """Frees the recorded graph, if there is one."""
        if self.graph is not None:
            self.graph.close()
            self.graph = None

    def close(self) -> None:
        """Frees graph and context once the last window through it is computed; calling it again does nothing."""
        if self.computed.handle:
            self.computed.synchronize()
            self.drop_graph()
            self.computed.close()
        self.context = None


class Bindings:
    """Makes bindings of an engine, and queues windows through them on the `compute` stream."""

    def __init__(self, loaded: LoadedEngine, kernels: KernelCache | None, compute: Stream, cuda_graph: bool) -> None:
        self._loaded, self._kernels, self._compute, self._cuda_graph = loaded, kernels, compute, cuda_graph
        self._blurry, self._sharp = loaded.record.tensors
        self.records = cuda_graph and kernels is None  # TensorRT-RTX records by itself
        self._all: weakref.WeakSet[Binding] = weakref.WeakSet()
        self._guests: OrderedDict[tuple[tuple[int, ...], int, int], Binding] = OrderedDict()

    def own(self, shape: tuple[int, ...], source: int, target: int, record_at: int = 1) -> Binding:
        """A new binding, to be closed by the caller. Raises BackendError when TensorRT does not take the shape."""
        profile = self._loaded.record.profile_of(shape)
        context = create_context(self._loaded, self._kernels, self._cuda_graph, profile, self._compute)
        self._checked(lambda: context.set_input_shape(self._blurry, shape), shape)
        self._point(context, shape, source, target)
        binding = Binding(context, shape, target, record_at)
        self._all.add(binding)
        return binding

    def guest(self, shape: tuple[int, ...], source: int, target: int) -> Binding:
        """A binding for memory that is not the runner's; pairs that come again are recorded when they come for the second time."""
        key = (shape, source, target)
        if key not in self._guests:
            self._guests[key] = self._vacant(shape, source, target)
        self._guests.move_to_end(key)
        return self._guests[key]

    def launch(self, binding: Binding) -> None:
        """Queues a window through a binding, then the binding's event."""
        binding.launches += 1
        if self.records and binding.graph is None and binding.launches >= binding.record_at:
            self._record(binding)
        if binding.graph is not None:
            binding.graph.launch(self._compute)
        else:
            self._execute(binding)
        binding.computed.record(self._compute)

    def close(self) -> None:
        """Frees the bindings of guests."""
        for binding in self._guests.values():
            binding.close()
        self._guests.clear()

    def _vacant(self, shape: tuple[int, ...], source: int, target: int) -> Binding:
        """A new one, or the one longest unused, whose context is pointed elsewhere without waiting for the work queued before."""
        if len(self._guests) < GUESTS:
            return self.own(shape, source, target, record_at=2)
        _, oldest = self._guests.popitem(last=False)
        if oldest.shape != shape:
            oldest.close()
            return self.own(shape, source, target, record_at=2)
        if oldest.graph is not None:
            oldest.computed.synchronize()
            oldest.drop_graph()
        self._point(oldest.context, shape, source, target)
        oldest.target, oldest.launches = target, 0
        return oldest

    def _point(self, context: Any, shape: tuple[int, ...], source: int, target: int) -> None:
        self._checked(
            lambda: context.set_tensor_address(self._blurry, source) and context.set_tensor_address(self._sharp, target), shape
        )

    def _record(self, binding: Binding) -> None:
        """The window is computed plainly, then replayed into memory that was made to differ from the result, and compared."""
        self._execute(binding)
        plain = self._result(binding)
        try:
            binding.graph = Graph(self._compute, lambda: self._execute(binding))
            self._compute.fill(binding.target, 0xFF ^ int(plain.view(np.uint8).flat[0]), plain.nbytes)
            binding.graph.launch(self._compute)
            replayed = self._result(binding)
        except DeployError as error:
            self._go_without_graphs(str(error))
        else:
            if not np.array_equal(plain, replayed):
                self._go_without_graphs("a replay differs from the plain run")

    def _go_without_graphs(self, reason: str) -> None:
        log.warning("CUDA graphs are off for this engine, each window costs more launches: %s", reason)
        self.records = False
        for binding in self._all:
            binding.drop_graph()

    def _result(self, binding: Binding) -> npt.NDArray[Any]:
        found = np.empty(math.prod(binding.shape) * self._loaded.dtype.itemsize, np.uint8)
        self._compute.copy_out(found, binding.target)
        self._compute.synchronize()
        return found

    def _execute(self, binding: Binding) -> None:
        context = binding.context
        self._checked(lambda: context.execute_async_v3(self._compute.handle), binding.shape)

    def _checked(self, call: Callable[[], bool], shape: tuple[int, ...]) -> None:
        with self._loaded.library.messages() as messages:
            done = call()
        if not done:
            raise BackendError(f"TensorRT failed on shape {shape}: {messages.reason()}")
