"""`MeasureRequest`: what `videodeblur trtexec` was asked for, handed down whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from export.engine.accuracy import AccuracyOptions
from export.engine.request import EngineRequest
from runtime.backends.inference_loop import LoopOptions
from runtime.backends.run_options import RunOptions
from runtime.errors import InputError

PERCENTILES = (90.0, 95.0, 99.0)


@dataclass(frozen=True)
class Pair:
    """Values for the input and, for a comparison, of the output: raw samples in C order, without a header."""

    inputs: Path
    reference: Path | None


@dataclass(frozen=True)
class ReportOptions:
    """What is printed and written of a measurement."""

    averages: int = 10  # queries behind each line of the trace
    percentiles: tuple[float, ...] = PERCENTILES
    times: Path | None = None  # JSON files to write
    output: Path | None = None
    profile: Path | None = None
    layers: Path | None = None
    print_output: bool = False
    print_profile: bool = False
    print_layers: bool = False
    print_profiles: bool = False  # the optimization profiles
    raw: bool = False  # write input and output as raw samples into the working folder
    verbose: bool = False

    def __post_init__(self) -> None:
        """Raises InputError on what cannot be."""
        if self.averages < 1:
            raise InputError(f"--avgRuns is {self.averages}, expected 1 or more")
        for percent in self.percentiles:
            if not 0 <= percent <= 100:
                raise InputError(f"--percentile has {percent:g}, expected 0 to 100")

    def files(self) -> Iterator[tuple[str, Path]]:
        """(flag, file to write)."""
        named = {
            "exportTimes": self.times,
            "exportOutput": self.output,
            "exportProfile": self.profile,
            "exportLayerInfo": self.layers,
        }
        yield from ((f"--{flag}", path) for flag, path in named.items() if path)


@dataclass(frozen=True)
class MeasureRequest:
    """An engine, to be built or loaded, and how it is measured."""

    build: EngineRequest | None  # None: it is loaded
    engine: Path | None  # to load, or to write; None: built and thrown away
    run: RunOptions
    loop: LoopOptions
    accuracy: AccuracyOptions
    report: ReportOptions
    pairs: tuple[Pair, ...] = ()
    skip: bool = False  # build only
    time_loading: bool = False  # measure that and nothing else
    version_only: bool = False  # tell the version that made the engine, and nothing else
    notes: tuple[str, ...] = ()  # what was asked for and has no effect, and why

    @property
    def source(self) -> Path:
        """The file that the user named."""
        file = self.build.onnx if self.build else self.engine
        if file is None:
            raise InputError("name the model with --onnx=FILE, or an engine with --loadEngine=FILE")
        return file
