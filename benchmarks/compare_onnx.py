"""CPU time of one window through several ONNX files, interleaved: which of two exports of one network is faster.

It counts the processor time of one thread, not the clock: the figures stand on a machine that has other work to do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime import Engine
from runtime.command_line import command
from runtime.hardware import cpu_name

ARITHMETIC = ("openvino:bf16", "openvino:fp32", "onnxruntime:fp32")


@dataclass(frozen=True)
class CompareOptions:
    """What is timed."""

    models: Sequence[Path]  # ONNX files with float I/O, of one network
    on: Sequence[str]  # backend:precision
    height: int  # pixels
    width: int  # pixels
    rounds: int  # calls of each


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/compare_onnx.py", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="ONNX files from export/to_onnx.py, with float I/O")
    parser.add_argument("--on", nargs="+", default=ARITHMETIC, metavar="BACKEND:PRECISION", help="default: " + " ".join(ARITHMETIC))
    parser.add_argument("--height", type=int, default=184)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=9, help="calls of each file (default %(default)s)")
    options = CompareOptions(**vars(parser.parse_args(argv)))
    print(f"CPU ms of one thread, {options.width}x{options.height}, median (least) of {options.rounds} rounds, {cpu_name()}")
    for arithmetic in options.on:
        for path, times in sorted(measure(options, arithmetic).items(), key=lambda item: statistics.median(item[1])):
            print(f"  {arithmetic:<18}{path.stem:<28}{statistics.median(times):8.1f}  ({min(times):.1f})")
    return 0


def measure(options: CompareOptions, arithmetic: str) -> dict[Path, list[float]]:
    """Milliseconds of processor time by file, one entry a round; all files take turns within a round."""
    backend, _, precision = arithmetic.partition(":")
    times: dict[Path, list[float]] = {path: [] for path in options.models}
    with ExitStack() as stack:
        engines = {path: stack.enter_context(Engine(path, backend, precision, threads=1)) for path in options.models}
        frames = next(iter(engines.values())).contract.frames
        window = np.random.default_rng(0).random((1, frames, options.height, options.width), np.float32)
        for engine in engines.values():
            engine.run(window)  # compiles
        for _ in range(options.rounds):
            for path, engine in engines.items():
                begun = time.process_time()
                engine.run(window)
                times[path].append((time.process_time() - begun) * 1e3)
    return times


if __name__ == "__main__":
    raise SystemExit(main())
