"""What a measurement is asked for, held against the model or engine and the disk before any work is done."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.engine.measure_request import MeasureRequest, Pair
from export.engine.performance_report import by
from export.engine.size_presets import check_sizes
from runtime.errors import InputError
from runtime.files.contract import Contract, read_contract
from runtime.files.engine_record import Profile, load_record
from runtime.files.on_disk import check_not_input, place_of, refusals


def what_it_takes(request: MeasureRequest) -> tuple[Contract, Sequence[Profile]]:
    """The contract and the profiles of the engine that is loaded or is to be built.

    Raises InputError where a build's sizes do not fit the model, or are missing; ModelError where a file is not in order.
    """
    if request.build is None:
        record = load_record(request.source)
        return record.contract, record.profiles
    contract = read_contract(request.build.onnx)
    check_sizes(request.build.profiles, contract)
    if request.build.profiles:
        return contract, request.build.profiles
    fixed = (contract.batch or 1, contract.frames, contract.height or 1, contract.width or 1)
    shape = (*fixed, 2) if contract.io == "u16" else fixed
    return contract, (Profile(shape, shape, shape),)


def read_pair(pair: Pair, shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """The input's values, and what the output is compared with. Raises InputError where a file is not there, or of another size."""
    return _read(pair.inputs, shape, dtype), _read(pair.reference, shape, dtype) if pair.reference else None


def check_place(flag: str, path: Path, request: MeasureRequest) -> None:
    """Raises InputError where a file that `flag` names cannot be written, or is one of those that are read."""
    pairs = (file for pair in request.pairs for file in (pair.inputs, pair.reference))
    check_not_input(path, request.source, request.engine, *pairs)
    if path.is_dir():
        raise InputError(f"{flag} is {path}, which is a folder, expected a file's name")
    folder = place_of(path).parent
    with refusals(folder, flag), tempfile.TemporaryFile(dir=folder):
        pass  # told now, not after the measurement


def _read(path: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    expected = f"expected {size} bytes, raw {dtype} samples of {by(shape)} as numpy's tofile() writes them"
    try:
        got = path.stat().st_size
        if got != size:
            raise InputError(f"{path} has {got} bytes, {expected}")
        return np.fromfile(path, dtype).reshape(shape)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}, {expected}") from error
