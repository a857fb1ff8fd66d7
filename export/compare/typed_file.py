"""Writes a typed graph as a model file that was compared with the fp32 file it was made of before it got its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from calibration.clips import windows
from calibration.fingerprints import model_hash
from calibration.onnx_file import brief, load_model
from export.compare.literal_runner import LITERAL, exact_backend, open_backend
from export.compare.parity import Parity, RunsModel, compared, computed_by, fit, openvino_precisions
from export.graph.layer_types import fixed_size, layer_types, shares
from export.shipped_clips import SIZE_COMPARED
from runtime.engine import Engine
from runtime.errors import BackendError, DeployError, ModelError
from runtime.files.contract import METADATA_KEY, MIN_PARITY, Contract, read_contract
from runtime.files.on_disk import partial_onnx, refusals
from runtime.pixels import sample_codes

NOTES_KEY = "videodeblur.types"  # in metadata_props, a JSON object: the type of every layer and what was kept, with the reason
FAILED = 0.0  # dB, written where a backend fails on the windows: NaN is not JSON
KEEP_MORE = "keep more layers in a higher type (videodeblur search finds which)"
COMPARED_WINDOWS = 3  # from the part of the clip that calibration does not see


@dataclass(frozen=True)
class TypedFile:
    """A verified file."""

    path: Path
    contract: Contract
    parities: tuple[Parity, ...]  # against the fp32 file on ONNX Runtime; the first is what the gate judged
    remarks: tuple[str, ...]  # what the user should know
    shares: Mapping[str, float]  # of the convolution FLOPs by the type that the graph asks for
    bytes_before: int
    bytes_after: int


class LostParityError(DeployError):
    """A file that was made and departs too far from the fp32 graph; it was deleted."""


def load_fp32(path: Path) -> tuple[onnx.ModelProto, Contract]:
    """A graph to be typed, and its contract. Raises ModelError when the file is broken, foreign, changed, or not in fp32."""
    model, contract = load_model(path)
    if contract.precision != "fp32":
        raise ModelError(f"{path} is in {contract.precision} already, expected fp32: hand over what videodeblur export wrote")
    return model, contract


def write_typed(
    model: onnx.ModelProto, source: Path, output: Path, precision: str, clip: Path, notes: Mapping[str, Any]
) -> TypedFile:
    """Writes `model`, made of the fp32 file `source`; it appears as `output` when it passed, or not at all.

    Both run on held-out windows of `clip`, the fp32 file on ONNX Runtime. The typed file runs on what computes it as its graph says
    (see `exact_backend`), then on what will run it here: ONNX Runtime, and OpenVINO in each arithmetic of this CPU. The first that
    can open it decides: LostParityError when it is under MIN_PARITY, or not a number. All are written into the contract with
    `precision`, 0 dB where one fails; `notes` go beside it.
    Raises InputError when `clip` is too short or `output` cannot be written, BackendError when nothing here runs the file.
    """
    contract, parities, remarks = write_compared(
        model, replace(read_contract(source), precision=precision), source, output, clip, notes
    )
    sizes = source.stat().st_size, output.stat().st_size
    rows = layer_types(model, {}, *fixed_size(model, SIZE_COMPARED))
    return TypedFile(output, contract, parities, remarks, shares(rows, asked=True), *sizes)


def write_compared(
    model: onnx.ModelProto,
    contract: Contract,
    source: Path,
    output: Path,
    clip: Path,
    notes: Mapping[str, Any],
    remedy: str = KEEP_MORE,
) -> tuple[Contract, tuple[Parity, ...], tuple[str, ...]]:
    """`write_typed` for any graph that `contract` describes: the contract that was written, the parities, remarks.

    `remedy` ends what is raised where the graph is too far off.
    """
    contract = replace(contract, parity={}, graph_sha256=model_hash(model))
    samples = held_out_windows(clip, contract)
    with Engine(source, "onnxruntime") as engine:
        expected = computed_by(engine, samples)
    with partial_onnx(output) as partial:
        _write(model, contract, notes, partial)
        parities, told = _measured(model, partial, samples, expected, remedy)
        remarks = tuple(remark.replace(partial.name, output.name) for remark in told)
        contract = replace(contract, parity={f"{row.backend}:{row.precision}": round(row.decibels, 2) for row in parities})
        _write(model, contract, notes, partial)
    return contract, parities, remarks


def report(found: TypedFile) -> str:
    """The result as text."""
    lines = [
        f"{found.path}: {found.contract.precision}, {found.bytes_after / 1e6:.1f} MB (fp32: {found.bytes_before / 1e6:.1f} MB)",
        "convolution FLOPs by type: " + ", ".join(f"{word} {share:.1%}" for word, share in found.shares.items()),
    ]
    return "\n".join([*lines, parity_lines(found.parities, found.contract.precision, found.remarks)])


def parity_lines(parities: Iterable[Parity], precision: str, remarks: Iterable[str]) -> str:
    """What was compared and what came out, as text."""
    lines = ["parity with the fp32 file, itself compared with PyTorch at export, on held-out windows:"]
    least = MIN_PARITY[precision]
    for row in parities:
        relation = f"(at least {least:.0f})" if row.decibels >= least else f"UNDER the {least:.0f} asked for"
        lines.append(f"  {row.backend} {row.precision}: {row.decibels:.1f} dB {relation}")
    return "\n".join([*lines, *(f"note: {remark}" for remark in remarks)])


def held_out_windows(clip: Path, contract: Contract) -> npt.NDArray[Any]:
    """(N, F, H, W) in the model's input type: windows that calibration does not see, cut from the middle of the picture, which is
    mirrored where it is too small. Raises InputError when the clip is missing or too short."""
    size = contract.height or SIZE_COMPARED[0], contract.width or SIZE_COMPARED[1]
    found = [fit(window.luma, size) for window in windows(clip, contract.frames, "verification", COMPARED_WINDOWS)]
    batch = contract.batch or 1
    found += [found[-1]] * (-len(found) % batch)
    unit = np.stack(found)
    return unit if contract.io == "f32" else sample_codes.from_unit(unit, contract.bits, contract.color_range)


def _measured(
    model: onnx.ModelProto, path: Path, samples: npt.NDArray[Any], expected: npt.NDArray[Any], remedy: str
) -> tuple[tuple[Parity, ...], tuple[str, ...]]:
    """The parities of the file at `path`, the judge's first, and remarks. Raises LostParityError when the judge is not content."""
    found: list[Parity] = []
    remarks: list[str] = []
    for backend, precision in _backends(model):
        try:
            runner = open_backend(path, backend, precision)
        except (ModelError, BackendError) as error:
            remarks.append(f"{backend} does not run this file: {brief(error)}")
            continue
        with runner:
            parity, failure = _parity(runner, samples, expected)
        least = MIN_PARITY[runner.contract.precision]
        if not found and not parity.decibels >= least:
            raise LostParityError(_lost(parity, failure, runner.contract.precision, remedy))
        if not parity.decibels >= least:
            remarks.append(f"do not run this file with {parity.backend} {parity.precision}{failure and f': {failure}'}")
        found.append(parity)
    if not found:
        raise BackendError(f"nothing on this machine runs the file, so that it cannot be compared: {'; '.join(remarks)}")
    return tuple(found), tuple(remarks)


def _backends(model: onnx.ModelProto) -> tuple[tuple[str, str], ...]:
    """What to run a file on, and in which arithmetic; what computes it as its graph says first."""
    usual = [("onnxruntime", "auto"), *(("openvino", word) for word in openvino_precisions())]
    return ((LITERAL, "auto"), *usual) if exact_backend(model) == LITERAL else tuple(usual)


def _parity(runner: RunsModel, samples: npt.NDArray[Any], expected: npt.NDArray[Any]) -> tuple[Parity, str]:
    """The parity, and why it is FAILED where running fails, as it does on NaN."""
    try:
        return compared(runner, computed_by(runner, samples), expected), ""
    except BackendError as error:
        return Parity(runner.backend, runner.precision, FAILED, expected.size, expected.size), brief(error)


def _lost(judged: Parity, failure: str, precision: str, remedy: str) -> str:
    found = failure or f"{precision} comes to {judged.decibels:.1f} dB of the fp32 file on {judged.backend} {judged.precision}"
    return f"{found}, expected at least {MIN_PARITY[precision]:.0f}{' dB of the fp32 file' if failure else ''}: {remedy}"


def _write(model: onnx.ModelProto, contract: Contract, notes: Mapping[str, Any], path: Path) -> None:
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(
        model, {**kept, METADATA_KEY: contract.to_json(), NOTES_KEY: json.dumps(dict(notes), sort_keys=True)}
    )
    with refusals(path.parent):
        onnx.save(model, path)
