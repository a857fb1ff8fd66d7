"""`unread_boxes_of`: what an MP4 or QuickTime file says in boxes that FFmpeg neither reads nor copies (ISO/IEC 14496-12, 8 and 12).

They are what is in the user data of the file and of its tracks, in its metadata, beside these, and between the tracks. Of user data
FFmpeg is asked what it reads, with a file that has nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from runtime.video.boxes import HEADER, Box, boxes_in, content_of, inside
from runtime.video.fragments import UUID, UUID_BYTES, XMP
from runtime.video.iamf import DESCRIPTION
from runtime.video.sources import WITH_XMP
from runtime.video.track_headers import FULL_VOLUME

FULL = 4  # bytes: version and flags
MOST = 1 << 20  # bytes of a box that is compared
PADDING = {b"free", b"skip", b"wide", bytes(4)}  # of zeros, unless a maker hides something there
AT_THE_TOP = {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"ssix", b"pdin", UUID}  # the last elsewhere
OF_MOOV = {b"mvhd", b"trak", b"udta", b"meta", b"mvex", b"iods", b"cmov", b"pssh"}
OF_TRAK = {b"tkhd", b"edts", b"mdia", b"udta", b"meta", b"tref", b"tapt", b"load"}
OF_META = {b"hdlr", b"keys", b"ilst"}
READ_ELSEWHERE = {b"meta", b"chpl"}  # of user data: looked into, and chapters
REST = b""  # no box
MADE_ANEW = {b"chap", b"tmcd"}  # references to tracks
SPHERICAL = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")  # which FFmpeg hands on
OF_SAMPLES = (b"SA3D", b"SAND", b"cclv")  # in their description: ambisonic channels, and those that do not turn; the colour volume
EXTENDED, MEDIA_HEADER = (b"mdia", b"elng"), (b"mdia", b"mdhd")
LANGUAGE_AT, LETTERS = (20, 32), 0x60  # of the header, by version; what its five bits of a letter lack (ISO/IEC 14496-12, 8.4.2)
EDIT, COUNTED, AS_MADE = (">Iii", ">Qqi"), 8, 1 << 16  # length, place and rate, by version; bytes in front; a rate of 1
PREFERRED, PREFERRED_AT = ">ih46x6I", (20, 32)  # rate, volume, and places in time; where, by version
MDIR = b"mdir"  # the handler of iTunes' metadata
IN_WORDS = {  # of a phone's user data (3GPP TS 26.244, 8), whose names say little
    b"titl": "title",
    b"dscp": "description",
    b"cprt": "copyright",
    b"perf": "performer",
    b"auth": "author",
    b"gnre": "genre",
    b"rtng": "rating",
    b"clsf": "classification",
    b"kywd": "keywords",
    b"loci": "place",
    b"albm": "album",
    b"yrrc": "year of recording",
    b"coll": "collection",
    b"urat": "a user's rating",
    b"thmb": "thumbnail",
}
CONTROL = 0x20  # letters below are none


def unread_boxes_of(path: Path, told: Iterable[str]) -> dict[str, frozenset[bytes]]:
    """What the boxes of each name have in them, as hashes, but for texts that the metadata have `told` too."""
    found: dict[str, set[bytes]] = {}
    texts = tuple(text.encode("utf-8", "surrogateescape") for text in told if text.strip())
    with path.open("rb") as file:
        for name, content in _File(file).unread():
            if content[FULL:] not in texts:
                found.setdefault(name, set()).add(hashlib.sha256(content).digest())
    return {name: frozenset(contents) for name, contents in found.items()}


class _File:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, io.SEEK_END)

    def unread(self) -> Iterator[tuple[str, bytes]]:
        """(name, content) of each box, and of what is behind the last, where makers put what their own programs look for."""
        end = 0
        for box in boxes_in(self._file, 0, self._size):
            end = box.end
            if box.kind == b"moov":
                yield from self._in_moov(box)
            elif box.kind == b"meta":
                yield from self._in_meta(box)
            elif box.kind not in AT_THE_TOP and not self._is_padding(box):
                yield self._told(box)
        rest = Box(REST, end, self._size)
        if end and any(content := self._content(rest)):
            yield f"{self._size - end} bytes behind the last", content

    def _in_moov(self, moov: Box) -> Iterator[tuple[str, bytes]]:
        for box in boxes_in(self._file, *moov[1:]):
            if box.kind == b"trak":
                yield from self._in_track(box)
            elif box.kind == b"mvhd":
                yield from self._in_header(self._content(box))
            else:
                yield from self._beside(box, OF_MOOV)

    def _in_header(self, header: bytes) -> Iterator[tuple[str, bytes]]:
        """What players are to do with all of it, and the times of a poster and a preview, which QuickTime has (mvhd)."""
        at = PREFERRED_AT[header[:1] == b"\1"]
        if len(header) >= at + struct.calcsize(PREFERRED):
            rate, volume, *times = struct.unpack_from(PREFERRED, header, at)
            if rate not in (0, AS_MADE):
                yield f"mvhd with a rate of {rate / AS_MADE:.3g}", b""
            if volume not in (0, FULL_VOLUME):
                yield f"mvhd with a volume of {volume / FULL_VOLUME:.3g}", b""
            if any(times):
                yield "mvhd with a poster, preview or selection", struct.pack(f">{len(times)}I", *times)

    def _in_track(self, track: Box) -> Iterator[tuple[str, bytes]]:
        for box in boxes_in(self._file, *track[1:]):
            if box.kind == b"edts":
                yield from ((f"elst with a rate of {float(rate):.3g}", b"") for rate in self._rates(box))
            elif box.kind == b"meta":
                yield from self._of_keys(box)
                yield from self._in_meta(box)
            elif box.kind == b"tref":
                yield from ((_letters(kind), b"") for kind, *_ in boxes_in(self._file, *box[1:]) if kind not in MADE_ANEW)
            else:
                yield from self._beside(box, OF_TRAK)
        language = self._content(inside(self._file, track, EXTENDED))[FULL:].rstrip(b"\0")
        if language and not self._language(track).startswith(language):
            yield f"elng (the language {language.decode('latin-1')})", language
        description = self._content(inside(self._file, track, DESCRIPTION))
        for kind in OF_SAMPLES:
            if (at := description.find(kind)) >= FULL:
                size = int.from_bytes(description[at - FULL : at], "big")
                yield _letters(kind), description[at : at - FULL + size]

    def _language(self, track: Box) -> bytes:
        """In three letters, as FFmpeg has it."""
        header = self._content(inside(self._file, track, MEDIA_HEADER))
        at = LANGUAGE_AT[header[:1] == b"\1"]
        code = int.from_bytes(header[at : at + 2], "big")
        return bytes(LETTERS + (code >> shift & 0x1F) for shift in (10, 5, 0))

    def _rates(self, edits: Box) -> Iterator[Fraction]:
        """At which pieces of a track are played, where that is not as they were made; 0 is a still."""
        for content in (self._content(box) for box in boxes_in(self._file, *edits[1:]) if box.kind == b"elst"):
            edit = EDIT[content[:1] == b"\1"]
            count = (len(content) - COUNTED) // struct.calcsize(edit)
            for number in range(count):
                _, place, rate = struct.unpack_from(edit, content, COUNTED + number * struct.calcsize(edit))
                if place >= 0 and rate != AS_MADE:
                    yield Fraction(rate, AS_MADE)

    def _beside(self, box: Box, known: set[bytes]) -> Iterator[tuple[str, bytes]]:
        """Of a child of moov or trak."""
        if box.kind == b"udta":
            for each in boxes_in(self._file, *box[1:]):
                if each.kind == b"meta":
                    yield from self._in_meta(each)
                elif each.kind not in READ_ELSEWHERE and not self._is_padding(each) and not self._is_read(each):
                    yield self._told(each)
        elif box.kind == b"meta":
            yield from self._in_meta(box)
        elif box.kind == UUID and self._content(box)[:UUID_BYTES] in (XMP, SPHERICAL):
            return
        elif box.kind not in known and not self._is_padding(box):
            yield self._told(box)

    def _of_keys(self, meta: Box) -> Iterator[tuple[str, bytes]]:
        """What a track's metadata says under names of its own, as phones do of their lenses; FFmpeg reads those of a whole file."""
        boxes = {box.kind: box for box in self._boxes_of_meta(meta)}
        keys, items = (boxes.get(kind, Box(kind, 0, 0)) for kind in (b"keys", b"ilst"))
        names = [self._content(key).decode("latin-1") for key in boxes_in(self._file, keys.start + HEADER, keys.end)]
        for item in boxes_in(self._file, *items[1:]):
            number = int.from_bytes(item.kind, "big")
            yield names[number - 1] if 0 < number <= len(names) else _letters(item.kind), self._content(item)

    def _boxes_of_meta(self, meta: Box) -> Iterator[Box]:
        start = meta.start + (0 if self._content(meta)[FULL:HEADER] == b"hdlr" else FULL)  # QuickTime's has no version
        return boxes_in(self._file, start, meta.end)

    def _in_meta(self, meta: Box) -> Iterator[tuple[str, bytes]]:
        boxes = list(self._boxes_of_meta(meta))
        handler = next((self._content(box)[HEADER : HEADER + FULL] for box in boxes if box.kind == b"hdlr"), b"")
        for box in boxes:
            if box.kind == b"ilst" and handler == MDIR:
                for each in boxes_in(self._file, *box[1:]):
                    if not self._is_padding(each) and not _is_read(_item(each.kind, self._content(each))):
                        yield self._told(each)
            elif box.kind not in OF_META and not self._is_padding(box):
                yield self._told(box)

    def _is_padding(self, box: Box) -> bool:
        return box.kind in PADDING and not any(self._content(box))

    def _is_read(self, box: Box) -> bool:
        return _is_read(_box(box.kind, self._content(box)))

    def _content(self, box: Box) -> bytes:
        return content_of(self._file, box, MOST)

    def _told(self, box: Box) -> tuple[str, bytes]:
        content = self._content(box)
        name = f"uuid {content[:UUID_BYTES].hex()}" if box.kind == UUID else _letters(box.kind)
        name += f" ({IN_WORDS[box.kind]})" if box.kind in IN_WORDS else ""
        return name, content


def _is_read(box: bytes) -> bool:
    """Whether FFmpeg makes something of a box in the user data of a file that has nothing else."""
    return _opened(box) != _opened_empty()


@functools.cache
def _opened_empty() -> tuple[dict[str, str], int]:
    return _opened(b"")


def _opened(box: bytes) -> tuple[dict[str, str], int]:
    """Metadata, and the number of streams and chapters."""
    movie = _box(b"moov", _box(b"mvhd", bytes(12) + (1000).to_bytes(4, "big") + bytes(84)) + _box(b"udta", box))
    file = io.BytesIO(_box(b"ftyp", b"isom\0\0\0\0isom") + movie)
    with suppress(av.FFmpegError), av.open(file, "r", format="mov", options=WITH_XMP, metadata_errors="surrogateescape") as opened:
        return dict(opened.metadata), len(opened.streams) + len(opened.chapters())
    return {}, 0


def _item(kind: bytes, content: bytes) -> bytes:
    """User data with one item of iTunes' metadata."""
    handler = _box(b"hdlr", bytes(HEADER) + MDIR + b"appl" + bytes(9))
    return _box(b"meta", bytes(FULL) + handler + _box(b"ilst", _box(kind, content)))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", HEADER + len(content), kind) + content


def _letters(kind: bytes) -> str:
    return kind.decode("latin-1").strip() if min(kind) >= CONTROL else kind.hex()
