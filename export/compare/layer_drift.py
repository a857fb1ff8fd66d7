"""Where a graph departs from another of the same network: signal-to-noise ratio by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import shape_inference

from calibration.operator_runner import OperatorRunner
from runtime.errors import ModelError


@dataclass(frozen=True)
class LayerDrift:
    """One convolution in both graphs."""

    layer: str  # path of the PyTorch module
    sqnr: float  # dB, power of the reference's output over that of the difference; infinite when equal


def layer_drift(reference: onnx.ModelProto, candidate: onnx.ModelProto, windows: Iterable[npt.NDArray[Any]]) -> list[LayerDrift]:
    """Compares the output of every convolution that both graphs have, in the reference's order, over (1, F, H, W) windows in
    the type of the graphs' input.

    Runs on ONNX Runtime's CPU kernels, one operator at a time. Convolutions are matched by their node names, which the typed
    graphs keep from the graph that they were made of. Raises ModelError when none match.
    """
    layers = [name for name in _outputs(reference) if name in _outputs(candidate)]
    if not layers:
        raise ModelError("the graphs share no convolution by name: compare graphs made from one export")
    signal, noise = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    with (
        OperatorRunner(shape_inference.infer_shapes(reference)) as ours,
        OperatorRunner(shape_inference.infer_shapes(candidate)) as theirs,
    ):
        for window in windows:
            expected = _layer_values(ours, reference, window)
            for name, value in _layer_values(theirs, candidate, window).items():
                if name in signal:
                    signal[name] += float(np.sum(np.square(expected[name], dtype=np.float64)))
                    noise[name] += float(np.sum(np.square(expected[name] - value, dtype=np.float64)))
    return [LayerDrift(name, _decibels(signal[name], noise[name])) for name in layers]


def _outputs(model: onnx.ModelProto) -> dict[str, str]:
    """The output tensor of every convolution by the layer's name."""
    return {node.name.removesuffix("/Conv"): node.output[0] for node in model.graph.node if node.op_type == "Conv"}


def _layer_values(runner: OperatorRunner, model: onnx.ModelProto, window: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    names = {tensor: layer for layer, tensor in _outputs(model).items()}
    return {names[tensor]: value.astype(np.float32) for tensor, value in runner.run(window) if tensor in names}


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
