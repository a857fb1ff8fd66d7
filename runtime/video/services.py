"""What PyAV does not tell of a transport stream: `services_of`, what it calls its programs (ETSI EN 300 468, 5.2.3 and 6.2.33);
`programs_of`, which streams belong to which of them (ISO/IEC 13818-1, 2.4.4); `program_with`, both of the one with a stream;
`packet_size_of`, whether a time stands in front of each packet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.video.pipe_end import SYNC, first_packet

LOOKED_THROUGH = 1 << 22  # bytes; the table comes again every two seconds or sooner
TABLES, DESCRIPTIONS, SERVICE = 0x11, 0x42, 0x48  # numbers of the packets, of the table and of its descriptor
PROGRAMS, PROGRAM_HEAD = 0x00, 8  # number of the packets that list the programs; bytes of a table before what it lists
TIMED_PACKET = 192  # bytes of a packet with its time in front, as camcorders and Blu-rays have it
CHECKSUM = 4  # bytes at the end of a table
LONGEST = 1 << 12  # bytes of a table
HEAD, ENTRY = 11, 5  # bytes of the table before its first entry, and of an entry before its descriptors
NUMBERS = range(0x20, 0x1FFB)  # of packets (PID) that are free for tables and streams
OF_FFMPEG = ("FFmpeg", "Service01")  # provider and name that its muxer makes up


@dataclass(frozen=True)
class Program:
    """Of a transport stream."""

    number: int
    table: int  # number of the packets (PID) with the list of its streams
    stream: int  # number of the transport stream that it is in
    names: tuple[str, str] | None  # its provider's and its own

    @property
    def options(self) -> dict[str, str]:
        """Of FFmpeg's muxer, for the same numbers."""
        whole = {"mpegts_transport_stream_id": str(self.stream)} if self.stream else {}  # which FFmpeg counts from 1
        return {"mpegts_service_id": str(self.number), "mpegts_pmt_start_pid": str(self.table), **whole}

    @property
    def metadata(self) -> dict[str, str]:
        """Of FFmpeg's muxer, for the same names."""
        return dict(zip(("service_provider", "service_name"), self.names)) if self.names else {}


def program_with(path: Path, stream: int) -> Program | None:
    """The first program with a stream of this number (PID); none where there is none."""
    number = next((number for number, streams in programs_of(path).items() if stream in streams), None)
    if number is None:
        return None
    data = _start_of(path)
    listed = next(_tables(data, PROGRAMS), b"")
    return Program(number, _maps(data)[number], int.from_bytes(listed[3:5], "big"), services_of(path).get(number))


def services_of(path: Path) -> dict[int, tuple[str, str]]:
    """(provider, name) by the number of the program; none where FFmpeg made them up, or it is no transport stream."""
    data = _start_of(path)
    section = next((table for table in _tables(data, TABLES) if dict(_entries(table))), b"")
    return {number: names for number, names in _entries(section) if names != OF_FFMPEG and any(names)}


def programs_of(path: Path) -> dict[int, set[int]]:
    """The numbers (PID) of its streams by that of the program; none where it is no transport stream."""
    data = _start_of(path)
    return {number: set(_streams(next(_tables(data, packets), b""))) for number, packets in _maps(data).items() if number}


def packet_size_of(path: Path) -> int:
    """Bytes of a packet; 0 where it is no transport stream."""
    data = _start_of(path)
    _, length = first_packet(data, len(data)) or (0, 0)
    return length


def _maps(data: bytes) -> dict[int, int]:
    """The number of the packets with the list of a program's streams, by that of the program."""
    listed = next(_tables(data, PROGRAMS), b"")
    places = [listed[at : at + 4] for at in range(PROGRAM_HEAD, min(_end_of(listed), len(listed)), 4)]
    return {int.from_bytes(place[:2], "big"): _thirteen(place, 2) for place in places if len(place) == 4}


def _start_of(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(LOOKED_THROUGH)


def _streams(section: bytes) -> Iterator[int]:
    if len(section) < 12:
        return
    at = 12 + _twelve(section, 10)
    while at + 5 <= min(_end_of(section), len(section)):
        yield _thirteen(section, at + 1)
        at += 5 + _twelve(section, at + 3)


def _tables(data: bytes, number: int) -> Iterator[bytes]:
    """The tables in the packets of this number; the last may not be whole."""
    section = b""
    for start, payload in _payloads(data, number):
        if start:
            if section:
                yield section
            section = payload[1 + payload[0] :] if payload else b""
        elif section and len(section) < LONGEST:
            section += payload
    if section:
        yield section


def _payloads(data: bytes, number: int) -> Iterator[tuple[bool, bytes]]:
    """(whether a table begins in it, content) of the packets of this number."""
    found = first_packet(data, len(data))
    if found is None:
        return
    at, length = found
    for place in range(at, len(data) - 187, length):
        packet = data[place : place + 188]
        if packet[0] != SYNC or _thirteen(packet, 1) != number or not packet[3] & 0x10:
            continue
        yield bool(packet[1] & 0x40), packet[5 + packet[4] if packet[3] & 0x20 else 4 :]


def _entries(section: bytes) -> Iterator[tuple[int, tuple[str, str]]]:
    if len(section) < HEAD or section[0] != DESCRIPTIONS:
        return
    at = HEAD
    while at + ENTRY <= min(_end_of(section), len(section)):
        number, descriptors = int.from_bytes(section[at : at + 2], "big"), at + ENTRY
        at = descriptors + _twelve(section, at + 3)
        while descriptors + 2 <= min(at, len(section)):
            content = section[descriptors + 2 : descriptors + 2 + section[descriptors + 1]]
            if section[descriptors] == SERVICE and len(content) > 2:
                name = 2 + content[1]
                yield number, (_text(content[2:name]), _text(content[name + 1 :]))
            descriptors += 2 + section[descriptors + 1]


def _end_of(section: bytes) -> int:
    """The place of its checksum."""
    return 3 + _twelve(section, 1) - CHECKSUM


def _thirteen(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big") & 0x1FFF


def _twelve(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big") & 0xFFF


def _text(data: bytes) -> str:
    """Its first byte may tell the alphabet."""
    if data[:1] == b"\x15":
        return data[1:].decode("utf-8", "replace")
    return data.lstrip(bytes(range(0x20))).decode("latin-1")
