"""`track_headers_of`: which tracks of an MP4 are heard and shown, unless a viewer chooses others (tkhd, ISO/IEC 14496-12, 8.3.2).

FFmpeg hands on one bit of it, and makes the rest up. `set_track_headers` puts it where it was into a finished file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runtime.video.boxes import content_of, inside, tracks_in

HEADER = (b"tkhd",)
FLAGS, ENABLED = 3, 1  # the place of the last eight, and one of them
MOST = 92  # bytes of a header
NUMBER, CHOICE = ((12, 20), (32, 44))  # places of the track's number and of what follows its length, by version
CHOICE_FORMAT = ">hhH"  # layer, alternate group, volume
FULL_VOLUME = 0x100


@dataclass(frozen=True)
class TrackHeader:
    """Of a track."""

    enabled: bool
    layer: int  # lower ones are in front
    alternate_group: int  # of tracks one of which is for a viewer; 0 = of none
    volume: int  # of sound, in 1/256


def track_headers_of(path: Path) -> dict[int, TrackHeader]:
    """By the track's number, in their order in the file."""
    with path.open("rb") as file:
        return {number: header for _, number, header in _headers(file)}


def set_track_headers(path: Path, headers: Mapping[int, TrackHeader]) -> None:
    """Of tracks by their place in the file, the first of which is 0."""
    with path.open("r+b") as file:
        for place, (at, *_) in enumerate(list(_headers(file))):
            if wanted := headers.get(place):
                file.seek(at)
                version, *_, flags = file.read(FLAGS + 1)
                file.seek(at + FLAGS)
                file.write(bytes([flags | ENABLED if wanted.enabled else flags & ~ENABLED]))
                file.seek(at + CHOICE[version])
                file.write(struct.pack(CHOICE_FORMAT, wanted.layer, wanted.alternate_group, wanted.volume))


def _headers(file: BinaryIO) -> Iterator[tuple[int, int, TrackHeader]]:
    """(place of its content, number, header) of each track."""
    for box in (inside(file, track, HEADER) for track in tracks_in(file)):
        content = content_of(file, box, MOST)
        version = content[0] if content else len(CHOICE)
        if version < len(CHOICE) and len(content) >= CHOICE[version] + struct.calcsize(CHOICE_FORMAT):
            (number,) = struct.unpack_from(">I", content, NUMBER[version])
            choice = struct.unpack_from(CHOICE_FORMAT, content, CHOICE[version])
            yield box.start, number, TrackHeader(bool(content[FLAGS] & ENABLED), *choice)
