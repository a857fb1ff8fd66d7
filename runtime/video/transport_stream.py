"""`TransportStream`: what PyAV does not tell of a file with one: its lists of programs and streams, and what is said there of them
(ISO/IEC 13818-1, 2.4.4; ETSI EN 300 468, 5.2.3 and 6.2.33)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from runtime.video.pipe_end import SYNC, first_packet

LOOKED_THROUGH = 1 << 22  # bytes; the table comes again every two seconds or sooner
LOOKED_FURTHER = 1 << 26  # bytes, for tables that come every 30 seconds
OTHER_TABLES = {0x01: "CAT", 0x02: "TSDT", 0x10: "NIT", 0x13: "RST", 0x14: "TDT", 0x1FFB: "PSIP"}  # by number; 0x12 is a stream
KEYS, CLOCK_AT = 0x01, 8  # number of the packets with the list of keys; place of the clock's number in the table of a program
STREAMS, STREAMS_HEAD = b"\2", 12  # number of the table of a program's streams; bytes of it before what it lists
LISTED = 5  # bytes of a stream in it, before its descriptors
NO_PACKET = -1  # instead of a number, where none begins
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


@dataclass(frozen=True)
class _Packets:
    """Of a transport stream's start."""

    data: bytes
    first: int  # place
    length: int  # bytes of each; 0 where it is no transport stream
    numbers: Any  # of each (PID), an array

    def of(self, number: int) -> Iterator[bytes]:
        """188 bytes of each that has this number."""
        for place in np.flatnonzero(self.numbers == number).tolist():
            at = self.first + place * self.length
            yield self.data[at : at + 188]


class TransportStream:
    """Of the start of a file, which is read once; a file of another kind has nothing of it all."""

    def __init__(self, path: Path) -> None:
        self._path, self._packets = path, _start_of(path)
        self._maps = _maps(self._packets)  # the list of a program's streams: number of its packets, by that of the program
        self._lists = {program: number for program, number in self._maps.items() if program}

    @property
    def packet_size(self) -> int:
        """Bytes of a packet, 192 where a time stands in front of each; 0 where it is no transport stream."""
        return self._packets.length

    @cached_property
    def services(self) -> dict[int, tuple[str, str]]:
        """(provider, name) by the number of the program; none where FFmpeg made them up."""
        section = next((table for table in _tables(self._packets, TABLES) if dict(_entries(table))), b"")
        return {number: names for number, names in _entries(section) if names != OF_FFMPEG and any(names)}

    @cached_property
    def programs(self) -> dict[int, set[int]]:
        """The numbers (PID) of its streams by that of the program."""
        found = {
            number: {stream for stream, _ in _streams(next(_tables(self._packets, number), b""))} for number in self._lists.values()
        }
        return {program: found[number] for program, number in self._lists.items()}

    def program_with(self, stream: int) -> Program | None:
        """The first program with a stream of this number (PID); none where there is none."""
        number = next((number for number, streams in self.programs.items() if stream in streams), None)
        if number is None:
            return None
        listed = next(_tables(self._packets, PROGRAMS), b"")
        return Program(number, self._maps[number], int.from_bytes(listed[3:5], "big"), self.services.get(number))

    @cached_property
    def descriptors(self) -> dict[int, dict[int, bytes]]:
        """What the lists say of each stream (PID): content by number, of several of one number one after another."""
        found: dict[int, dict[int, bytes]] = {}
        for section in self._sections:
            for stream, said in _streams(section):
                found.setdefault(stream, _by_number(said))
        return found

    @cached_property
    def program_descriptors(self) -> dict[int, bytes]:
        """The same of what the lists say in front of their streams."""
        heads = (section[STREAMS_HEAD : STREAMS_HEAD + _twelve(section, 10)] for section in self._sections)
        return _by_number(b"".join(heads))

    @cached_property
    def unlisted(self) -> set[int]:
        """Numbers (PID) of packets that no list names; none beside a list of keys (CAT), which names more."""
        named = {stream for section in self._sections for stream, _ in _streams(section)}
        clocks = {_thirteen(section, CLOCK_AT) for section in self._sections}
        there = set(np.unique(self._packets.numbers).tolist()) & set(NUMBERS)
        if not self._maps or (self._packets.numbers == KEYS).any():
            return set()
        return there - {*self._maps.values()} - named - clocks

    @cached_property
    def other_tables(self) -> frozenset[str]:
        """Names of the tables of a broadcast that say nothing of one program, and that FFmpeg does not read."""
        numbers = _start_of(self._path, LOOKED_FURTHER).numbers
        return frozenset(name for number, name in OTHER_TABLES.items() if (numbers == number).any())

    @cached_property
    def _sections(self) -> list[bytes]:
        """The lists of all programs, each once, however often it comes."""
        lists = sorted({*self._lists.values()})
        found = (section for number in lists for section in dict.fromkeys(_tables(self._packets, number)))
        return [section for section in found if section[:1] == STREAMS and len(section) >= STREAMS_HEAD]


def _maps(packets: _Packets) -> dict[int, int]:
    """The number of the packets with the list of a program's streams, by that of the program."""
    listed = next(_tables(packets, PROGRAMS), b"")
    places = [listed[at : at + 4] for at in range(PROGRAM_HEAD, min(_end_of(listed), len(listed)), 4)]
    return {int.from_bytes(place[:2], "big"): _thirteen(place, 2) for place in places if len(place) == 4}


def _start_of(path: Path, size: int = LOOKED_THROUGH) -> _Packets:
    """The packets in so many bytes at the start of a file; none where it is no transport stream."""
    data = b""
    if path.is_file():
        with path.open("rb") as file:
            data = file.read(size)
    first, length = first_packet(data, len(data)) or (0, 0)
    if not length:
        return _Packets(b"", 0, 0, np.empty(0, int))
    whole = len(range(first, len(data) - 187, length))
    sync, high, low = (np.frombuffer(data, np.uint8)[first + byte :: length][:whole] for byte in range(3))
    return _Packets(data, first, length, np.where(sync == SYNC, (high & 0x1F).astype(int) << 8 | low, NO_PACKET))


def _streams(section: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, descriptors) of each in the list of a program."""
    if len(section) < STREAMS_HEAD:
        return
    at = STREAMS_HEAD + _twelve(section, 10)
    while at + LISTED <= min(_end_of(section), len(section)):
        end = at + LISTED + _twelve(section, at + 3)
        yield _thirteen(section, at + 1), section[at + LISTED : min(end, _end_of(section))]
        at = end


def _by_number(descriptors: bytes) -> dict[int, bytes]:
    found: defaultdict[int, bytes] = defaultdict(bytes)
    at = 0
    while at + 2 <= len(descriptors):
        end = at + 2 + descriptors[at + 1]
        found[descriptors[at]] += descriptors[at + 2 : end]
        at = end
    return dict(found)


def _tables(packets: _Packets, number: int) -> Iterator[bytes]:
    """The tables in the packets of this number; the last may not be whole."""
    section = b""
    for start, payload in _payloads(packets, number):
        if start:
            if section:
                yield section
            section = payload[1 + payload[0] :] if payload else b""
        elif section and len(section) < LONGEST:
            section += payload
    if section:
        yield section


def _payloads(packets: _Packets, number: int) -> Iterator[tuple[bool, bytes]]:
    """(whether a table begins in it, content) of the packets of this number."""
    for packet in packets.of(number):
        if packet[3] & 0x10:
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
