"""`open_bundle`: a folder with a manifest, ONNX files, engines and golden frames -> the first member that proves itself here.

Every file's SHA-256 is checked before anything is loaded: an engine is native code, and a bundle that was changed is refused whole.
That tells changes, not authors: take bundles only from those you trust. docs/bundle.md has the manifest's schema.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import backends
from runtime.errors import BackendError, DeployError, ModelError
from runtime.files.contract import MIN_PARITY, Contract
from runtime.files.engine_record import SUFFIXES, file_sha256, record_path
from runtime.files.records import parse_object, read_record
from runtime.pixels import sample_codes
from runtime.pixels.metrics import psnr

MANIFEST = "manifest.json"
KIND = "videodeblur.bundle"
SCHEMA = 1  # raised when a field changes its meaning
MIN_PARITY_OF_CODES = 50.0  # dB; a code that is rounded the other way costs more than what the arithmetic does
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # of a file in the folder: no path leads out of it
GOLDEN_BITS, GOLDEN_RANGE = 8, "full"  # what the golden input of float models is stored as

log = logging.getLogger("videodeblur.bundle")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Golden:
    """A window and what the reference makes of it. The input is continued by mirroring to the size that is run."""

    io: str  # these three as in the contract of the members that take it
    bits: int | None
    color_range: str | None
    height: int  # pixels that are run
    width: int
    input: str  # .npy, (F, h, w) sample codes; of 8 bits in full range for io "f32"
    reference: str  # .npy, (F, h, w) cut from the middle of the result; float32 for io "f32", else codes


@dataclass(frozen=True)
class Member:
    """A model in the bundle, in the order in which they are tried."""

    file: str  # .onnx or engine; an engine's record lies beside it
    precision: str  # a key of runtime.files.contract.MIN_PARITY
    golden: int  # number in `Manifest.goldens`
    parity: float | None = None  # dB against the reference, where it was measured
    milliseconds: float | None = None  # for the golden window, where it was measured
    measured_on: str | None = None  # the machine of the two


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.json."""

    checkpoint_sha256: str
    created: str  # ISO 8601, UTC
    files: dict[str, str]  # SHA-256 of every other file in the folder, by name
    members: tuple[Member, ...]
    goldens: tuple[Golden, ...]
    versions: dict[str, str]  # of the libraries that made it
    kind: str = KIND
    schema: int = SCHEMA

    def save(self, folder: Path) -> None:
        """Writes the manifest; it appears whole or not at all."""
        partial = folder / f".{MANIFEST}.{os.getpid()}.part"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(folder / MANIFEST)


def open_bundle(folder: Path, how: backends.How) -> backends.Choice:
    """The first member that runs here and agrees with the golden frames; its reason says why not those before it.

    Raises ModelError when the manifest is missing, damaged or from a later version, or a file was changed; BackendError when no
    member works. With `how.fallback` False, raises what is wrong with the first member that `how.backend` admits.
    """
    manifest = load_manifest(folder)
    missing = check_files(folder, manifest)
    refused: list[str] = []
    for member in _admitted(manifest, how):
        try:
            choice, decibels = _open_member(folder, manifest, member, missing, how)
        except DeployError as error:
            if not how.fallback:
                raise
            log.warning("%s: %s is not used: %s", folder, member.file, error)
            refused.append(f"not {member.file}: {error}")
        else:
            tested = f"{member.file} is within {decibels:.1f} dB of the bundle's golden frames"
            return backends.Choice(choice.runner, choice.contract, "; ".join([tested, choice.reason, *refused]))
    raise BackendError(f"nothing in {folder} runs here: {'; '.join(refused) or f'no member is for {how.backend}'}")


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle. Raises ModelError when it is missing, damaged, foreign, or of another schema."""
    path = folder / MANIFEST
    try:
        values = parse_object(path.read_text(encoding="utf-8"))
        if values.get("kind") != KIND:
            raise ValueError(f"its kind is {values.get('kind')!r}, expected {KIND!r}")
        if values.get("schema") != SCHEMA:
            found = values.get("schema")
            raise ModelError(f"{path} has schema {found}, this version reads {SCHEMA}: update, or make the bundle again")
        manifest = read_record(Manifest, values)
        _check_manifest(manifest)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}: make a bundle with export/to_bundle.py") from error
    except ValueError as error:
        raise ModelError(f"{path} is not a readable manifest ({error}): copy or make the bundle again") from error
    return manifest


def check_files(folder: Path, manifest: Manifest) -> set[str]:
    """Names of the files that are missing. Raises ModelError, naming it, on a file that was changed."""
    missing = {name for name in manifest.files if not (folder / name).is_file()}
    for name in manifest.files.keys() - missing:
        found = file_sha256(folder / name)
        if found != manifest.files[name]:
            raise ModelError(
                f"{folder / name} was changed: its sha256 is {found[:12]}, the manifest says {manifest.files[name][:12]}; "
                "copy the bundle again"
            )
    return missing


def mirrored(plane: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """(F, h, w) -> (F, height, width): cut, or continued at the bottom and right by mirroring."""
    rows, columns = (_mirror(length, wanted) for length, wanted in zip(plane.shape[1:], (height, width)))
    return np.ascontiguousarray(plane[:, rows][:, :, columns])


def middle(plane: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """(F, H, W) -> (F, height, width), cut from the middle."""
    top, left = (plane.shape[1] - height) // 2, (plane.shape[2] - width) // 2
    return plane[:, top : top + height, left : left + width]


def run_golden(runner: Any, contract: Contract, golden: Golden, codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What a runner makes of a golden input (F, h, w), (F, height, width): float32 for io "f32", else codes."""
    window = mirrored(codes, golden.height, golden.width)[None]
    if contract.io == "f32":
        return np.asarray(runner.run(sample_codes.to_unit(window, GOLDEN_BITS, GOLDEN_RANGE))[0])
    if contract.io == "u8":
        return np.asarray(runner.run(window)[0])
    return np.asarray(sample_codes.from_pairs(runner.run(sample_codes.to_pairs(window)))[0])


def least_parity(arithmetic: str, precision: str, io: str) -> float:
    """dB that a member must come to: what its file's precision loses, or the arithmetic in which it is run, whichever is more."""
    return min(MIN_PARITY[arithmetic], MIN_PARITY[precision]) if io == "f32" else MIN_PARITY_OF_CODES


def self_test(folder: Path, golden: Golden, choice: backends.Choice) -> float:
    """dB between a member's result and the reference's.

    Raises BackendError when that is too little, ModelError when the frames are of another kind than the member takes.
    """
    contract = choice.contract
    if (golden.io, golden.bits, golden.color_range) != (contract.io, contract.bits, contract.color_range):
        raise ModelError("its golden frames are of another kind than its input: make the bundle again")
    codes, reference = (_load(folder / name) for name in (golden.input, golden.reference))
    got = middle(run_golden(choice.runner, contract, golden, codes), *reference.shape[1:])
    peak = 1.0 if contract.bits is None else float(2**contract.bits - 1)
    decibels = psnr(got, reference, peak) if got.shape == reference.shape else float("nan")
    least = least_parity(choice.runner.precision, contract.precision, contract.io)
    if not decibels >= least:  # NaN too
        raise BackendError(
            f"its self-test came to {decibels:.1f} dB of the reference, expected {least:.0f}: it is not the network here"
        )
    return decibels


def _check_manifest(manifest: Manifest) -> None:
    """Raises ValueError on what has the right types and cannot be."""
    for name in manifest.files:
        if not PLAIN_NAME.fullmatch(name) or name == MANIFEST:
            raise ValueError(f"files: {name!r} is no name of a file in the folder")
    for name in _files_used(manifest):
        if name not in manifest.files:
            raise ValueError(f"there is no sha256 of {name!r}")
    for member in manifest.members:
        if not 0 <= member.golden < len(manifest.goldens):
            raise ValueError(f"{member.file} has no golden frames")
    for golden in manifest.goldens:
        if golden.height < 1 or golden.width < 1:
            raise ValueError(f"the golden frames are {golden.height}x{golden.width}")


def _files_used(manifest: Manifest) -> Iterator[str]:
    for member in manifest.members:
        yield member.file
        if Path(member.file).suffix in SUFFIXES:
            yield record_path(Path(member.file)).name
    for golden in manifest.goldens:
        yield from (golden.input, golden.reference)


def _admitted(manifest: Manifest, how: backends.How) -> list[Member]:
    """The members that the caller's backend can run."""
    if how.backend == "auto":
        return list(manifest.members)
    return [member for member in manifest.members if (Path(member.file).suffix in SUFFIXES) == (how.backend == "tensorrt")]


def _open_member(
    folder: Path, manifest: Manifest, member: Member, missing: set[str], how: backends.How
) -> tuple[backends.Choice, float]:
    golden = manifest.goldens[member.golden]
    for name in (member.file, golden.input, golden.reference):
        if name in missing:
            raise ModelError(f"{folder / name} is missing: copy the bundle again")
    choice = backends.open_model(folder / member.file, how)
    try:
        return choice, self_test(folder, golden, choice)
    except BaseException:
        choice.runner.close()
        raise


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} is not a readable array ({error}): make the bundle again") from error
    if array.ndim != 3 or 0 in array.shape:
        raise ModelError(f"{path} has shape {array.shape}, expected (F, h, w): make the bundle again")
    return np.asarray(array)


def _mirror(length: int, wanted: int) -> npt.NDArray[np.intp]:
    """0 1 2 2 1 0 0 1 ...: the sample that stands for each of `wanted`, of `length` samples."""
    position = np.arange(wanted) % (2 * length)
    return np.minimum(position, 2 * length - 1 - position)
