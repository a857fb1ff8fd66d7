"""`unread_elements_of`: what a Matroska file says in elements that FFmpeg neither hands on nor writes again (RFC 9559, 5.1).

FFmpeg knows one edition of chapters without levels, one name of a chapter, one value of a tag, and languages of three letters.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtime.video.pipe_end import CLUSTER, EBML, LONGEST_HEAD, SEGMENT, elements_in, head_of

INFO, TRACKS, CHAPTERS, TAGS = 0x1549A966, 0x1654AE6B, 0x1043A770, 0x1254C367
MOST, MOST_ELEMENTS = 1 << 22, 1 << 20  # bytes of one that is looked into; elements that are stepped over
PADDING = {0xEC, 0xBF}  # Void, CRC-32
OF_INFO = {  # this file's place among others; its own UUID is made anew by whoever writes it
    0x7384: "SegmentFilename",
    0x3CB923: "PrevUUID",
    0x3C83AB: "PrevFilename",
    0x3EB923: "NextUUID",
    0x3E83BB: "NextFilename",
    0x4444: "SegmentFamily",
    0x6924: "ChapterTranslate",
}
TRACK, LANGUAGE, LANGUAGE_BCP47, CODEC_NAME = 0xAE, 0x22B59C, 0x22B59D, 0x258688
MORE, UNKNOWN = b"-", b"und"  # what a language has behind three letters' worth: a country, a script
EDITION, ORDERED, ATOM, DISPLAY = 0x45B9, 0x45DD, 0xB6, 0x80
LANGUAGE_OF_A_NAME, ITS_BCP47 = 0x437C, 0x437D
OF_AN_ATOM = {0x6E67: "ChapterSegmentUUID", 0x6944: "ChapProcess", 0x63C3: "ChapterPhysicalEquiv"}
FLAGS = {0x98: ("ChapterFlagHidden", 0), 0x4598: ("ChapterFlagEnabled", 1)}  # and the usual value
TAG, TARGETS, TARGET, OF_EDITION, SIMPLE = 0x7373, 0x63C0, 0x63CA, 0x63C9, 0x67C8
NAME, STRING, IN_LANGUAGE, TAG_BCP47, BINARY = 0x45A3, 0x4487, 0x447A, 0x447B, 0x4485
STATISTICS = (b"_STATISTICS", b"BPS", b"DURATION", b"NUMBER_OF_")  # of mkvmerge, not true after encoding

Elements = Iterator[tuple[str, bytes]]  # name and content


def unread_elements_of(path: Path) -> dict[str, frozenset[bytes]]:
    """What the elements of each name have in them, as hashes."""
    readers = {INFO: _of_info, TRACKS: _of_tracks, CHAPTERS: _of_chapters, TAGS: _of_tags}
    found: dict[str, set[bytes]] = {}
    with path.open("rb") as file:
        for number, content in _at_the_top(file):
            told = readers[number](content) if number in readers else [(f"{len(content)} bytes behind the segment", content)]
            for name, each in told:
                found.setdefault(name, set()).add(hashlib.sha256(each).digest())
    return {name: frozenset(contents) for name, contents in found.items()}


def _at_the_top(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, content) of what is looked into, and as 0 what is behind the segment."""
    size, at, end = file.seek(0, io.SEEK_END), 0, 0
    for _ in range(MOST_ELEMENTS):
        file.seek(at)
        head = head_of(data) if (data := file.read(LONGEST_HEAD)) else None
        if head is None or not head[0] or (not at and head[0] != EBML):
            return
        number, length, content = head
        start = at + length
        if number == SEGMENT:
            end, at = start + content if content else size, start
        elif number == CLUSTER and not content:  # a live writer's, without a size
            at = start
        else:
            at = start + content
            if number in (INFO, TRACKS, CHAPTERS, TAGS):
                yield number, _read(file, start, content)
        if end and at >= end:
            break
    if end and end < size and any(rest := _read(file, end, size - end)):
        yield 0, rest


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(min(size, MOST))


def _of_info(info: bytes) -> Elements:
    return ((OF_INFO[number], content) for number, content in elements_in(info) if number in OF_INFO and content)


def _of_tracks(tracks: bytes) -> Elements:
    for number, track in elements_in(tracks):
        known = dict(elements_in(track)) if number == TRACK else {}
        language = known.get(LANGUAGE_BCP47, b"")
        if language and (MORE in language or (known.get(LANGUAGE, UNKNOWN).startswith(UNKNOWN) and language != UNKNOWN)):
            yield "LanguageBCP47", language
        if known.get(CODEC_NAME):
            yield "CodecName", known[CODEC_NAME]


def _of_chapters(chapters: bytes) -> Elements:
    editions = [content for number, content in elements_in(chapters) if number == EDITION]
    for place, edition in enumerate(editions):
        if place:
            yield "EditionEntry", edition
        for number, content in elements_in(edition):
            if number == ORDERED and any(content):
                yield "EditionFlagOrdered", edition
            if number == ATOM and not place:
                yield from _of_an_atom(content)


def _of_an_atom(atom: bytes) -> Elements:
    displays = 0
    for number, content in elements_in(atom):
        if number == ATOM:
            yield "ChapterAtom in another", content
        elif number == DISPLAY:
            displays += 1
            if displays > 1:
                yield "ChapterDisplay", content
            else:
                yield from _of_a_name(dict(elements_in(content)))
        elif number in OF_AN_ATOM:
            yield OF_AN_ATOM[number], content
        elif number in FLAGS and int.from_bytes(content, "big") != FLAGS[number][1]:
            yield FLAGS[number][0], atom


def _of_a_name(parts: dict[int, bytes]) -> Elements:
    if not parts.get(LANGUAGE_OF_A_NAME, UNKNOWN).startswith(UNKNOWN):
        yield "ChapLanguage", parts[LANGUAGE_OF_A_NAME]
    if MORE in parts.get(ITS_BCP47, b""):
        yield "ChapLanguageBCP47", parts[ITS_BCP47]


def _of_tags(tags: bytes) -> Elements:
    for tag in (content for number, content in elements_in(tags) if number == TAG):
        parts = list(elements_in(tag))
        simple = [list(elements_in(content)) for number, content in parts if number == SIMPLE]
        if all(dict(each).get(NAME, b"").startswith(STATISTICS) for each in simple):
            continue
        targets = dict(elements_in(dict(parts).get(TARGETS, b"")))
        if targets.get(TARGET):
            yield "TargetType", tag
        if targets.get(OF_EDITION):
            yield "TagEditionUID", tag
        counts = Counter(_named(each) for each in simple)
        for each in simple:
            for number, name in ((SIMPLE, "SimpleTag in another"), (BINARY, "TagBinary"), (TAG_BCP47, "TagLanguageBCP47")):
                if number in dict(each) and (number != TAG_BCP47 or MORE in dict(each)[number]):
                    yield name, repr(each).encode()
            if counts[_named(each)] > 1:
                yield f"SimpleTag {_named(each)[0].decode('utf-8', 'replace')}", dict(each).get(STRING, b"")


def _named(simple: list[tuple[int, bytes]]) -> tuple[bytes, bytes]:
    """What FFmpeg tells a tag from another by."""
    parts = dict(simple)
    return parts.get(NAME, b""), parts.get(IN_LANGUAGE, UNKNOWN)
