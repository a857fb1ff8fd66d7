"""TensorRT engines on a GPU: parity with PyTorch, latency with and without CUDA graphs, and how far copies hide behind compute.

Needs numpy, TensorRT and cuda-bindings only, and Python 3.9: it runs where PyTorch and ONNX are not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.arguments import count
from benchmarks.shared.on_device import on_device
from benchmarks.shared.timing import interleave
from runtime.backends.device_memory import MIB, free_memory, open_gpu
from runtime.backends.tensorrt_runner import TensorRtRunner
from runtime.command_line import command
from runtime.files.engine_record import load_record
from runtime.pixels.metrics import psnr

ROUNDS = 50  # calls of each way
STREAMED = 32  # windows in the run that overlaps copies with compute


@dataclass(frozen=True)
class Result:
    """What one engine does. Times are medians in milliseconds for one window."""

    engine: str
    precision: str
    parity: float  # dB against PyTorch in fp32, over all windows
    from_host: float  # numpy array in, numpy array out, CUDA graph
    from_host_plain: float  # the same without CUDA graph
    on_device: float  # memory of the GPU in and out
    streamed: float  # numpy arrays, submitted ahead: wall time / windows
    megabytes: float  # engine file
    build_seconds: float
    memory: float  # MiB that the runner took of the GPU, with one shape's buffers
    type_shares: dict[str, float]
    gpu: str
    library: str


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/engines.py", description=__doc__)
    parser.add_argument("engine", type=Path, nargs="+", help="engine files with their records")
    parser.add_argument("--windows", type=Path, required=True, help="windows, .npz from benchmarks/gpu/reference_windows.py")
    parser.add_argument("--rounds", type=count, default=ROUNDS, help="rounds to measure (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--layers", type=Path, help="folder for what the inspector says of each engine")
    given = parser.parse_args(argv)
    with np.load(given.windows) as arrays:
        blurry, sharp = arrays["blurry"], arrays["sharp"]
    results = [measure(engine, blurry, sharp, given.rounds) for engine in given.engine]
    print(table(results))
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    for engine in given.engine if given.layers else ():
        given.layers.mkdir(parents=True, exist_ok=True)
        with closing(TensorRtRunner(engine)) as runner:
            (given.layers / f"{engine.stem}.layers.json").write_text(runner.layer_information())
    return 0


def measure(path: Path, blurry: np.ndarray, sharp: np.ndarray, rounds: int) -> Result:
    """`blurry` and `sharp` are (n, 1, F, H, W) float32."""
    record, gpu = load_record(path), open_gpu()
    before = free_memory()
    with ExitStack() as opened:
        runner = opened.enter_context(closing(TensorRtRunner(path)))
        found = np.stack([runner.run(window) for window in blurry])
        taken = before - free_memory()
        plain = opened.enter_context(closing(TensorRtRunner(path, cuda_graph=False)))
        window, resident, target = blurry[0], on_device(blurry[0]), on_device(blurry[0])
        timings = interleave(
            {
                "from_host": lambda: runner.run(window),
                "from_host_plain": lambda: plain.run(window),
                "on_device": lambda: runner.run(resident, target),
            },
            rounds,
        )
        _streamed(runner, blurry)  # the first use of the second set of buffers records a graph
        streamed = _streamed(runner, blurry)
    return Result(
        engine=path.name,
        precision=record.precision,
        parity=psnr(found, sharp, 1.0),
        **{timing.name: timing.median for timing in timings},
        streamed=streamed,
        megabytes=path.stat().st_size / 1e6,
        build_seconds=record.build_seconds,
        memory=taken / MIB,
        type_shares=record.type_shares,
        gpu=gpu.name,
        library=f"{record.library} {record.version}",
    )


def table(results: Sequence[Result]) -> str:
    """The results as text."""
    first = results[0]
    lines = [
        f"{first.gpu}, {first.library}; milliseconds for a window, medians",
        f"{'engine':32}{'dB':>8}{'host':>9}{'no graph':>9}{'device':>9}{'streamed':>9}{'MB':>8}{'build s':>9}{'MiB':>8}",
    ]
    for row in results:
        times = "".join(f"{value:9.2f}" for value in (row.from_host, row.from_host_plain, row.on_device, row.streamed))
        lines.append(f"{row.engine:32}{row.parity:8.1f}{times}{row.megabytes:8.1f}{row.build_seconds:9.1f}{row.memory:8.0f}")
    lines.append("streamed below host: copies in and out hide behind compute; device: no copies")
    return "\n".join(lines)


def _streamed(runner: TensorRtRunner, blurry: np.ndarray) -> float:
    """Milliseconds for a window when the next is submitted before the last is taken."""
    start = time.perf_counter()
    ticket = runner.submit(blurry[0])
    for number in range(1, STREAMED):
        following = runner.submit(blurry[number % len(blurry)])
        runner.result(ticket)
        ticket = following
    runner.result(ticket)
    return 1000 * (time.perf_counter() - start) / STREAMED


if __name__ == "__main__":
    raise SystemExit(main())
