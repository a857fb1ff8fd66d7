"""ONNX Runtime's CPU provider with its defaults."""

from __future__ import annotations

import onnxruntime

from benchmarks.peers import Call, PeerInput


def open_session(given: PeerInput) -> Call:
    """`session.run` on one input."""
    session = onnxruntime.InferenceSession(str(given.model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: session.run(None, {name: window})[0]
