"""`services_of`: what a transport stream calls its programs (ETSI EN 300 468, 5.2.3 and 6.2.33), which PyAV does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime.video.pipe_end import SYNC, first_packet

LOOKED_THROUGH = 1 << 22  # bytes; the table comes again every two seconds or sooner
TABLES, DESCRIPTIONS, SERVICE = 0x11, 0x42, 0x48  # numbers of the packets, of the table and of its descriptor
LONGEST = 1 << 12  # bytes of a table
HEAD, ENTRY = 11, 5  # bytes of the table before its first entry, and of an entry before its descriptors
OF_FFMPEG = ("FFmpeg", "Service01")  # provider and name that its muxer makes up


def services_of(path: Path) -> dict[int, tuple[str, str]]:
    """(provider, name) by the number of the program; none where FFmpeg made them up, or it is no transport stream."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        data = file.read(LOOKED_THROUGH)
    section = b""
    for start, payload in _payloads(data):
        if start:
            found = dict(_entries(section))
            if found:
                break
            section = payload[1 + payload[0] :] if payload else b""
        elif section and len(section) < LONGEST:
            section += payload
    return {number: names for number, names in _entries(section) if names != OF_FFMPEG and any(names)}


def _payloads(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """(whether a table begins in it, content) of the packets with this table."""
    found = first_packet(data, len(data))
    if found is None:
        return
    at, length = found
    for place in range(at, len(data) - 187, length):
        packet = data[place : place + 188]
        if packet[0] != SYNC or ((packet[1] & 0x1F) << 8 | packet[2]) != TABLES or not packet[3] & 0x10:
            continue
        yield bool(packet[1] & 0x40), packet[5 + packet[4] if packet[3] & 0x20 else 4 :]


def _entries(section: bytes) -> Iterator[tuple[int, tuple[str, str]]]:
    if len(section) < HEAD or section[0] != DESCRIPTIONS:
        return
    end, at = 3 + _twelve(section, 1) - 4, HEAD
    while at + ENTRY <= min(end, len(section)):
        number, descriptors = int.from_bytes(section[at : at + 2], "big"), at + ENTRY
        at = descriptors + _twelve(section, at + 3)
        while descriptors + 2 <= min(at, len(section)):
            content = section[descriptors + 2 : descriptors + 2 + section[descriptors + 1]]
            if section[descriptors] == SERVICE and len(content) > 2:
                name = 2 + content[1]
                yield number, (_text(content[2:name]), _text(content[name + 1 :]))
            descriptors += 2 + section[descriptors + 1]


def _twelve(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big") & 0xFFF


def _text(data: bytes) -> str:
    """Its first byte may tell the alphabet."""
    if data[:1] == b"\x15":
        return data[1:].decode("utf-8", "replace")
    return data.lstrip(bytes(range(0x20))).decode("latin-1")
