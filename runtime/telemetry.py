"""`Telemetry`: what an engine did, as Prometheus reads it; nothing to install."""

from __future__ import annotations

import threading
from pathlib import Path

from runtime.engine import Engine
from runtime.files.on_disk import partial_file

COUNTED = {
    "frames": "Frames of the windows that were run.",
    "failures": "Windows that failed.",
    "refused": "Windows that were not run: of a wrong shape, type or range, or one more than may wait.",
}
SECONDS = "Seconds from the turn of a window to its result."
INFO = "What the windows run on; always 1."
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds, Prometheus' usual ones


class Telemetry:
    """Counts and times the windows of an engine; give it to `Engine.observe`, or to several. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames = self._failures = self._refused = 0
        self._seconds = 0.0
        self._windows = [0] * (len(BUCKETS) + 1)  # by the bucket that they end in; the last has no bound

    def __call__(self, frames: int, seconds: float, failed: bool) -> None:
        """Notes one call of `Engine.run`."""
        with self._lock:
            if failed:
                self._failures += 1
                return
            self._frames += frames
            self._seconds += seconds
            self._windows[sum(seconds > bound for bound in BUCKETS)] += 1

    def refused(self) -> None:
        """Notes a window that could not be one, and was not run."""
        with self._lock:
            self._refused += 1

    def prometheus(self, engine: Engine | None = None) -> str:
        """The counters in Prometheus' text format, for an endpoint or for a textfile collector.

        With what `engine` runs on, and how many windows wait or are at work there.
        """
        with self._lock:
            windows, seconds = list(self._windows), self._seconds
            counts = {"frames": self._frames, "failures": self._failures, "refused": self._refused}
        lines = _heads("deblur_window_seconds", "histogram", SECONDS)
        for place, bound in enumerate([*map(str, BUCKETS), "+Inf"]):
            lines.append(f'deblur_window_seconds_bucket{{le="{bound}"}} {sum(windows[: place + 1])}')
        lines += [f"deblur_window_seconds_sum {seconds:.6f}", f"deblur_window_seconds_count {sum(windows)}"]
        for name, count in counts.items():
            lines += [*_heads(f"deblur_{name}_total", "counter", COUNTED[name]), f"deblur_{name}_total {count}"]
        if engine:
            queue = _heads("deblur_queue_windows", "gauge", "Windows that were submitted and wait or are at work.")
            lines += [*queue, f"deblur_queue_windows {engine.unfinished}"]
            labels = (
                f'backend="{engine.backend}",precision="{engine.precision}",checkpoint="{engine.contract.checkpoint_sha256[:12]}"'
            )
            heads = _heads("deblur_engine_info", "gauge", INFO)
            lines += [*heads, f"deblur_engine_info{{{labels}}} 1"]
        return "\n".join(lines) + "\n"

    def write(self, path: Path, engine: Engine | None = None) -> None:
        """The text as a file that appears whole, as a textfile collector needs it."""
        with partial_file(path) as partial:
            partial.write_text(self.prometheus(engine))


def _heads(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
