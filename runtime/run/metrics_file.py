"""`metrics_file`: counts what an engine does in a file, as Prometheus' textfile collector reads it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.engine import Engine
from runtime.files.on_disk import partial_file, refusals
from runtime.telemetry import Telemetry

EVERY = 15.0  # seconds between two writings, Prometheus' usual time between two readings
FLAG = "--metrics"
HELP = "file to keep up to date with counters for Prometheus' textfile collector, such as deblur.prom"

log = logging.getLogger("videodeblur.run")


@contextmanager
def metrics_file(engine: Engine, path: Path | None) -> Iterator[None]:
    """Writes the file at once, every EVERY seconds while windows are run, and when the block ends; None writes none.

    Raises InputError where it cannot be written at once; what fails later is logged, since the video matters more.
    """
    if path is None:
        yield
        return
    with refusals(path.parent, FLAG):
        kept = _Kept(engine, path)
    engine.observe(kept)
    try:
        yield
    finally:
        kept.save()


class _Kept(Telemetry):
    """Saves itself where it is due."""

    def __init__(self, engine: Engine, path: Path) -> None:
        super().__init__()
        self._engine, self._path = engine, path
        self._write()

    def __call__(self, frames: int, seconds: float, failed: bool) -> None:
        super().__call__(frames, seconds, failed)
        if time.monotonic() - self._written >= EVERY:
            self.save()

    def save(self) -> None:
        """Writes it; logs what goes wrong."""
        try:
            self._write()
        except OSError as error:
            log.warning("the metrics in %s are not up to date: %s", self._path, error.strerror or error)

    def _write(self) -> None:
        self._written = time.monotonic()
        with partial_file(self._path) as partial:
            partial.write_text(self.prometheus(self._engine))
