"""`ModelMetrics`: what an engine did, in the server's own metrics, under the names of `runtime.telemetry`."""

from __future__ import annotations

from typing import Any

from runtime.engine import Engine
from runtime.telemetry import BUCKETS, COUNTED, INFO, SECONDS


class ModelMetrics:
    """Counts and times the windows of an engine; give it to `Engine.observe`.

    `library` is Triton's `triton_python_backend_utils`. Its older servers have no histograms, so the parts of
    `deblur_window_seconds` are counters here; how many requests wait, the server tells itself.
    """

    def __init__(self, library: Any, engine: Engine, model: str, version: str) -> None:
        """Raises the library's TritonModelException where the server was told to have no metrics."""
        self._library, self._labels = library, {"model": model, "version": version}
        self._counted = {name: self._counter(f"deblur_{name}_total", text) for name, text in COUNTED.items()}
        self._seconds = self._counter("deblur_window_seconds_sum", SECONDS)
        self._windows = self._counter("deblur_window_seconds_count", SECONDS)
        kind = library.MetricFamily.COUNTER
        self._bucket = library.MetricFamily(name="deblur_window_seconds_bucket", description=SECONDS, kind=kind)
        self._buckets = [
            (float(bound), self._bucket.Metric(labels={**self._labels, "le": str(bound)})) for bound in [*BUCKETS, float("inf")]
        ]
        kind = library.MetricFamily.GAUGE
        self._info_family = library.MetricFamily(name="deblur_engine_info", description=INFO, kind=kind)
        self._info = self._info_family.Metric(labels={**self._labels, **engine_labels(engine)})
        self._info.set(1)

    def __call__(self, frames: int, seconds: float, failed: bool) -> None:
        """Notes one call of `Engine.run`."""
        if failed:
            self._counted["failures"][1].increment(1)
            return
        self._counted["frames"][1].increment(frames)
        self._seconds[1].increment(seconds)
        self._windows[1].increment(1)
        for bound, metric in self._buckets:
            if seconds <= bound:
                metric.increment(1)

    def refused(self) -> None:
        """Notes a window that could not be one, and was not run."""
        self._counted["refused"][1].increment(1)

    def _counter(self, name: str, text: str) -> tuple[Any, Any]:
        """The family, which must live as long, and its metric."""
        family = self._library.MetricFamily(name=name, description=text, kind=self._library.MetricFamily.COUNTER)
        return family, family.Metric(labels=self._labels)


def engine_labels(engine: Engine) -> dict[str, str]:
    """What the windows run on."""
    return {"backend": engine.backend, "precision": engine.precision, "checkpoint": engine.contract.checkpoint_sha256[:12]}
