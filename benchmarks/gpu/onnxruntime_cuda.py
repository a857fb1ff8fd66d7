"""ONNX Runtime on CUDA: parity with PyTorch on the CPU, and latency beside PyTorch on the same GPU where that is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.arguments import count
from benchmarks.shared.timing import interleave
from runtime import Engine
from runtime.backends.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner
from runtime.command_line import command
from runtime.pixels.metrics import psnr
from runtime.pixels.padding import pad

ROUNDS = 30  # calls of each way


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/onnxruntime_cuda.py", description=__doc__)
    parser.add_argument("model", type=Path, help="ONNX file with float input")
    parser.add_argument("--windows", type=Path, required=True, help="windows, .npz from benchmarks/gpu/reference_windows.py")
    parser.add_argument(
        "--precision",
        choices=("fp32", "tf32"),
        default="fp32",
        help="arithmetic of what the file has in fp32 (default %(default)s)",
    )
    parser.add_argument("--rounds", type=count, default=ROUNDS, help="rounds to measure (default %(default)s)")
    given = parser.parse_args(argv)
    with np.load(given.windows) as arrays:
        blurry, sharp = arrays["blurry"], arrays["sharp"]
    with Engine(given.model, "onnxruntime-cuda", given.precision) as engine, ExitStack() as opened:
        found = np.stack([engine.run(window) for window in blurry])
        print(f"{engine.reason}: {psnr(found, sharp, 1.0):.1f} dB of PyTorch in fp32")
        plain = OnnxRuntimeCudaRunner(given.model, engine.contract.precision, 0, given.precision, cuda_graph=False)
        opened.callback(plain.close)
        padded = pad(blurry[0], engine.contract.multiple)  # runners take what Engine gives them
        ways = {"bound buffers, CUDA graph": lambda: engine.runner.run(padded), "bound buffers": lambda: plain.run(padded)}
        for timing in interleave({**ways, **_torch_ways(blurry[0])}, given.rounds):
            print(f"{timing.name:32}{timing.median:9.2f} ms, 95 % within {timing.percentile(95):.2f}")
    return 0


def _torch_ways(window: np.ndarray) -> dict[str, Callable[[], object]]:
    """PyTorch with its copies, in fp32 and in bf16 autocast; nothing where it has no GPU."""
    if find_spec("torch") is None:
        return {}
    import torch

    from model import default_checkpoint, load_checkpoint
    from model.reference import PRECISIONS, TorchRunner

    if not torch.cuda.is_available():
        return {}
    runners = {name: TorchRunner(load_checkpoint(default_checkpoint()), name, "cuda") for name in PRECISIONS}
    return {f"pytorch {name} channels_last": lambda runner=runner: runner.run(window) for name, runner in runners.items()}


if __name__ == "__main__":
    raise SystemExit(main())
