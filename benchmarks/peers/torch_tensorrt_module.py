"""Torch-TensorRT, as in its first example. Not yet run on a GPU."""

from __future__ import annotations

import torch
import torch_tensorrt

from benchmarks.peers import Call, PeerInput
from model import load_checkpoint
from runtime.errors import BackendError


def open_fp16(given: PeerInput) -> Call:
    """`torch_tensorrt.compile` of the half-precision network for one shape."""
    if not torch.cuda.is_available():
        raise BackendError("PyTorch finds no GPU")
    network = load_checkpoint(given.weights).eval().half().cuda()
    example = torch.zeros(given.shape, dtype=torch.half, device="cuda")
    compiled = torch_tensorrt.compile(network, ir="dynamo", inputs=[example], enabled_precisions={torch.half})

    def call(window):  # noqa: ANN001, ANN202 # as Call says
        with torch.inference_mode():
            return compiled(torch.from_numpy(window).cuda().half()).float().cpu().numpy()

    return call
