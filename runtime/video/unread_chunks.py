"""`unread_chunks_of`: what an AVI says in chunks that FFmpeg does not copy, as cameras and editing programs put there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtime.video.riff import HEAD, Chunk, chunks_in

AT_THE_TOP = {b"hdrl", b"movi", b"idx1", b"INFO", b"JUNK"}  # lists by their kind
OF_THE_HEADER = {b"avih", b"strl", b"odml", b"IDIT", b"JUNK"}
OF_A_STREAM = {b"strh", b"strf", b"strn", b"indx", b"vprp", b"JUNK"}
MOST_CHUNKS, MOST = 10_000, 1 << 20  # that are looked at; bytes of one that is compared


def unread_chunks_of(path: Path) -> dict[str, frozenset[bytes]]:
    """What the chunks of each name have in them, as hashes."""
    found: dict[str, set[bytes]] = {}
    with path.open("rb") as file:
        riff = next(chunks_in(file, 0, HEAD), None)
        for chunk in _unread(file, riff) if riff and riff.kind == b"AVI " else ():
            file.seek(chunk.start)
            content = file.read(max(0, min(chunk.end - chunk.start, MOST)))
            found.setdefault(_name_of(chunk).decode("latin-1").strip(), set()).add(hashlib.sha256(content).digest())
    return {name: frozenset(contents) for name, contents in found.items()}


def _unread(file: BinaryIO, riff: Chunk) -> Iterator[Chunk]:
    for chunk in _first(file, riff):
        if chunk.kind == b"hdrl":
            for each in _first(file, chunk):
                if each.kind == b"strl":
                    yield from (one for one in _first(file, each) if _name_of(one) not in OF_A_STREAM)
                elif _name_of(each) not in OF_THE_HEADER:
                    yield each
        elif _name_of(chunk) not in AT_THE_TOP:
            yield chunk
        elif chunk.kind == b"movi" and chunk.end <= chunk.start:  # a live writer's, without a length
            return


def _first(file: BinaryIO, chunk: Chunk) -> Iterator[Chunk]:
    return (each for each, _ in zip(chunks_in(file, chunk.start, chunk.end), range(MOST_CHUNKS)))


def _name_of(chunk: Chunk) -> bytes:
    return chunk.kind or chunk.name
