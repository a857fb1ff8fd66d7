"""Progress of an engine's build, from TensorRT's own monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[float, str], None]  # (share done, 0 to 1; phase)


def build_monitor(trt: Any, progress: Progress) -> Any:
    """A trt.IProgressMonitor that tells `progress` what share of the build is done; keep it until the build ends.

    What `progress` raises cancels the build: the builder returns nothing, and `failure` of the monitor holds the exception.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # a class of a module chosen at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._phases: dict[str, _Phase] = {}
            self._told = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            above = self._phases.get(parent or "")
            self._phases[name] = above.next_step(steps) if above else _Phase(0.0, 1.0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            phase = self._phases.get(name)
            if phase:
                phase.done = step + 1
                self._tell(max(self._told, phase.share()), name)  # two phases can share a step of a third
            return self.failure is None

        def phase_finish(self, name: str) -> None:
            self._phases.pop(name, None)

        def _tell(self, share: float, name: str) -> None:
            self._told = share
            try:
                progress(share, name)
            except BaseException as error:  # it must not travel through TensorRT; the caller raises it
                self.failure = error

    return Monitor()


class _Phase:
    """Steps of equal length between two shares of the whole; phases nest, one within a step of another."""

    def __init__(self, start: float, length: float, steps: int) -> None:
        self._start, self._length, self._steps = start, length, max(steps, 1)
        self.done = 0

    def share(self) -> float:
        return self._start + self._length * min(self.done / self._steps, 1.0)

    def next_step(self, steps: int) -> _Phase:
        return _Phase(self.share(), self._length / self._steps, steps)
