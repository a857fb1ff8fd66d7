"""`count_packets`: makes an AVI count the packets of sound whose packets differ in size (MP3, AAC, AC-3), not their bytes.

Its header says how long so many bytes are heard; where they are 0, how long a packet is (AVISTREAMHEADER, dwSampleSize). FFmpeg
takes the number of bytes from what it read of another AVI, and PyAV has no way to leave it out; other players lose the sound then.
The super index (OpenDML AVI 1.02, 3.0) counts in the same unit.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from runtime.video.riff import HEAD, Chunk, chunks_in
from runtime.video.sound_holes import Holes

PACE, LENGTH, SAMPLE_SIZE = 20, 32, 44  # places in a stream's header: of ticks per sample and per second; of samples; of its bytes
USED, ENTRIES, ENTRY, DURATION = 4, 24, 16, 12  # places in a super index: of the number of entries, and of the first; in an entry
COUNT = HEAD + 4  # place in an index of the number of packets


def count_packets(path: Path, sounds: Mapping[int, Holes]) -> None:
    """In a finished file; `sounds` by their place among its streams."""
    with path.open("r+b") as file:
        riff = next(chunks_in(file, 0, HEAD), None)
        header = next((each for each in chunks_in(file, *riff[2:]) if each.kind == b"hdrl"), None) if riff else None
        streams = [each for each in chunks_in(file, *header[2:]) if each.kind == b"strl"] if header else []
        for place, holes in sounds.items():
            parts = {each.name: each for each in chunks_in(file, *streams[place][2:])} if place < len(streams) else {}
            if (head := parts.get(b"strh")) and _is_wrong(_read(file, head), holes):
                _write(file, head.start + LENGTH, holes.packets)
                _write(file, head.start + SAMPLE_SIZE, 0)
                if index := parts.get(b"indx"):
                    _count_in(file, index)


def _is_wrong(header: bytes, holes: Holes) -> bool:
    """Whether packets fit the times of what was copied better than bytes do."""
    scale, rate, size = (int(struct.unpack_from("<I", header, place)[0]) for place in (PACE, PACE + 4, SAMPLE_SIZE))
    if not (size and rate):
        return False
    lasts, sample = holes.last.time - holes.first.time, Fraction(scale, rate)
    return abs(holes.last.number * sample - lasts) < abs(Fraction(holes.last.bytes, size) * sample - lasts)


def _count_in(file: BinaryIO, index: Chunk) -> None:
    """In a super index: of each index how many packets are in it."""
    content = _read(file, index)
    (used,) = struct.unpack_from("<I", content, USED)
    for at in range(ENTRIES, min(ENTRIES + used * ENTRY, len(content) - ENTRY + 1), ENTRY):
        (place,) = struct.unpack_from("<Q", content, at)
        file.seek(place + COUNT)
        packets = file.read(4)
        file.seek(index.start + at + DURATION)
        file.write(packets)


def _read(file: BinaryIO, chunk: Chunk) -> bytes:
    file.seek(chunk.start)
    return file.read(chunk.end - chunk.start)


def _write(file: BinaryIO, at: int, value: int) -> None:
    file.seek(at)
    file.write(struct.pack("<I", value))
