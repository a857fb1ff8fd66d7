"""The record of a run: a CSV file, and a line of progress on stderr."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from training.validation import CLASSES, PARTS, Gain

COLUMNS = (
    "step",
    "samples",
    "seconds",
    "learning_rate",
    "loss",
    "skipped",
    "input_db",
    "output_db",
    "largest_activation",
    "generator_spread",
)


@dataclass(frozen=True)
class LogRow:
    """The run at one moment."""

    step: int
    samples: int
    elapsed: float  # seconds trained
    left: float  # seconds, estimated
    learning_rate: float
    loss: float  # mean since the row before; NaN when there was no finite one
    skipped: int  # steps without a finite loss, from the start
    gain: Gain | None  # on the validation samples, when they were measured


class ProgressLog:
    """Appends rows to a CSV file and shows them; a context manager."""

    def __init__(self, path: Path, append: bool) -> None:
        kept = append and path.is_file()
        self._file = path.open("a" if kept else "w", newline="", buffering=1)
        self._writer = csv.writer(self._file)
        self._last: LogRow | None = None
        if not kept:
            self._writer.writerow([*COLUMNS, *(f"gain_{low:g}_{high:g}" for low, high in pairwise(CLASSES)), *PARTS, "real"])

    def write(self, row: LogRow) -> None:
        """Writes and shows one row."""
        gain = row.gain
        measured = [gain.input, gain.output, gain.largest, gain.spread, *gain.by_class] if gain else [math.nan] * (len(CLASSES) + 3)
        measured += [gain.worth.get(part, math.nan) if gain else math.nan for part in PARTS]
        measured.append(" ".join(f"{name}={value:.3f}" for name, value in gain.real.items()) if gain else "")
        values = [row.step, row.samples, row.elapsed, row.learning_rate, row.loss, row.skipped, *measured]
        self._writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
        print(self._line(row), file=sys.stderr, flush=True)
        self._last = row

    def _line(self, row: LogRow) -> str:
        before = self._last
        samples, seconds = (before.samples, before.elapsed) if before else (0, 0.0)
        pace = (row.samples - samples) / max(row.elapsed - seconds, 1e-9)
        loss = "-" if math.isnan(row.loss) else f"{row.loss:.5f}"  # no step since the last line
        line = f"step {row.step}  loss {loss}  rate {row.learning_rate:.1e}  {pace:.1f} samples/s  {_time(row.left)} left"
        if row.skipped:
            line += f"  {row.skipped} steps skipped"
        if row.gain:
            classes = " ".join(f"{gain:+.2f}" for gain in row.gain.by_class)
            line += f"  gain {row.gain.mean:+.3f} dB (input {row.gain.input:.2f}; by class {classes})"
            line += "".join(f"  {part} is worth {value:+.3f}" for part, value in row.gain.worth.items())
            line += "".join(f"  {name} {value:+.2f}" for name, value in row.gain.real.items())
            line += f"  largest activation {row.gain.largest:.3g}, generator spread {row.gain.spread:.2g}"
        return line

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
