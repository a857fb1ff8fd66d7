"""`Manifest`: the manifest.json of a bundle, with the SHA-256 of every other file in its folder, and of itself.

It is written in one way only and ends with the SHA-256 of the rest of it, so that no byte of it can be another. docs/bundle.md has
the schema.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import ModelError
from runtime.files.contract import MIN_PARITY
from runtime.files.engine_record import SUFFIXES, record_path
from runtime.files.on_disk import Read, file_sha256, partial_file
from runtime.files.records import parse_object, read_record, read_text, shortened

MANIFEST = "manifest.json"
KIND = "videodeblur.bundle"
SIGNATURE = "model.sig"  # beside it in a bundle that was signed, see runtime/files/signatures.py
SCHEMA = 2  # raised when a field changes its meaning
UNSEALED = 1  # had no SHA-256 of itself
SEAL = "sha256"  # the last key
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{,199}")  # of a file in the folder: no path leads out of it
MOST_PIXELS = 8192 * 4320  # of a golden window: the largest frames that cameras make


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
    loss: float | None = None  # dB of PSNR against the truth of the shipped pair of clips that it loses, where it was measured


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
        with partial_file(folder / MANIFEST) as partial:
            partial.write_bytes(manifest_text(asdict(self)).encode())


def manifest_text(values: Mapping[str, Any]) -> str:
    """The only text that a manifest of these values has."""
    bare = {key: value for key, value in values.items() if key != SEAL}
    seal = {} if values.get("schema") == UNSEALED else {SEAL: hashlib.sha256(_text(bare).encode()).hexdigest()}
    return _text({**bare, **seal})


def load_manifest(folder: Path, signed: str | None = None) -> Manifest:
    """The manifest of a bundle. Raises ModelError when it is missing, damaged, foreign, or of another schema.

    And where its SHA-256 is not `signed`, if that is known.
    """
    path = folder / MANIFEST
    try:
        text = read_text(path)
        if signed not in (None, hashlib.sha256(text.encode()).hexdigest()):
            raise ModelError(f"{path} was changed after it was signed: copy the bundle again")
        values = parse_object(text)
        if values.get("kind") != KIND:
            raise ValueError(f"its kind is {values.get('kind')!r}, expected {KIND!r}")
        if values.get("schema") not in (UNSEALED, SCHEMA):
            found = values.get("schema")
            raise ModelError(f"{path} has schema {found}, this version reads {SCHEMA}: update, or make the bundle again")
        if text != manifest_text(values):
            raise ModelError(f"{path} was changed: it is not what the sha256 at its end is of; copy the bundle again")
        manifest = read_record(Manifest, values)
        _check_manifest(manifest)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}: make a bundle with export/to_bundle.py") from error
    except ValueError as error:
        raise ModelError(f"{path} is not a readable manifest ({error}): copy or make the bundle again") from error
    return manifest


def check_files(folder: Path, manifest: Manifest) -> set[str]:
    """Names of the files that are missing. Raises ModelError, naming it, on one that was changed, is a link, or is one too many."""
    with os.scandir(folder) as entries:
        found = {entry.name: entry for entry in entries}
    for name, entry in sorted(found.items()):
        if name not in (*manifest.files, MANIFEST, SIGNATURE):
            raise ModelError(f"{shortened(str(folder / name), 400)} is not in the bundle's manifest: move it elsewhere")
        if not entry.is_file(follow_symlinks=False):
            what = "a link" if entry.is_symlink() else "no file"
            raise ModelError(f"{folder / name} is {what}, expected the file itself: copy the bundle again, with what links lead to")
    for name in manifest.files.keys() & found.keys():
        _check_sha256(folder / name, file_sha256(folder / name), manifest)
    return manifest.files.keys() - found.keys()


def reader(folder: Path, manifest: Manifest) -> Read:
    """Reads files of the bundle. Raises ModelError, naming it, where one is not what the manifest vouches for."""

    def read(path: Path) -> bytes:
        if path.parent != folder or path.name not in manifest.files:
            raise ModelError(f"{path} is not in the bundle's manifest: make the bundle again")
        data = path.read_bytes()
        _check_sha256(path, hashlib.sha256(data).hexdigest(), manifest)
        return data

    return read


def _check_sha256(path: Path, found: str, manifest: Manifest) -> None:
    said = manifest.files[path.name]
    if found != said:
        raise ModelError(f"{path} was changed: its sha256 is {found[:12]}, the manifest says {said[:12]}; copy the bundle again")


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"


def _check_manifest(manifest: Manifest) -> None:
    """Raises ValueError on what has the right types and cannot be."""
    for name in manifest.files:
        if not PLAIN_NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE):
            raise ValueError(f"files: {shortened(name)} is no name of a file in the folder")
    for name in _files_used(manifest):
        if name not in manifest.files:
            raise ValueError(f"there is no sha256 of {shortened(name)}")
    for member in manifest.members:
        if not 0 <= member.golden < len(manifest.goldens):
            raise ValueError(f"{member.file} has no golden frames")
        if member.precision not in MIN_PARITY:
            raise ValueError(f"{member.file} has precision {member.precision!r}, expected one of {', '.join(MIN_PARITY)}")
    for golden in manifest.goldens:
        if golden.height < 1 or golden.width < 1 or golden.height * golden.width > MOST_PIXELS:
            raise ValueError(f"the golden frames are {golden.height}x{golden.width}, expected 1 to {MOST_PIXELS} pixels")


def _files_used(manifest: Manifest) -> Iterator[str]:
    for member in manifest.members:
        yield member.file
        if Path(member.file).suffix in SUFFIXES:
            yield record_path(Path(member.file)).name
    for golden in manifest.goldens:
        yield from (golden.input, golden.reference)
