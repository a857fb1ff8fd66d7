"""PyTorch on a GPU in fp16, eager and compiled. Not yet run on a GPU."""

from __future__ import annotations

import torch

from benchmarks.peers import Call, PeerInput
from model import load_checkpoint
from runtime.errors import BackendError


def open_fp16(given: PeerInput) -> Call:
    """Half-precision weights in channels-last layout, TF32 allowed."""
    return _call(given, compiled=False)


def open_compiled_fp16(given: PeerInput) -> Call:
    """The same under `torch.compile(mode="max-autotune")`, which also records CUDA graphs."""
    return _call(given, compiled=True)


def _call(given: PeerInput, compiled: bool) -> Call:
    if not torch.cuda.is_available():
        raise BackendError("PyTorch finds no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    network = load_checkpoint(given.weights).eval().half().to("cuda", memory_format=torch.channels_last)
    forward = torch.compile(network, mode="max-autotune") if compiled else network

    def call(window):  # noqa: ANN001, ANN202 # as Call says
        with torch.inference_mode():
            blurry = torch.from_numpy(window).cuda().half().contiguous(memory_format=torch.channels_last)
            return forward(blurry).float().cpu().numpy()

    return call
