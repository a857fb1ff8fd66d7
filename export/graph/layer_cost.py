"""What a layer costs in each precision, in relative time: from its multiply-adds and bytes, or from times that were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.graph.layer_precision import Layer, layer_sizes, layers
from runtime.errors import InputError

RATES = {"fp32": 1.0, "fp16": 2.0, "bf16": 2.0, "int8": 4.0, "fp8": 4.0}  # multiply-adds a unit of time; halving bits doubles it
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}  # of a sample
MACS_PER_BYTE = 20.0  # fp32 multiply-adds in the time of one byte: matrix units reach about this on CPUs with AMX and on GPUs


@dataclass(frozen=True)
class LayerCost:
    """Relative time of one layer by precision."""

    macs: int
    times: Mapping[str, float]

    def saved(self, low: str, high: str) -> float:
        """Time gained by taking `low` in place of `high`; negative when it is slower."""
        return self.times[high] - self.times[low]


def modelled_costs(model: onnx.ModelProto, height: int, width: int) -> dict[str, LayerCost]:
    """The larger of computing and moving, for every layer of a window of `height` x `width` pixels.

    A roofline with one ratio for all: it orders layers, it does not predict milliseconds.
    """
    found = layers(model)
    return {name: _modelled(found[name], macs) for name, macs in layer_sizes(model, height, width).items()}


def measured_costs(model: onnx.ModelProto, height: int, width: int, path: Path) -> dict[str, LayerCost]:
    """The same from a JSON file {layer: {precision: milliseconds}}; layers or precisions it lacks are modelled, at its mean scale.

    Raises InputError when the file is missing, is something else, or names a layer that the graph has not.
    """
    modelled = modelled_costs(model, height, width)
    measured = _read(path)
    unknown = set(measured) - set(modelled)
    if unknown:
        raise InputError(f"{path} names layers that the graph has not: {', '.join(sorted(unknown)[:3])}")
    pairs = [(ms, modelled[name].times[word]) for name, times in measured.items() for word, ms in times.items() if word in RATES]
    unit = sum(ms for ms, _ in pairs) / sum(units for _, units in pairs) if pairs else 1.0
    return {
        name: LayerCost(cost.macs, {word: measured.get(name, {}).get(word, unit * units) for word, units in cost.times.items()})
        for name, cost in modelled.items()
    }


def total(costs: Mapping[str, LayerCost], precisions: Mapping[str, str]) -> float:
    """Relative time of all layers at their precisions."""
    return sum(cost.times[precisions[name]] for name, cost in costs.items())


def _modelled(layer: Layer, macs: int) -> LayerCost:
    samples = macs / layer.macs * (layer.inputs + layer.outputs)
    times = {word: max(macs / rate, samples * BYTES[word] * MACS_PER_BYTE) for word, rate in RATES.items()}
    return LayerCost(macs, times)


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): expected {{layer: {{precision: milliseconds}}}}") from error
    if not isinstance(found, dict) or not all(isinstance(times, dict) for times in found.values()):
        raise InputError(f"{path}: expected {{layer: {{precision: milliseconds}}}}")
    return found
