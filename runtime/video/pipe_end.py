"""`WatchedPipe`: standard input, and whether it ended as its format does, or was cut off.

A file tells by its index or its length; what comes through a pipe tells by its last bytes alone. NUT ends with an index;
Matroska is made of elements, each of which says its size; all pictures of y4m are of one size, and so are packets of a transport
stream; pages of Ogg say which is the last.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

Y4M, Y4M_FRAME, LONGEST_LINE = b"YUV4MPEG2", len(b"FRAME\n"), 1024  # bytes of a line that describes the stream
NUT, NUT_INDEX = b"nut/multimedia container", bytes.fromhex("4e58dd672f23e64e")
EBML, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
DESCENDED = {SEGMENT, CLUSTER}  # looked into, so that those of unknown size are no hindrance
LONGEST_HEAD = 12  # bytes of an element's number and size
LAST_OF_UNKNOWN = 0xFF  # byte of such a size, which `head_of` gives as 0
STANDARD_INPUT = 0
BOX, MP4_HEAD = 8, 4096  # bytes of an MP4's box before its content, and of a file's start, in which its order shows
SYNC, PACKETS = 0x47, {188: 0, 192: 4, 204: 0}  # of a transport stream: bytes of a packet, and those of it before the sync
LAST = 1 << 17  # bytes at the end; a page of Ogg has half of them at most
SYNCS, LOOKED_THROUGH = 5, 1 << 16  # in a row that are no accident; bytes for the first


class WatchedPipe:
    """A file to read from, for FFmpeg, of which the first bytes are kept (`head`), the `last` and the number of all (`bytes`)."""

    name = "-"

    def __init__(self, number: int = STANDARD_INPUT) -> None:
        self._number = number
        self._start, self._tail = b"", b""
        self.head = b""
        self.last = bytearray()
        self._indexed = False  # whether NUT's index was seen
        self._elements = _Elements()
        self._line, self.bytes = b"", 0  # of y4m, and of all that was read

    def read(self, size: int) -> bytes:
        """What there is, at most so many bytes; nothing at the end."""
        try:
            data = os.read(self._number, size)
        except BlockingIOError:  # a pipe that is empty, and that whoever made it does not let wait
            select.select([self._number], [], [])
            return self.read(size)
        if len(self._start) < len(NUT):
            self._start = (self._start + data)[: len(NUT)]
        if self._start == NUT:
            seen = self._tail + data
            self._indexed |= NUT_INDEX in seen
            self._tail = seen[1 - len(NUT_INDEX) :]
        elif self._start.startswith(EBML.to_bytes(4, "big")):
            self._elements.feed(data)
        elif self._start.startswith(Y4M) and self.bytes < LONGEST_LINE:
            self._line += data[:LONGEST_LINE]
        if len(self.head) < LOOKED_THROUGH:
            self.head = (self.head + data)[:LOOKED_THROUGH]
        self.last += data
        del self.last[: -LAST if len(self.last) > 2 * LAST else 0]
        self.bytes += len(data)
        return data

    @property
    def index_behind(self) -> bool:
        """Whether it is an MP4 whose pictures come before the index that tells where they are."""
        at, kinds, head = 0, [b""], self.head[:MP4_HEAD]
        while at + BOX <= len(head) and kinds[-1] not in (b"moov", b"mdat"):
            size, kind = int.from_bytes(head[at : at + 4], "big"), head[at + 4 : at + BOX]
            kinds.append(kind)
            at += max(BOX, size)
        return kinds[-1] == b"mdat"

    @property
    def cut_within(self) -> bool:
        """Whether it ended within an element of Matroska."""
        return not self._elements.whole

    @property
    def without_index(self) -> bool:
        """Whether it is NUT without the index that comes last."""
        return self._start == NUT and not self._indexed

    def within_a_picture(self, picture: int) -> bool:
        """Whether it is y4m that ended within one of its pictures of so many bytes."""
        return (self.bytes - self._line.find(b"\n") - 1) % (picture + Y4M_FRAME) != 0


def within_a_packet(source: Path | WatchedPipe) -> bool:
    """Whether a transport stream that was read to its end ends so; what is before its first packet does not count."""
    if isinstance(source, WatchedPipe):
        start, size = source.head, source.bytes
    else:
        with source.open("rb") as file:
            start, size = file.read(LOOKED_THROUGH), file.seek(0, os.SEEK_END)
    found = first_packet(start, size)
    return found is not None and (size - found[0] + PACKETS[found[1]]) % found[1] != 0


def first_packet(start: bytes, size: int) -> tuple[int, int] | None:
    """(place of the first sync, bytes of a packet) of a transport stream of this size; None where there is none."""
    for at in (place for place, byte in enumerate(start[:LOOKED_THROUGH]) if byte == SYNC):
        for length in PACKETS:
            row = start[at : at + SYNCS * length : length]
            if len(row) == min(SYNCS, -(-(size - at) // length)) > 1 and set(row) == {SYNC}:
                return at, length
    return None


class _Elements:
    """Walks over the elements of Matroska, as the bytes come."""

    def __init__(self) -> None:
        self._skip, self._head = 0, b""

    @property
    def whole(self) -> bool:
        return not self._skip and not self._head

    def feed(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        at = 0
        while at < len(data):
            passed = min(self._skip, len(data) - at)
            self._skip, at = self._skip - passed, at + passed
            if at == len(data):
                return
            head = head_of(data[at : at + LONGEST_HEAD])
            if head is None:
                self._head = data[at:]
                return
            kind, length, size = head
            at += length
            self._skip = 0 if kind in DESCENDED else size


def head_of(data: bytes) -> tuple[int, int, int] | None:
    """Of an element of Matroska: (its number, bytes of its head, bytes of its content); None where more bytes are needed."""
    kind_length = 9 - data[0].bit_length()
    if not 1 <= kind_length <= 4:
        return 0, 1, 0  # no element: go on with the next byte
    if len(data) <= kind_length:
        return None
    size_length = 9 - data[kind_length].bit_length()
    length = kind_length + size_length
    if size_length > 8:
        return 0, 1, 0
    if len(data) < length:
        return None
    size = int.from_bytes(data[kind_length:length], "big") & ((1 << 7 * size_length) - 1)
    unknown = size == (1 << 7 * size_length) - 1
    return int.from_bytes(data[:kind_length], "big"), length, 0 if unknown else size


def elements_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the elements, up to what is none or ends behind them; one of unknown size has the rest."""
    at = 0
    while at < len(data) and (head := head_of(data[at : at + LONGEST_HEAD])) and head[0]:
        number, length, size = head
        start = at + length
        unknown = not size and data[start - 1] == LAST_OF_UNKNOWN
        at = len(data) if unknown else start + size
        if at > len(data):
            return
        yield number, data[start:at]
