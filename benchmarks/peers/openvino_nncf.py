"""OpenVINO's own INT8: NNCF's post-training quantisation, plain and with its search under a limit of lost quality."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.peers import Call, PeerInput
from benchmarks.peers.plain_openvino import open_static
from runtime.backends.openvino_runner import native_bf16, openvino
from runtime.errors import BackendError
from runtime.machine.no_telemetry import without_openvino_telemetry
from runtime.pixels.metrics import psnr

with without_openvino_telemetry():
    import nncf

MAX_DROP = 0.05  # dB against the truth, the budget that `videodeblur search` has by default

Planes = np.ndarray  # (1, F, H, W) float32
Validate = Callable[[openvino.CompiledModel, Iterable[tuple[Planes, Planes]]], float]


def open_quantized(given: PeerInput) -> Call:
    """`nncf.quantize` with its defaults, calibrated on all windows of the clip, those too on which it is judged."""
    return _open(given, "nncf.xml", lambda model, data: nncf.quantize(model, data, subset_size=len(given.calibration)))


def open_accuracy_controlled(given: PeerInput) -> Call:
    """`nncf.quantize_with_accuracy_control`: puts layers back to float until the loss is under MAX_DROP."""

    def quantize(model: openvino.Model, data: nncf.Dataset) -> openvino.Model:
        if not len(given.truth):
            raise BackendError("its limit is on the loss against the truth: it needs --truth")
        validation = nncf.Dataset(list(zip(given.calibration, given.truth)), lambda pair: pair)
        return nncf.quantize_with_accuracy_control(
            model,
            data,
            validation,
            _mean_psnr,
            max_drop=MAX_DROP,
            drop_type=nncf.DropType.ABSOLUTE,
            subset_size=len(given.calibration),
        )

    return _open(given, "nncf_max_drop.xml", quantize)


def _open(given: PeerInput, name: str, quantize: Callable[[openvino.Model, nncf.Dataset], openvino.Model]) -> Call:
    path = given.folder / name
    if not path.is_file():
        nncf.set_log_level(logging.ERROR)
        model = openvino.Core().read_model(given.model)
        openvino.save_model(quantize(model, nncf.Dataset(list(given.calibration))), path)
    return open_static(path, given.shape, "bf16" if native_bf16() else "f32")


def _mean_psnr(compiled: openvino.CompiledModel, pairs: Iterable[tuple[Planes, Planes]]) -> float:
    return float(np.mean([psnr(np.clip(compiled(blurry)[0], 0, 1), sharp, 1.0) for blurry, sharp in pairs]))
