"""Latency of one window through PyTorch, ONNX Runtime, OpenVINO and `runtime.Engine`, interleaved in one run."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.peers import plain_onnxruntime, plain_openvino, pytorch
from benchmarks.timing import Timing, interleave, ratio
from runtime import Engine
from runtime.command_line import command
from runtime.hardware import cpu_name

NAIVE = ("pytorch fp32", "pytorch bf16 channels_last", "onnxruntime fp32")  # what people run before they know better


@dataclass(frozen=True)
class LatencyOptions:
    """What is timed."""

    model: Path  # ONNX file, float I/O
    checkpoint: Path | None  # None: the shipped one
    height: int  # pixels
    width: int  # pixels
    rounds: int


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/latency.py", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="ONNX file from export/to_onnx.py")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint for the PyTorch rows (default: the shipped one)")
    parser.add_argument("--height", type=int, default=184)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=15, help="calls of each candidate (default %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args(argv)
    written = options.json
    del options.json
    settings = LatencyOptions(**vars(options))
    timings = measure(settings)
    print(table(timings, settings))
    if written:
        written.write_text(json.dumps(as_json(timings, settings), indent=1) + "\n")
    return 0


def measure(options: LatencyOptions) -> list[Timing]:
    """Times every candidate on the same random window. Candidates that this CPU cannot run are left out."""
    shape = (1, 5, options.height, options.width)
    window = np.random.default_rng(0).random(shape, dtype=np.float32)
    with Engine(options.model) as engine, Engine(options.model, precision="fp32") as exact:
        calls: dict[str, Callable[[npt.NDArray[np.float32]], object]] = {
            "pytorch fp32": pytorch.open_eager(options.checkpoint),
            "pytorch bf16 channels_last": pytorch.open_bf16(options.checkpoint),
            "onnxruntime fp32": plain_onnxruntime.open_session(options.model),
            "openvino fp32": plain_openvino.open_compiled(options.model, shape, "f32"),
            f"Engine {exact.backend} {exact.precision}": exact.run,
        }
        if engine.precision == "bf16":
            calls["openvino bf16"] = plain_openvino.open_compiled(options.model, shape, "bf16")
            calls[f"Engine {engine.backend} {engine.precision}"] = engine.run
        return interleave({name: lambda call=call: call(window) for name, call in calls.items()}, options.rounds)


def table(timings: Sequence[Timing], options: LatencyOptions) -> str:
    """The figures as text, one row a candidate; ratios are to the fastest naive peer, above 1 is faster than it."""
    peer = min((t for t in timings if t.name in NAIVE), key=lambda t: t.median)
    lines = [
        f"one window 1x5x{options.height}x{options.width} on {cpu_name()}, {options.rounds} rounds, interleaved",
        f"{'':30}{'median':>9}{'p10':>9}{'p90':>9}   times as fast as {peer.name} (p10 to p90)",
    ]
    for timing in timings:
        middle, low, high = ratio(peer, timing)
        numbers = f"{timing.median:9.1f}{timing.percentile(10):9.1f}{timing.percentile(90):9.1f}"
        lines.append(f"{timing.name:30}{numbers} ms{middle:7.2f} ({low:.2f} to {high:.2f})")
    by_name = {t.name: t for t in timings}
    for arithmetic in ("fp32", "bf16"):
        bare, ours = by_name.get(f"openvino {arithmetic}"), by_name.get(f"Engine openvino {arithmetic}")
        if bare and ours:
            lines.append(
                f"overhead of Engine.run over the bare OpenVINO call, {arithmetic}: {100 * (ratio(ours, bare)[0] - 1):+.1f} %"
            )
    return "\n".join(lines)


def as_json(timings: Sequence[Timing], options: LatencyOptions) -> dict[str, object]:
    """The same figures for machines."""
    return {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "options": {**asdict(options), "model": str(options.model), "checkpoint": str(options.checkpoint or "shipped")},
        "timings": [asdict(t) | {"median": t.median, "p10": t.percentile(10), "p90": t.percentile(90)} for t in timings],
    }


if __name__ == "__main__":
    raise SystemExit(main())
