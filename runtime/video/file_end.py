"""`missing_end`: whether a file's own structure says that it was longer once, where what is left decodes without an error.

Matroska, MP4 and MXF say how long they are, and y4m has pictures of one size. AVI says so too, but writers often say it wrong; GIF,
NUT, FLV and Ogg have a last mark, which some writers leave out: of these a note is all that can be known. Transport and program
streams have neither.

`is_chained`: whether other streams follow behind the end of those that an Ogg file begins with.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from runtime.video.pipe_end import CLUSTER, EBML, LONGEST_HEAD, NUT_INDEX, SEGMENT, WatchedPipe, head_of

WITHOUT_INDEX = "the NUT stream has no index at its end: it was cut off, or its writer makes none"
BOXES = {b"moov", b"moof", b"mdat"}  # of MP4, whose sizes count; what else is there may be junk
MXF_KEY, MXF_FOOTER = bytes.fromhex("060e2b34"), 44  # the place of the footer's place in the first pack (SMPTE 377-1, 7.1)
OGG = "ogg"
OGG_PAGE, OGG_HEAD, OGG_FLAGS = b"OggS", 27, 5  # bytes of a page's head, in front of the sizes of what is in it; place of its flags
OGG_BEGINS, OGG_ENDS, OGG_LONGEST = 2, 4, 27 + 255 + 255 * 255  # flags of the first page of a stream and the last; bytes
GIF_END = b";"
FLV_TAG, FLV_KINDS = 11, {8, 9, 18}  # bytes before a tag's content; sound, picture, script
Y4M_FRAME = b"FRAME"


class MissingEndError(Exception):
    """It is certain that the end is missing."""


def missing_end(path: Path, formats: set[str], picture: int, pipe: WatchedPipe | None = None) -> str:
    """A note where the end may be missing, of a whole file, or `pipe`, of one of these formats; nothing where all is well.

    `picture` is the size in bytes of a raw one. Raises MissingEndError, with the reason, where the end is missing for certain.
    """
    judges: dict[str, Callable[[BinaryIO, int], str]] = {
        "matroska": _matroska,
        "mov": _mp4,
        "mxf": _mxf,
        "yuv4mpegpipe": lambda file, size: _y4m(file, size, picture),
        "avi": _avi,
        "gif": _gif,
        "nut": _nut,
        "flv": _flv,
        OGG: _ogg,
    }
    if pipe and OGG in formats:
        return _ogg(io.BytesIO(pipe.last), len(pipe.last))
    found = [judge for name, judge in judges.items() if name in formats]
    if not found or not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return found[0](file, size)


def is_chained(path: Path) -> bool:
    """Whether an Ogg file goes on with other streams behind the end of its first ones (RFC 3533, 4)."""
    with path.open("rb") as file:
        at, begun = 0, False
        while (head := file.read(OGG_HEAD)).startswith(OGG_PAGE) and len(head) == OGG_HEAD:
            begins = bool(head[OGG_FLAGS] & OGG_BEGINS)
            if begins and begun:
                return True
            begun |= not begins
            at += OGG_HEAD + head[-1] + sum(file.read(head[-1]))
            file.seek(at)
    return False


def _matroska(file: BinaryIO, size: int) -> str:
    """From element to element; into those that a live writer left without a size."""
    at = 0
    while at < size:
        file.seek(at)
        head = head_of(file.read(LONGEST_HEAD))
        if head is None:
            raise MissingEndError("it ends within an element")
        kind, length, content = head
        if not kind or (not at and kind != EBML):  # no element
            return ""
        inside = kind in (SEGMENT, CLUSTER) and not content
        at += length + (0 if inside else content)
        if kind == SEGMENT and content:
            break
    if at > size:
        raise MissingEndError(f"{at - size} bytes are missing")
    return ""


def _mp4(file: BinaryIO, size: int) -> str:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # 0: to the end of the file
            break
        at += length
        if at > size and kind in BOXES:
            raise MissingEndError(f"{at - size} bytes are missing")
    return ""


def _mxf(file: BinaryIO, size: int) -> str:
    head = file.read(MXF_FOOTER + 8)
    footer = int.from_bytes(head[MXF_FOOTER:], "big")  # 0: its writer could not go back to say so
    if head.startswith(MXF_KEY) and len(head) == MXF_FOOTER + 8 and footer >= size:
        raise MissingEndError("its footer is missing")
    return ""


def _y4m(file: BinaryIO, size: int, picture: int) -> str:
    file.readline()
    start = file.tell()
    frame = len(file.readline()) + picture
    if (size - start) % frame and file.read(picture + len(Y4M_FRAME))[picture:] in (b"", Y4M_FRAME):
        raise MissingEndError("it ends within a picture")
    return ""


def _avi(file: BinaryIO, size: int) -> str:
    head = file.read(8)
    missing = 8 + int.from_bytes(head[4:], "little") - size
    return f"the AVI is {missing} bytes shorter than it says: it was cut off, or its writer counted wrong" if missing > 0 else ""


def _gif(file: BinaryIO, size: int) -> str:
    file.seek(-1, os.SEEK_END)
    return "" if file.read(1) == GIF_END else "the GIF has no mark at its end: it was cut off, or its writer makes none"


def _nut(file: BinaryIO, size: int) -> str:
    """The index says in front of its checksum how long it is."""
    file.seek(max(0, size - 12))
    length = int.from_bytes(file.read(8), "big")
    if length > size:
        return WITHOUT_INDEX
    file.seek(size - length)
    return "" if file.read(len(NUT_INDEX)) == NUT_INDEX else WITHOUT_INDEX


def _flv(file: BinaryIO, size: int) -> str:
    """Behind each tag stands its size."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    file.seek(max(0, size - 4 - length))
    tag = file.read(4)
    whole = length > FLV_TAG and tag[0] in FLV_KINDS and int.from_bytes(tag[1:], "big") == length - FLV_TAG
    return "" if whole else "the FLV does not end with a whole tag: it was cut off, or something was put behind it"


def _ogg(file: BinaryIO, size: int) -> str:
    """By the last page of the file."""
    file.seek(max(0, size - 2 * OGG_LONGEST))
    data = file.read()
    page = data[data.rfind(OGG_PAGE) :]
    count = page[OGG_HEAD - 1] if len(page) >= OGG_HEAD else 255
    if len(page) < OGG_HEAD + count + sum(page[OGG_HEAD : OGG_HEAD + count]):
        raise MissingEndError("it ends within a page")
    return "" if page[OGG_FLAGS] & OGG_ENDS else "the Ogg stream has no mark at its end: it was cut off, or its writer makes none"
