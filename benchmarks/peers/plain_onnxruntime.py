"""ONNX Runtime's CPU provider with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime


def open_session(model: Path) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]:
    """`session.run` on one input."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: session.run(None, {name: window})[0]
