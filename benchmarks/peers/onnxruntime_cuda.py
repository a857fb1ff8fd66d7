"""ONNX Runtime's CUDA provider with its defaults: numpy in, numpy out. Not yet run on a GPU."""

from __future__ import annotations

import onnxruntime

from benchmarks.peers import Call, PeerInput
from runtime.errors import BackendError

PROVIDER = "CUDAExecutionProvider"


def open_session(given: PeerInput) -> Call:
    """`session.run`; without the provider ONNX Runtime would silently run on the CPU."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise BackendError(f"this build of ONNX Runtime has no {PROVIDER}")
    session = onnxruntime.InferenceSession(str(given.model), providers=[PROVIDER, "CPUExecutionProvider"])
    if PROVIDER not in session.get_providers():
        raise BackendError(f"{PROVIDER} does not start here")
    name = session.get_inputs()[0].name
    return lambda window: session.run(None, {name: window})[0]
