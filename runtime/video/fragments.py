"""`samples_in_fragments`: how many coded frames a fragmented MP4 has, which its header does not say (ISO/IEC 14496-12, 8.8).

`picture_boxes_of`: what an MP4 says of its picture that FFmpeg does not hand on, as how players are to crop it (12.1.4).

`uuids_of`, `append_xmp`: boxes of other people's kinds, of which XMP is one (XMP Specification Part 3, 2.2).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from runtime.video.boxes import HEADER, boxes_in, content_of

GAMMA = "the gamma (gama)"
OF_A_PICTURE = {  # by the box's size and name, and what else tells one that matters
    b"\0\0\0\x28clap": "the clean aperture (clap)",
    b"\0\0\0\x0cgama": GAMMA,
    b"\0\0\0\x0afiel\2": "the order of fields (fiel)",  # 1: progressive, as all is that is deblurred
}
GAMMA_UNIT = Fraction(1, 1 << 16)
UUID, UUID_BYTES, XMP = b"uuid", 16, bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
OF_THE_FILE = {bytes.fromhex("50524f4621d24fcebb88695cfac9c740")}  # Sony's list of codecs, not true after encoding
FLAGS = 4  # bytes: version and flags
MOST = 1 << 24  # bytes of a box that is looked into: a fragment's tables


def samples_in_fragments(path: Path, track: int) -> int:
    """Of the track with this number, in all fragments (moof); 0 where there are none, or the file ends within a box's header."""
    with path.open("rb") as file:
        return sum(_samples(box, track) for kind, box in _boxes_of(file) if kind == b"moof")


def picture_boxes_of(path: Path) -> dict[str, bytes]:
    """The content of each, by what users call it; of the first track that has one."""
    found: dict[str, bytes] = {}
    with path.open("rb") as file:
        for box in (box for kind, box in _boxes_of(file, b"moov") if kind == b"moov"):
            for head, name in OF_A_PICTURE.items():
                if (at := box.find(head)) >= 0:
                    found[name] = box[at + HEADER : at + int.from_bytes(head[:4], "big")]
    return found


def gamma_of(path: Path) -> Fraction | None:
    """QuickTime's, with which a picture was made that says nothing else of its transfer."""
    told = picture_boxes_of(path).get(GAMMA)
    return int.from_bytes(told, "big") * GAMMA_UNIT or None if told else None


def uuids_of(path: Path) -> set[str]:
    """Names of the boxes with a uuid at the top of an MP4, in hexadecimal, without XMP, which FFmpeg reads."""
    with path.open("rb") as file:
        found = {box[:UUID_BYTES] for kind, box in _boxes_of(file, UUID) if kind == UUID}
    return {name.hex() for name in found - OF_THE_FILE - {XMP}}


def append_xmp(path: Path, text: str) -> None:
    """Puts XMP behind all boxes of an MP4, where it moves none of them."""
    content = XMP + text.encode("utf-8", "surrogateescape")
    with path.open("ab") as file:
        file.write((HEADER + len(content)).to_bytes(4, "big") + UUID + content)


def _boxes_of(file: BinaryIO, looked_into: bytes = b"moof") -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes of a file, with the content of those that are looked into."""
    for box in boxes_in(file, 0, file.seek(0, io.SEEK_END)):
        wanted = box.kind == looked_into and box.end - box.start < MOST
        yield box.kind, content_of(file, box, MOST) if wanted else b""


def _samples(fragment: bytes, track: int) -> int:
    found = 0
    for kind, run in _boxes_in(fragment):
        boxes = list(_boxes_in(run)) if kind == b"traf" else []
        if any(name == b"tfhd" and _number(box) == track for name, box in boxes):
            found += sum(_number(box) for name, box in boxes if name == b"trun")
    return found


def _boxes_in(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + HEADER <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if size < HEADER:
            return
        yield kind, content[at + HEADER : at + size]
        at += size


def _number(box: bytes) -> int:
    """What follows version and flags: the track's number in tfhd, the count of samples in trun."""
    return int.from_bytes(box[FLAGS : 2 * FLAGS], "big")
