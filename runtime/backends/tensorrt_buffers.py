"""Buffers of windows in flight: one computes while the next is copied in and the last is copied out."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from runtime.backends.device_memory import DeviceBuffer, Event, PinnedArray
from runtime.backends.runner import IN_FLIGHT
from runtime.backends.tensorrt_bindings import Binding, Bindings
from runtime.errors import BackendError


class Slot:
    """The buffers of one window in flight; input and output have the same shape and dtype."""

    def __init__(self, number: int, shape: tuple[int, ...], dtype: np.dtype[Any], owned: ExitStack) -> None:
        self.number, self.shape = number, shape
        self.host_in, self.host_out = (owned.enter_context(closing(PinnedArray(shape, dtype))) for _ in range(2))
        size = self.host_in.array.nbytes
        self.device_in, self.device_out = (owned.enter_context(closing(DeviceBuffer(size))) for _ in range(2))
        self.arrived, self.returned = (owned.enter_context(closing(Event())) for _ in range(2))
        owned.callback(self._unbind)
        self._binding: Binding | None = None
        self.waiting = False

    def binding(self, bindings: Bindings) -> Binding:
        """The execution context of these buffers, made when they are first used."""
        if self._binding is None:
            self._binding = bindings.own(self.shape, self.device_in.pointer, self.device_out.pointer)
        return self._binding

    def _unbind(self) -> None:
        if self._binding is not None:
            self._binding.close()


class Ring:
    """`IN_FLIGHT` slots for one input shape."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        with ExitStack() as owned:
            self.slots = [Slot(number, shape, dtype, owned) for number in range(IN_FLIGHT)]
            self._owned = owned.pop_all()

    @property
    def idle(self) -> bool:
        """Whether no result waits to be taken."""
        return not any(slot.waiting for slot in self.slots)

    def take(self) -> Slot:
        """A free slot. Raises BackendError when a result must be taken first."""
        for slot in self.slots:
            if not slot.waiting:
                return slot
        raise BackendError(f"{IN_FLIGHT} windows are in flight: take a result before submitting another")

    def close(self) -> None:
        """Waits for what is in flight, then frees the buffers."""
        for slot in self.slots:
            if slot.waiting:
                slot.returned.synchronize()
        self._owned.close()
