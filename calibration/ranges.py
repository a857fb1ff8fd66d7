"""`ranges.json`: what calibration measured, for which graph and weights, on which windows.

It keeps the histograms, so that a scale by another method needs no second measurement. A JSON object with the fields of `Ranges`;
`counts` of a histogram is base64 of zlib of little-endian int64.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from calibration import scales
from calibration.fingerprints import graph_hash, weights_hash
from calibration.histograms import BINS, LEAST_EXPONENT, Extent, Histogram
from calibration.tensors import Activation
from runtime.errors import InputError, ModelError
from runtime.files.on_disk import partial_file
from runtime.files.records import read_object, read_record

KIND = "videodeblur.ranges"
SCHEMA = 1  # raised when a field changes its meaning
FP16_LARGEST = 65504.0
LARGEST_EXPONENT = 128  # float32 ends below 2^128
ON_PRECISION = {  # methods that have a scale in each precision
    precision: tuple(method for method in scales.METHODS if (method, precision) != ("entropy", "fp8"))
    for precision in scales.LARGEST_CODE
}


@dataclass(frozen=True)
class MeasuredWindow:
    """A window that was measured, and the part of its frames that the network saw."""

    clip: str  # path below the folder that was named
    first: int  # frame number in the clip, from 0
    sha256: str  # of the whole window's luma, see `calibration.clips.Window`
    top: int  # pixels
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class TensorRange:
    """What a tensor held over all windows."""

    activation: Activation  # name, producer, made_by, read_by, known_absmax
    extent: Extent
    histogram: Histogram | None  # of `calibration.tensors.scaled_tensors`; None where the extent alone was measured
    scales: Mapping[str, Mapping[str, float]]  # by precision and method, as measured; empty without a histogram

    @property
    def name(self) -> str:
        """Of the tensor in the graph."""
        return self.activation.name

    @property
    def layer(self) -> str:
        """The layer that made it, or else the tensor's name, which begins with the path of the module."""
        return self.activation.made_by or self.name

    @property
    def fp16_share(self) -> float:
        """The largest magnitude over that of FP16; above 1 it overflows."""
        return self.extent.absmax / FP16_LARGEST


@dataclass(frozen=True, eq=False)
class Ranges:
    """The content of a ranges.json."""

    graph_sha256: str  # structure of the graph that was measured, see `calibration.fingerprints`
    weights_sha256: str
    checkpoint_sha256: str  # the checkpoint that the graph was exported from
    method: str  # that `scale` takes when none is named
    percentile: float  # in percent, of the method of this name
    windows: tuple[MeasuredWindow, ...]
    versions: Mapping[str, str]  # of the libraries that measured
    tensors: Mapping[str, TensorRange]  # by name, in order of the graph

    def scale(self, name: str, precision: str = "int8", method: str | None = None) -> float:
        """The scale of a tensor, positive: real = scale * code, zero point 0.

        Tensors with a known range (sigmoid, tanh and parts of their outputs) have its scale whatever the method. `precision` is
        "int8" or "fp8". Raises InputError for a tensor, precision or method that was not measured.
        """
        method = method or self.method
        scales.check(method, precision, self.percentile)
        tensor = self.tensors.get(name)
        if tensor is None or tensor.histogram is None:
            known = "what convolutions and poolings read, convolutions and activations make"
            raise InputError(f"there is no scale of tensor {name!r}, only of {known}: calibrate the graph that it is in")
        if tensor.activation.known_absmax is not None:
            return scales.known_scale(tensor.activation.known_absmax, precision)
        return tensor.scales[precision][method]

    def shared_scale(self, names: Sequence[str], precision: str, method: str | None = None) -> float:
        """The scale of tensors that have one together: the largest measured; where no histogram was kept, nothing is clipped."""
        missing = [name for name in names if name not in self.tensors]
        if missing:
            raise InputError(f"there is no range of tensor {missing[0]!r}: run videodeblur calibrate on this model again")
        measured = [name for name in names if self.tensors[name].histogram is not None]
        if measured:
            return max(self.scale(name, precision, method) for name in measured)
        absmax = max(self.tensors[name].extent.absmax for name in names)
        return scales.known_scale(absmax if absmax >= scales.NOT_ZERO else scales.ZERO_ABSMAX, precision)

    def beyond_fp16(self, share: float = 0.5) -> tuple[TensorRange, ...]:
        """Tensors whose largest magnitude is at least this share of FP16's 65504, in order of the graph."""
        return tuple(tensor for tensor in self.tensors.values() if tensor.fp16_share >= share)

    def check(self, model: onnx.ModelProto) -> None:
        """Raises ModelError unless the ranges were measured on this graph with these weights."""
        remedy = "run videodeblur calibrate on this model again"
        if (graph := graph_hash(model)) != self.graph_sha256:
            raise ModelError(f"the ranges are of another graph ({self.graph_sha256[:12]}, this one is {graph[:12]}): {remedy}")
        if (weights := weights_hash(model)) != self.weights_sha256:
            raise ModelError(f"the ranges are of other weights ({self.weights_sha256[:12]}, these are {weights[:12]}): {remedy}")

    def save(self, path: Path) -> None:
        """Writes the file; it appears whole or not at all."""
        with partial_file(path) as partial:
            partial.write_text(json.dumps(self._to_json(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """The ranges in a file. Raises InputError with the reason when it is missing, damaged, foreign or of another schema."""
        try:
            values = read_object(path)
            _check_kind(values)
            return cls._from_json(values)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}: make it with videodeblur calibrate") from error
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, zlib.error) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else error
            raise InputError(f"{path} is not a usable ranges.json ({reason}): run videodeblur calibrate again") from error

    def _to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["windows"] = [asdict(window) for window in self.windows]
        plain["tensors"] = [_tensor_to_json(tensor) for tensor in self.tensors.values()]
        return {"kind": KIND, "schema": SCHEMA, **plain}

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> Ranges:
        scales.check(values["method"], "int8", values["percentile"])
        tensors = [_tensor_from_json(tensor) for tensor in values["tensors"]]
        return cls(
            graph_sha256=_sha256(values, "graph_sha256"),
            weights_sha256=_sha256(values, "weights_sha256"),
            checkpoint_sha256=_sha256(values, "checkpoint_sha256"),
            method=values["method"],
            percentile=values["percentile"],
            windows=tuple(read_record(MeasuredWindow, window) for window in values["windows"]),
            versions=dict(values["versions"]),
            tensors={tensor.name: tensor for tensor in tensors},
        )


def with_scales(activation: Activation, measured: Extent | Histogram, percentile: float = scales.PERCENTILE) -> TensorRange:
    """The range of a tensor, with the scales by every method where there is a histogram."""
    if isinstance(measured, Extent):
        return TensorRange(activation, measured, None, {})
    by_precision = {
        precision: {method: scales.activation_scale(measured, method, precision, percentile) for method in methods}
        for precision, methods in ON_PRECISION.items()
    }
    return TensorRange(activation, measured.extent, measured, by_precision)


def _check_kind(values: Any) -> None:
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise ValueError(f"it is no object of kind {KIND}")
    if values.get("schema") != SCHEMA:
        raise ValueError(f"it has schema {values.get('schema')}, this version reads {SCHEMA}")


def _sha256(values: dict[str, Any], name: str) -> str:
    text = values[name]
    if len(bytes.fromhex(text)) != 32:
        raise ValueError(f"{name} is no SHA-256")
    return str(text)


def _tensor_to_json(tensor: TensorRange) -> dict[str, Any]:
    histogram = tensor.histogram
    return {
        **asdict(tensor.activation),
        **asdict(tensor.extent),
        "absmax": tensor.extent.absmax,
        "fp16_share": tensor.fp16_share,
        "scales": tensor.scales,
        "histogram": None if histogram is None else _histogram_to_json(histogram),
    }


def _tensor_from_json(values: dict[str, Any]) -> TensorRange:
    activation = read_record(Activation, values)
    extent = read_record(Extent, {field.name: values[field.name] for field in fields(Extent)})
    histogram = None if values["histogram"] is None else _histogram_from_json(values["histogram"], extent)
    tensor = TensorRange(activation, extent, histogram, values["scales"])
    _check_numbers(tensor)
    return tensor


def _check_numbers(tensor: TensorRange) -> None:
    extent, histogram = tensor.extent, tensor.histogram
    if not (math.isfinite(extent.low) and math.isfinite(extent.high) and extent.low <= extent.high and extent.count > 0):
        raise ValueError(f"tensor {tensor.name!r} has the range {extent.low} to {extent.high}")
    if histogram is None:
        return
    if int(histogram.counts.sum()) != extent.count - extent.bad or not 0 <= histogram.zeros <= histogram.counts[0]:
        raise ValueError(f"the histogram of tensor {tensor.name!r} has {histogram.counts.sum()} values, expected {extent.count}")
    for precision, methods in ON_PRECISION.items():
        for method in methods:
            if not 0 < tensor.scales[precision][method] < math.inf:
                raise ValueError(f"tensor {tensor.name!r} has the {precision} scale {tensor.scales[precision][method]} by {method}")


def _histogram_to_json(histogram: Histogram) -> dict[str, Any]:
    counts = base64.b64encode(zlib.compress(histogram.counts.astype("<i8").tobytes(), 9)).decode()
    return {"exponent": histogram.exponent, "zeros": histogram.zeros, "counts": counts}


def _histogram_from_json(values: dict[str, Any], extent: Extent) -> Histogram:
    raw = zlib.decompressobj().decompress(base64.b64decode(values["counts"], validate=True), 8 * BINS + 1)
    counts = np.frombuffer(raw, "<i8").astype(np.int64)
    if counts.shape != (BINS,) or counts.min() < 0:
        raise ValueError(f"a histogram has {counts.size} bins, expected {BINS} that are not negative")
    if not LEAST_EXPONENT <= values["exponent"] <= LARGEST_EXPONENT:
        raise ValueError(f"a histogram has exponent {values['exponent']}")
    return Histogram(extent, values["exponent"], counts, values["zeros"])
