"""`chunks_in`: the chunks of an AVI, found without reading what is in them (Multimedia Programming Interface 1.0, chapter 2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

HEAD, KIND = 8, 4  # bytes: name and size; of a list, what it is a list of
LISTS = {b"RIFF", b"LIST"}


class Chunk(NamedTuple):
    """Places in the file are of its content, of a list behind its kind; the end of one that is cut off is where it says."""

    name: bytes
    kind: bytes  # of a list, else empty
    start: int
    end: int


def chunks_in(file: BinaryIO, start: int, end: int) -> Iterator[Chunk]:
    """Those between two places of a file, one after another."""
    while start + HEAD <= end:
        file.seek(start)
        head = file.read(HEAD + KIND)
        if len(head) < HEAD:
            return
        name, size = struct.unpack_from("<4sI", head)
        kind = head[HEAD:] if name in LISTS else b""
        yield Chunk(name, kind, start + HEAD + len(kind), start + HEAD + size)
        start += HEAD + size + size % 2
