"""Writes a typed graph as a model file that was compared with the fp32 file it was made of before it got its name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from calibration.clips import windows
from calibration.onnx_file import load_onnx
from export.export_options import Parity
from export.type_shares import fixed_size, layer_types, shares
from runtime import sample_codes
from runtime.contract import METADATA_KEY, MIN_PARITY, Contract, read_contract
from runtime.engine import Engine
from runtime.errors import BackendError, DeployError, InputError, ModelError
from runtime.metrics import psnr

NOTES_KEY = "videodeblur.types"  # in metadata_props, a JSON object: the type of every layer and what was kept, with the reason
COMPARED_SIZE = (184, 320)  # pixels, H and W where they are free
EQUAL = 200.0  # dB, written where all samples are equal: infinity is not JSON
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
    """A graph to be typed, and its contract. Raises ModelError when the file is broken, foreign, or not in fp32."""
    contract = read_contract(path)
    if contract.precision != "fp32":
        raise ModelError(f"{path} is in {contract.precision} already, expected fp32: hand over what export/to_onnx.py wrote")
    return load_onnx(path), contract


def write_typed(
    model: onnx.ModelProto, source: Path, output: Path, precision: str, clip: Path, notes: Mapping[str, Any]
) -> TypedFile:
    """Writes `model`, made of the fp32 file `source`; it appears as `output` when it passed, or not at all.

    Both run on held-out windows of `clip`, the fp32 file on ONNX Runtime. The typed file runs there too where it can, since ONNX
    Runtime computes what a graph literally says, and on OpenVINO in each arithmetic of this CPU. The first of these decides:
    LostParityError when it is under MIN_PARITY. All are written into the contract with `precision`; `notes` go beside it.
    Raises InputError when `clip` is too short or `output` cannot be written, BackendError when nothing here runs the file.
    """
    contract = replace(read_contract(source), precision=precision, parity={})
    samples = held_out_windows(clip, contract)
    with Engine(source, "onnxruntime") as engine:
        expected = _run(engine, samples)
    with _partial(output) as partial:
        _write(model, contract, notes, partial)
        parities, remarks = _measured(partial, samples, expected, contract)
        _require(parities[0], precision)
        contract = replace(contract, parity={f"{row.backend}:{row.precision}": round(row.decibels, 2) for row in parities})
        _write(model, contract, notes, partial)
        partial.replace(output)
    sizes = source.stat().st_size, output.stat().st_size
    rows = layer_types(model, {}, *fixed_size(model))
    return TypedFile(output, contract, parities, remarks, shares(rows, asked=True), *sizes)


def report(found: TypedFile) -> str:
    """The result as text."""
    lines = [
        f"{found.path}: {found.contract.precision}, {found.bytes_after / 1e6:.1f} MB (fp32: {found.bytes_before / 1e6:.1f} MB)",
        "convolution FLOPs by type: " + ", ".join(f"{word} {share:.1%}" for word, share in found.shares.items()),
        "parity with the fp32 file, itself compared with PyTorch at export, on held-out windows:",
    ]
    least = MIN_PARITY[found.contract.precision]
    for row in found.parities:
        relation = f"(at least {least:.0f})" if row.decibels >= least else f"UNDER the {least:.0f} asked for"
        lines.append(f"  {row.backend} {row.precision}: {row.decibels:.1f} dB {relation}")
    return "\n".join([*lines, *(f"note: {remark}" for remark in found.remarks)])


def held_out_windows(clip: Path, contract: Contract) -> npt.NDArray[Any]:
    """(N, F, H, W) in the model's input type: windows that calibration does not see, cut from the middle of the picture, which is
    mirrored where it is too small. Raises InputError when the clip is missing or too short."""
    size = contract.height or COMPARED_SIZE[0], contract.width or COMPARED_SIZE[1]
    found = [_fit(window.luma, size) for window in windows(clip, contract.frames, "verification", COMPARED_WINDOWS)]
    batch = contract.batch or 1
    found += [found[-1]] * (-len(found) % batch)
    unit = np.stack(found)
    return unit if contract.io == "f32" else sample_codes.from_unit(unit, contract.bits, contract.color_range)


def _measured(
    path: Path, samples: npt.NDArray[Any], expected: npt.NDArray[Any], contract: Contract
) -> tuple[tuple[Parity, ...], tuple[str, ...]]:
    found, remarks = [], []
    for backend, precision in (("onnxruntime", "auto"), *(("openvino", word) for word in _openvino_arithmetic())):
        try:
            with Engine(path, backend, precision) as engine:
                found.append(_compared(engine, _run(engine, samples), expected))
        except (ModelError, BackendError) as error:
            remarks.append(f"{backend} does not run this file: {str(error).splitlines()[0][:200]}")
    if not found:
        raise BackendError(f"nothing on this machine runs the file, so that it cannot be compared: {'; '.join(remarks)}")
    least = MIN_PARITY[contract.precision]
    remarks += [f"do not run this file with {row.backend} {row.precision}" for row in found if row.decibels < least]
    return tuple(found), tuple(remarks)


def _openvino_arithmetic() -> tuple[str, ...]:
    if find_spec("openvino") is None:
        return ()
    from runtime.openvino_runner import native_bf16  # here, since it needs openvino

    return ("fp32", "bf16") if native_bf16() else ("fp32",)


def _run(engine: Engine, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    step = engine.contract.batch or 1
    return np.concatenate([engine.run(samples[i : i + step]) for i in range(0, len(samples), step)])


def _compared(engine: Engine, got: npt.NDArray[Any], expected: npt.NDArray[Any]) -> Parity:
    bits = engine.contract.bits
    decibels = min(EQUAL, psnr(got, expected, 1.0 if bits is None else float(2**bits - 1)))
    return Parity(engine.backend, engine.precision, decibels, got.size, int(np.count_nonzero(got != expected)))


def _require(judged: Parity, precision: str) -> None:
    least = MIN_PARITY[precision]
    if not judged.decibels >= least:
        raise LostParityError(
            f"{precision} comes to {judged.decibels:.1f} dB of the fp32 file on {judged.backend} {judged.precision}, expected at"
            f" least {least:.0f}: keep more layers in a higher type (videodeblur search finds which)"
        )


def _write(model: onnx.ModelProto, contract: Contract, notes: Mapping[str, Any], path: Path) -> None:
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(
        model, {**kept, METADATA_KEY: contract.to_json(), NOTES_KEY: json.dumps(dict(notes), sort_keys=True)}
    )
    onnx.save(model, path)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, gone afterwards; what the system refuses becomes an InputError."""
    if path.suffix != ".onnx":
        raise InputError(f"output is {path}, expected a name that ends with .onnx")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part.onnx")
    try:
        partial.touch()
        yield partial
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}: choose another folder with --output") from error
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)


def _fit(luma: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    missing = [max(0, wanted - have) for wanted, have in zip(size, luma.shape[1:])]
    luma = np.pad(luma, [(0, 0), *((0, count) for count in missing)], mode="symmetric")
    top, left = ((have - wanted) // 2 for have, wanted in zip(luma.shape[1:], size))
    return luma[:, top : top + size[0], left : left + size[1]]
