"""`Manifest`: the manifest.json of a bundle, with the SHA-256 of every other file in its folder. docs/bundle.md has the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import ModelError
from runtime.files.contract import MIN_PARITY
from runtime.files.engine_record import SUFFIXES, record_path
from runtime.files.on_disk import file_sha256, partial_file
from runtime.files.records import read_object, read_record, shortened

MANIFEST = "manifest.json"
KIND = "videodeblur.bundle"
SCHEMA = 1  # raised when a field changes its meaning
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
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle. Raises ModelError when it is missing, damaged, foreign, or of another schema."""
    path = folder / MANIFEST
    try:
        values = read_object(path)
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


def _check_manifest(manifest: Manifest) -> None:
    """Raises ValueError on what has the right types and cannot be."""
    for name in manifest.files:
        if not PLAIN_NAME.fullmatch(name) or name == MANIFEST:
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
