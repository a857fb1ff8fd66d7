"""`boxes_in`: the boxes of an MP4 or QuickTime file, found without reading what is in them (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

HEADER, LARGE_HEADER = 8, 16  # bytes; a size of 1 means that 64 bits of it follow


class Box(NamedTuple):
    """Places in the file are of its content."""

    kind: bytes
    start: int
    end: int


def boxes_in(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Those between two places of a file, up to one that ends behind them."""
    while start + HEADER <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(HEADER))
        header = HEADER
        if size == 1:
            size, header = int.from_bytes(file.read(LARGE_HEADER - HEADER), "big"), LARGE_HEADER
        size = size or end - start  # 0: to the end
        if size < header or start + size > end:
            return
        yield Box(kind, start + header, start + size)
        start += size


def tracks_in(file: BinaryIO) -> Iterator[Box]:
    """Those of a whole file (trak)."""
    for movie in boxes_in(file, 0, file.seek(0, io.SEEK_END)):
        if movie.kind == b"moov":
            yield from (box for box in boxes_in(file, *movie[1:]) if box.kind == b"trak")


def inside(file: BinaryIO, box: Box, names: tuple[bytes, ...]) -> Box:
    """The box within it that is found by these names, one in another; without content where it is not there."""
    for name in names:
        box = next((each for each in boxes_in(file, *box[1:]) if each.kind == name), Box(name, 0, 0))
    return box


def content_of(file: BinaryIO, box: Box, most: int) -> bytes:
    """The first bytes of it, `most` or fewer."""
    file.seek(box.start)
    return file.read(min(box.end - box.start, most))
