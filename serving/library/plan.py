"""`Library`, `VideoPlan`: what is to be done to a folder of videos, in JSON files that every machine of a cluster reads.

Below the output folder lies .videodeblur:

    plan.json                      the library: settings, model, videos
    FOLDER/plan.json               a video: its segments
    FOLDER/000042.nut, .json       a finished segment, and its record, which is written last: what has a record is done
    FOLDER/joined.json             the record of the finished output; the segments are deleted then

Every file appears whole or not at all, under a name that does not change, so that all work may be done twice, by anyone, at any
time. Times, sizes and hashes say when something is not what was planned.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError
from runtime.files.records import parse_object, read_record
from runtime.run.options import DeblurOptions

WORK = ".videodeblur"  # below the output folder
PLAN = "plan.json"
JOINED = "joined.json"
KIND = "videodeblur.library"
SCHEMA = 1  # raised when a field changes its meaning
NAME_LENGTH = 40  # characters of a video's name in that of its folder
KEY_LENGTH = 10  # characters of a SHA-256 there

Record = TypeVar("Record")


@dataclass(frozen=True)
class Settings:
    """All that decides what comes out."""

    model_sha256: str  # of the file, or of a bundle's manifest, which has those of its files
    arithmetic: str  # what computes, on every machine, such as "openvino fp32"
    backend: str  # what an engine is opened with to have it, see Engine
    precision: str
    stride: int | None  # see DeblurOptions, for all of these
    tile: int | None
    scene_threshold: float
    segment: int  # frames, about
    codec: str  # see EncoderOptions
    crf: float | None
    encoder: dict[str, str]
    leave_out: tuple[str, ...]
    drop_unsupported: bool
    strength: float = 1.0

    @property
    def fingerprint(self) -> str:
        """Another for other settings, where segments depend on them."""
        settings = asdict(self.of_segments)
        if self.strength == 1:
            del settings["strength"]  # as plans of earlier versions, which have none
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @property
    def of_segments(self) -> Settings:
        """The same for all that only concerns the join."""
        encoder = {name: value for name, value in self.encoder.items() if name != "tag"}
        return replace(self, leave_out=(), drop_unsupported=False, encoder=encoder)


@dataclass(frozen=True)
class Entry:
    """A video of the library."""

    file: str  # its path in the library
    output: str  # its path in the output folder
    folder: str  # its folder in WORK
    frames: int = 0  # 0 until it is planned
    segments: int = 0
    refused: str = ""  # why it cannot be planned


@dataclass(frozen=True)
class Library:
    """The content of plan.json."""

    source: str  # absolute path of the folder with the videos, the same on every machine
    output: str  # the same of the folder with the results
    model: str  # the same of the model
    memory: float | None  # see DeblurOptions
    settings: Settings
    fingerprint: str  # of the settings
    videos: tuple[Entry, ...]  # by path
    kind: str = KIND
    schema: int = SCHEMA

    @property
    def work(self) -> Path:
        """The folder of all that is not a result."""
        return Path(self.output) / WORK

    def entry(self, file: str) -> Entry:
        """The video of this path. Raises InputError when the plan has none."""
        for entry in self.videos:
            if entry.file == file:
                return entry
        raise InputError(f"{self.work / PLAN} has no video {file!r}: plan the library again")

    @property
    def segments(self) -> list[tuple[Entry, int]]:
        """Every segment of every video that is planned, by its index."""
        return [(entry, number) for entry in self.videos for number in range(entry.segments)]

    def folder(self, entry: Entry) -> Path:
        """Where the segments of a video are."""
        return self.work / entry.folder

    def options(self, entry: Entry) -> DeblurOptions:
        """What `videodeblur run` would be told for the same result."""
        settings = self.settings
        return DeblurOptions(
            source=Path(self.source) / entry.file,
            output=Path(self.output) / entry.output,
            model=Path(self.model),
            backend=settings.backend,
            precision=settings.precision,
            stride=settings.stride,
            tile=settings.tile,
            memory=self.memory,
            scene_threshold=settings.scene_threshold,
            strength=settings.strength,
            resume=True,
            resume_every=settings.segment,
            encoder=EncoderOptions(
                settings.codec, settings.crf, settings.encoder, None, settings.leave_out, settings.drop_unsupported
            ),
            overwrite=True,
        )


@dataclass(frozen=True)
class SegmentPlan:
    """A segment of a video: frames that depend on no others, but for those `before`."""

    first: int  # frame number
    frames: int
    before: int  # frames before the first that a window at the end may mirror into
    pts: int | None  # when the first of all these is shown, in the source's time base; None where the source has no times
    key: int | None  # when the keyframe is shown that decoding it begins with
    scenes: tuple[int, ...]  # numbers of the frames that start a scene
    last_duration: int  # of the last frame, in the source's time base
    digest: str  # of all these frames as they were decoded, see `FrameDigest`


@dataclass(frozen=True)
class VideoPlan:
    """The content of a video's plan.json."""

    file: str  # as in its Entry
    fingerprint: str  # of the settings
    source: dict[str, Any]  # see segments.describe_source
    frames: int
    tile_height: int  # pixels, halos included
    tile_width: int
    segments: tuple[SegmentPlan, ...]
    notes: tuple[str, ...]  # what is worth telling about the source


@dataclass(frozen=True)
class SegmentRecord:
    """A finished segment."""

    frames: int
    bytes: int  # of the file
    arithmetic: str
    node: str  # the machine's name
    seconds: float
    sought: bool  # whether decoding began at a keyframe; False = at the start
    sha256: str = ""  # of the file; none in records of earlier versions


@dataclass(frozen=True)
class JoinRecord:
    """A finished output."""

    frames: int
    bytes: int  # of the file
    notes: tuple[str, ...] = field(default=())  # what could not be copied


def load_library(output: Path) -> Library:
    """The plan of the library whose results go to `output`.

    Raises InputError when there is none, or it is damaged, of another version, or not made for this folder.
    """
    path = output / WORK / PLAN
    library = load(Library, path, "plan the library with `videodeblur plan-library`")
    if (library.kind, library.schema) != (KIND, SCHEMA):
        raise InputError(
            f"{path} is {library.kind!r} of schema {library.schema}, this version reads {SCHEMA}: update, or plan again"
        )
    if library.fingerprint != library.settings.fingerprint:
        raise InputError(f"{path} was changed by hand: its fingerprint does not fit its settings: plan again")
    for name in (name for entry in library.videos for name in (entry.file, entry.output, entry.folder)):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path} names {name!r}, expected what is below its folders: plan again")
    if not Path(library.output).is_dir() or not output.samefile(library.output):
        raise InputError(
            f"{path} was made for {library.output}, not for {output.absolute()}: mount the folder under one path everywhere"
        )
    return library


def load(kind: type[Record], path: Path, remedy: str) -> Record:
    """A record from its file. Raises InputError when it is missing or damaged."""
    try:
        return read_record(kind, parse_object(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: {remedy}") from error
    except ValueError as error:
        raise InputError(f"{path} is not readable ({error}): {remedy}") from error


def load_if_there(kind: type[Record], path: Path) -> Record | None:
    """A record from its file; None when it is missing. Raises InputError when it is damaged."""
    return load(kind, path, "delete it") if path.exists() else None


def save(record: Any, path: Path) -> None:
    """Writes a record; it appears whole, or not at all, and stays when the machine fails."""
    partial = part_name(path)
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def part_name(path: Path) -> Path:
    """A name for an unfinished file that no other process has, on any machine."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(6)}.part{path.suffix}")


def folder_name(file: str) -> str:
    """The folder of a video in WORK: the same whenever it is planned, another for each path."""
    key = hashlib.sha256(os.fsencode(file)).hexdigest()[:KEY_LENGTH]
    return f"{Path(file).stem[:NAME_LENGTH]}-{key}"
