"""`unread_elements_of`: what a Matroska file says in elements that FFmpeg neither reads nor copies, or PyAV hides (RFC 9559, 5.1).

They are in the segment's information, its tracks, chapters and tags, and behind its end. Of what FFmpeg keeps under one name (a
title and a tag with the title, two tags for two artists) it hands on the last.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import av

from runtime.video.muxer import STATISTICS
from runtime.video.pipe_end import EBML, LONGEST_HEAD, SEGMENT, elements_in, head_of

INFO, TRACKS, CHAPTERS, ATTACHMENTS, TAGS = 0x1549A966, 0x1654AE6B, 0x1043A770, 0x1941A469, 0x1254C367
TRACK, VIDEO, EDITION, ATOM, DISPLAY, ATTACHED, TAG, TARGETS, SIMPLE_TAG = (
    0xAE,
    0xE0,
    0x45B9,
    0xB6,
    0x80,
    0x61A7,
    0x7373,
    0x63C0,
    0x67C8,
)
TRACK_UID, CHAPTER_UID, FILE_UID, CHAPTER_START = 0x73C5, 0x73C4, 0x46AE, 0x91
TITLE, NAME, CHAPTER_NAME = (0x7BA9, "Title"), (0x536E, "Name"), (0x85, "ChapString")
LANGUAGE, CHAPTER_LANGUAGE, TAG_LANGUAGE = 0x22B59C, 0x437C, 0x447A
TARGET_TYPE, TAG_NAME, TAG_STRING, TAG_DEFAULT = 0x63CA, 0x45A3, 0x4487, 0x4484
KEPT = {INFO, TRACKS, CHAPTERS, TAGS, FILE_UID}
LOOKED_INTO = {ATTACHMENTS, ATTACHED}  # so that no attachment is read
OWNERS = {  # of tags, in the order in which FFmpeg looks for them: what the element is called that has their number
    0x63C6: ("TagAttachmentUID", FILE_UID),
    0x63C4: ("TagChapterUID", CHAPTER_UID),
    0x63C5: ("TagTrackUID", TRACK_UID),
}
UNREAD = {
    **{0x7384: "SegmentFilename", 0x4444: "SegmentFamily", 0x6924: "ChapterTranslate"},
    **{0x3C83AB: "PrevFilename", 0x3E83BB: "NextFilename", 0x3CB923: "PrevUUID", 0x3EB923: "NextUUID"},
    **{0x258688: "CodecName", 0x3A9697: "CodecSettings", 0x3B4040: "CodecInfoURL", 0x26B240: "CodecDownloadURL"},
    **{0x54BB: "PixelCropTop", 0x54AA: "PixelCropBottom", 0x54CC: "PixelCropLeft", 0x54DD: "PixelCropRight"},
    **{0x54B3: "AspectRatioType", 0x2FB523: "GammaValue"},
    **{0xB9: "FlagEnabled", 0x7446: "AttachmentLink", 0x6FAB: "TrackOverlay", 0x6624: "TrackTranslate", 0x537F: "TrackOffset"},
    **{0x45BD: "EditionFlagHidden", 0x45DD: "EditionFlagOrdered", 0x4520: "EditionDisplay"},
    **{0x98: "ChapterFlagHidden", 0x4598: "ChapterFlagEnabled", 0x6E67: "ChapterSegmentUUID", 0x6EBC: "ChapterSegmentEditionUID"},
    **{0x5654: "ChapterStringUID", 0x4588: "ChapterSkipType", 0x63C3: "ChapterPhysicalEquiv", 0x8F: "ChapterTrack"},
    **{0x6944: "ChapProcess", 0x437E: "ChapCountry", ATOM: "ChapterAtom"},
    **{0x68CA: "TargetTypeValue", TARGET_TYPE: "TargetType", 0x63C9: "TagEditionUID"},
    **{TAG_DEFAULT: "TagDefault", 0x4485: "TagBinary", SIMPLE_TAG: "SimpleTag"},
}
SAYS_NOTHING = {
    **dict.fromkeys((0x54BB, 0x54AA, 0x54CC, 0x54DD, 0x54B3, 0x2FB523), 0),
    **{0xB9: 1, 0x45BD: 0, 0x45DD: 0, 0x98: 0, 0x4598: 1, 0x4588: 0, 0x68CA: 50, 0x63C9: 0, TAG_DEFAULT: 1},
}  # as if absent
IN_FULL = {  # by the element with a language of three letters: that which says it in full; what is meant without the former
    LANGUAGE: (0x22B59D, "LanguageBCP47", b"eng"),
    CHAPTER_LANGUAGE: (0x437D, "ChapLanguageBCP47", b"eng"),
    TAG_LANGUAGE: (0x447B, "TagLanguageBCP47", b"und"),
}
UNKNOWN = b"und"
USUAL = {b"eng", UNKNOWN}  # languages of chapters, whatever they are in
NOT_IN_FFMPEG = {b"za": b"zha", b"zh": b"chi", b"zu": b"zul"}  # languages that it does not find by their two letters
BEHIND = "bytes behind the Segment"
MOST = 1 << 22  # bytes of a file that are read, beside the heads of elements
MOST_ELEMENTS = 1 << 20  # that are stepped over: hours of a live recording, whose clusters have no size

Elements = list[tuple[int, bytes]]  # (number, content)
Told = Iterator[tuple[str, bytes]]  # (name, content) of elements
Owner = tuple[int, int]  # of a tag: what is called so, and its number; that of the whole file is (0, 0)
WHOLE_FILE = (0, 0)


class _Kept(NamedTuple):
    """What FFmpeg keeps of an element, under which names."""

    name: str
    keys: list[tuple[Owner, bytes]]
    value: bytes


def unread_elements_of(path: Path) -> dict[str, frozenset[bytes]]:
    """What the elements of each name have in them, as hashes; of a damaged file, those before the damage."""
    found: dict[str, set[bytes]] = {}
    for name, content in _unread(list(_parts(path))):
        found.setdefault(name, set()).add(hashlib.sha256(content).digest())
    return {name: frozenset(contents) for name, contents in found.items()}


def _parts(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, content) of what is read of the first segment, then (0, content) of what is behind it."""
    with path.open("rb", buffering=0) as file:
        size = end = file.seek(0, os.SEEK_END)  # the end is the segment's, once that was met
        at, left, inside = 0, MOST, False
        for _ in range(MOST_ELEMENTS):
            if at >= end:
                break
            file.seek(at)
            head = head_of(file.read(LONGEST_HEAD) or b"\0")
            if head is None or not head[0]:
                break
            number, length, content = head
            if number == EBML and inside:  # the start of another, behind a segment of unknown size
                end = at
                break
            at += length
            if number == SEGMENT:
                inside, end = True, min(at + content, size) if content else size
            elif number in KEPT:
                file.seek(at)
                yield number, (data := file.read(min(content, left)))
                left -= len(data)
            at += 0 if number in LOOKED_INTO | {SEGMENT} else content
        if inside and end < size:
            file.seek(end)
            yield 0, file.read(left)


def _unread(parts: list[tuple[int, bytes]]) -> Told:
    infos, tracks, chapters, tags = ([each for number, each in parts if number == kind] for kind in (INFO, TRACKS, CHAPTERS, TAGS))
    known = {(FILE_UID, _integer(content)) for number, content in parts if number == FILE_UID}
    kept: list[_Kept] = []
    for info in map(_elements, infos):
        yield from _named(info)
        kept += _title(info, TITLE, WHOLE_FILE)
    for track in map(_elements, _all(tracks, TRACK)):
        yield from (*_named(track), *_in_full(track))
        yield from _named(each for video in _all_in(track, VIDEO) for each in _elements(video))
        owner = (TRACK_UID, _integer(dict(track).get(TRACK_UID)))
        known.add(owner)
        kept += _title(track, NAME, owner)
    editions = _all(chapters, EDITION)
    for edition in editions[:1]:
        yield from _of_edition(edition)
    yield from (("EditionEntry", edition) for edition in editions[1:])
    for atom in map(_elements, _all(editions, ATOM)):
        owner = (CHAPTER_UID, _integer(dict(atom).get(CHAPTER_UID)))
        known.add(owner)
        kept += [each for display in _all_in(atom, DISPLAY) for each in _title(_elements(display), CHAPTER_NAME, owner)][-1:]
    for tag in map(_elements, _all(tags, TAG)):
        simple = [each for each in map(_elements, _all_in(tag, SIMPLE_TAG)) if not _is_statistic(each)]
        if simple:
            targets = [each for content in _all_in(tag, TARGETS) for each in _elements(content)]
            owner = _owner(targets)
            yield from _of_targets(targets, owner if owner in known else WHOLE_FILE)
            for each in simple:
                yield from (*_named(each), *_in_full(each))
            if owner in known | {WHOLE_FILE}:
                kept += [_tag(each, owner, dict(targets).get(TARGET_TYPE)) for each in simple]
    last = {key: each.value for each in kept for key in each.keys}
    yield from ((each.name, each.value) for each in kept if each.value not in {last[key] for key in each.keys})
    yield from ((BEHIND, content) for number, content in parts if not number and any(content))


def _of_edition(edition: bytes) -> Told:
    elements, latest = _elements(edition), 0
    yield from _named((number, content) for number, content in elements if number != ATOM)
    for content in _all_in(elements, ATOM):
        atom = _elements(content)
        yield from _named(atom)
        start = _integer(dict(atom).get(CHAPTER_START))
        if (latest and start <= latest) or not _integer(dict(atom).get(CHAPTER_UID)):  # which FFmpeg leaves out
            yield UNREAD[ATOM], content
        latest = max(latest, start)
        displays = _all_in(atom, DISPLAY)
        yield from (("ChapterDisplay", display) for display in displays[:-1])
        for display in map(_elements, displays[-1:]):
            yield from (*_named(display), *_in_full(display))
            yield from (("ChapLanguage", each) for each in _all_in(display, CHAPTER_LANGUAGE) if each.rstrip(b"\0") not in USUAL)


def _owner(targets: Elements) -> Owner:
    """Of tags with these targets, to FFmpeg, which knows one."""
    for number, (_, uid) in OWNERS.items():
        if found := _integer(dict(targets).get(number)):
            return uid, found
    return WHOLE_FILE


def _of_targets(targets: Elements, owner: Owner) -> Told:
    yield from _named(targets)
    for number, content in targets:
        if number in OWNERS and (value := _integer(content)) and (OWNERS[number][1], value) != owner:
            yield OWNERS[number][0], content


def _title(elements: Elements, called: tuple[int, str], owner: Owner) -> list[_Kept]:
    number, name = called
    return [_Kept(name, [(owner, b"title")], content) for content in _all_in(elements, number)]


def _tag(elements: Elements, owner: Owner, target_type: bytes | None) -> _Kept:
    said = dict(elements)
    key, language = said.get(TAG_NAME, b"").lower(), said.get(TAG_LANGUAGE, UNKNOWN)
    if target_type and owner[0] in (0, TRACK_UID):
        key = target_type.lower() + b"/" + key
    keys = [key] if language == UNKNOWN or _integer(said.get(TAG_DEFAULT)) else []
    keys += [key + b"-" + language] if language != UNKNOWN else []
    return _Kept(UNREAD[SIMPLE_TAG], [(owner, each) for each in keys], said.get(TAG_STRING, b""))


def _is_statistic(simple_tag: Elements) -> bool:
    return dict(simple_tag).get(TAG_NAME, b"").decode("latin-1").startswith(STATISTICS)


def _named(elements: Iterable[tuple[int, bytes]]) -> Told:
    for number, content in elements:
        if number in UNREAD and (number not in SAYS_NOTHING or _integer(content) != SAYS_NOTHING[number]):
            yield UNREAD[number], content


def _in_full(elements: Elements) -> Told:
    """A language that says more than the one beside it."""
    said = dict(elements)
    for number, (full, name, absent) in IN_FULL.items():
        if full in said and not _is_same(said[full].rstrip(b"\0").lower(), said.get(number, absent).rstrip(b"\0").lower()):
            yield name, said[full]


def _is_same(full: bytes, language: bytes) -> bool:
    short = full.isalpha() and len(full) == 2 and language.isalpha() and len(language) == 3
    return full == language or (short and _three_letters(full) == _three_letters(language))


@functools.lru_cache(maxsize=64)
def _three_letters(language: bytes) -> bytes:
    """The one name of a language that Matroska has, of those with two or three letters (ISO 639-2, B), which FFmpeg knows."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        container.metadata[f"NAME-{language.decode()}"] = "value"
        container.add_mux_stream("subrip")
        container.start_encoding()
    data = [file.getvalue()]
    for number in (SEGMENT, TAGS, TAG, SIMPLE_TAG, TAG_LANGUAGE):
        data = _all(data, number)
    return data[0] if data else NOT_IN_FFMPEG.get(language, language)


def _all(contents: Iterable[bytes], number: int) -> list[bytes]:
    return [each for content in contents for each in _all_in(_elements(content), number)]


def _all_in(elements: Elements, number: int) -> list[bytes]:
    return [content for each, content in elements if each == number]


def _elements(data: bytes) -> Elements:
    return list(elements_in(data))


def _integer(content: bytes | None) -> int:
    return int.from_bytes(content or b"", "big")
