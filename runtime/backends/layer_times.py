"""`LayerTimes`: how long each layer of an engine took, run by run, as TensorRT's profiler reports it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any


class LayerTimes:
    """Collects (layer, milliseconds) in the order of execution. Layers are told apart by their place: two may have one name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.milliseconds: list[list[float]] = []  # of each layer, one a run
        self.runs = 0
        self._place = 0

    def add(self, name: str, milliseconds: float) -> None:
        """Notes the next layer's time."""
        if self._place == len(self.names) and self.names and name == self.names[0]:
            self._place = 0
        if self._place == 0:
            self.runs += 1
        if self._place == len(self.names):
            self.names.append(name)
            self.milliseconds.append([])
        self.milliseconds[self._place].append(milliseconds)
        self._place += 1

    @property
    def total(self) -> float:
        """Milliseconds of all layers in all runs."""
        return sum(map(sum, self.milliseconds))

    @property
    def median(self) -> float:
        """Milliseconds of the middle run of each layer, summed."""
        return sum(median(times) for times in self.milliseconds)


def build_profiler(trt: Any, report: Callable[[str, float], None]) -> Any:
    """A trt.IProfiler that hands each layer's name and milliseconds to `report`; keep it as long as a context has it."""

    class Profiler(trt.IProfiler):  # type: ignore[misc] # a class of a module chosen at run time
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    return Profiler()
