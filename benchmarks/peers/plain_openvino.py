"""OpenVINO on the CPU: as its first tutorial has it, and compiled for one shape in a named arithmetic."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers import Call, PeerInput
from runtime.backends.openvino_runner import openvino


def open_defaults(given: PeerInput) -> Call:
    """`core.compile_model(file, "CPU")`: any shape, and bf16 by itself where the CPU has it."""
    compiled = openvino.Core().compile_model(given.model, "CPU")
    return lambda window: compiled(window)[0]


def open_fp32(given: PeerInput) -> Call:
    """See `open_static`."""
    return open_static(given.model, given.shape, "f32")


def open_bf16(given: PeerInput) -> Call:
    """See `open_static`."""
    return open_static(given.model, given.shape, "bf16")


def open_static(model: Path, shape: tuple[int, ...], hint: str) -> Call:
    """One infer request for one shape, with the hints of the performance guide; no copy of the input or the output."""
    core = openvino.Core()
    network = core.read_model(model)
    if network.is_dynamic():
        network.reshape(list(shape))
    hints = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(network, "CPU", hints).create_infer_request()
    return lambda window: request.infer({0: window}, share_inputs=True, share_outputs=True)[0]
