"""`open_bundle`: a folder with a manifest, ONNX files, engines and golden frames -> the first member that proves itself here.

Every file's SHA-256 is checked before anything is loaded: an engine is native code, and a bundle that was changed is refused whole.
What is loaded is checked once more as it is read, so that nobody can exchange it in between. That tells changes, not authors: a
signature does. docs/bundle.md has the manifest's schema.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import backends
from runtime.backends.runner import KeepsCompiled, Runner, run_checked
from runtime.errors import BackendError, DeployError, MissingPackageError, ModelError
from runtime.files.arrays import read_array
from runtime.files.contract import MIN_PARITY, Contract
from runtime.files.engine_record import SUFFIXES
from runtime.files.manifest import Golden, Manifest, Member, check_files, load_manifest, reader
from runtime.files.on_disk import Read
from runtime.machine.requirements import requirement
from runtime.pixels import padding, sample_codes
from runtime.pixels.metrics import psnr

MIN_PARITY_OF_CODES = 50.0  # dB; a code that is rounded the other way costs more than what the arithmetic does
GOLDEN_BITS, GOLDEN_RANGE = 8, "full"  # what the golden input of float models is stored as

log = logging.getLogger("videodeblur.bundle")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Before:
    """What an earlier process found of a member on this machine, with the same libraries."""

    decibels: float  # that it reached in its test
    size: tuple[int, int]  # height and width of the frames that will come: what was compiled for them is loaded in the background


def open_bundle(folder: Path, how: backends.How, trust: Path | None = None) -> backends.Choice:
    """The first member that runs here and agrees with the golden frames; its reason says why not those before it.

    Raises ModelError when the manifest is missing, damaged or from a later version, or a file was changed; BackendError when no
    member works. With `how.fallback` False, raises what is wrong with the first member that `how.backend` admits. With `trust`, a
    public key, raises ModelError unless its owner signed the bundle and nothing of it is missing.
    """
    manifest, missing = checked_bundle(folder, trust)
    refused: list[str] = []
    for member in _admitted(manifest, how):
        try:
            choice, decibels = open_member(folder, manifest, member, missing, how)
        except DeployError as error:
            if not how.fallback:
                raise
            log.warning("%s: %s is not used: %s", folder, member.file, error)
            refused.append(f"not {member.file}: {error}")
        else:
            tested = f"{member.file} is within {decibels:.1f} dB of the bundle's golden frames"
            return replace(choice, reason="; ".join([tested, choice.reason, *refused]))
    raise BackendError(f"nothing in {folder} runs here: {'; '.join(refused) or f'no member is for {how.backend}'}")


def checked_bundle(folder: Path, trust: Path | None) -> tuple[Manifest, set[str]]:
    """The manifest of a bundle whose files are what it says, and the names of those that are missing. Raises as `open_bundle`."""
    manifest = load_manifest(folder, signatures().verify(folder, trust) if trust else None)
    return manifest, check_files(folder, manifest)


def signatures() -> Any:
    """The module that signs and verifies. Raises MissingPackageError where it cannot be imported."""
    try:
        return import_module("runtime.files.signatures")
    except ModuleNotFoundError as error:
        package = "pyopenssl" if error.name == "OpenSSL" else "model_signing"
        raise MissingPackageError(requirement(package), "a signature") from error


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
        return np.asarray(run_checked(runner, sample_codes.to_unit(window, GOLDEN_BITS, GOLDEN_RANGE))[0])
    if contract.io == "u8":
        return np.asarray(run_checked(runner, window)[0])
    return np.asarray(sample_codes.from_pairs(run_checked(runner, sample_codes.to_pairs(window)))[0])


def least_parity(arithmetic: str, precision: str, io: str) -> float:
    """dB that a member must reach: what its file's precision loses, or the arithmetic in which it is run, whichever is more."""
    return min(MIN_PARITY[arithmetic], MIN_PARITY[precision]) if io == "f32" else MIN_PARITY_OF_CODES


def self_test(folder: Path, golden: Golden, choice: backends.Choice, read: Read = Path.read_bytes) -> float:
    """dB between a member's result and the reference's.

    Raises BackendError when that is too little, ModelError when the frames are of another kind than the member takes.
    """
    contract = choice.contract
    if (golden.io, golden.bits, golden.color_range) != (contract.io, contract.bits, contract.color_range):
        raise ModelError("its golden frames are of another kind than its input: make the bundle again")
    codes, reference = (_load(folder / name, read) for name in (golden.input, golden.reference))
    if codes.dtype != (np.uint16 if golden.io == "u16" else np.uint8):
        raise ModelError(f"its golden input is {codes.dtype}, expected sample codes: make the bundle again")
    got = middle(run_golden(choice.runner, contract, golden, codes), *reference.shape[1:])
    peak = 1.0 if contract.bits is None else float(2**contract.bits - 1)
    decibels = psnr(got, reference, peak) if got.shape == reference.shape else float("nan")
    least = least_parity(choice.runner.precision, contract.precision, contract.io)
    if not decibels >= least:  # NaN too
        raise BackendError(
            f"its self-test reached {decibels:.1f} dB parity with the reference, expected {least:.0f}: it is not the network here"
        )
    return decibels


def open_member(
    folder: Path,
    manifest: Manifest,
    member: Member,
    missing: set[str],
    how: backends.How,
    before: Before | None = None,
) -> tuple[backends.Choice, float]:
    """A member that passed its test, here and now or `before`, and the dB that it reached. Raises DeployError on any other."""
    golden = manifest.goldens[member.golden]
    for name in (member.file, golden.input, golden.reference):
        if name in missing:
            raise ModelError(f"{folder / name} is missing: copy the bundle again")
    read = reader(folder, manifest)
    choice = backends.open_model(folder / member.file, how, read, known=before is not None)
    try:
        if before:
            soon = (1, choice.contract.frames, *padding.padded_size(*before.size, choice.contract.multiple))
            keep_compiled(choice.runner, manifest.files[member.file], soon)
        decibels = before.decibels if before else self_test(folder, golden, choice, read)
        return replace(choice, file=folder / member.file), decibels
    except BaseException:
        choice.runner.close()
        raise


def keep_compiled(runner: Runner, sha256: str, soon: tuple[int, ...] | None = None) -> None:
    """What it compiled and will compile of the file with this hash is kept for the next process, where its library can."""
    if isinstance(runner, KeepsCompiled):
        runner.keep_compiled(sha256, soon)


def _admitted(manifest: Manifest, how: backends.How) -> list[Member]:
    """The members that the caller's backend can run."""
    if how.backend == "auto":
        return list(manifest.members)
    return [member for member in manifest.members if (Path(member.file).suffix in SUFFIXES) == (how.backend == "tensorrt")]


def _load(path: Path, read: Read) -> npt.NDArray[Any]:
    array = read_array(path, read)
    if array.ndim != 3 or 0 in array.shape:
        raise ModelError(f"{path} has shape {array.shape}, expected (F, h, w): make the bundle again")
    return array


def _mirror(length: int, wanted: int) -> npt.NDArray[np.intp]:
    """0 1 2 2 1 0 0 1 ...: the sample that stands for each of `wanted`, of `length` samples."""
    position = np.arange(wanted) % (2 * length)
    return np.minimum(position, 2 * length - 1 - position)
