"""What a Matroska file says in elements that FFmpeg does not read is told where it is lost; what it reads is not."""

import random

import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

from runtime.video.pipe_end import CLUSTER, EBML, SEGMENT, elements_in
from runtime.video.unread_elements import CHAPTERS, INFO, TAGS, TRACKS, unread_elements_of

NOTE = "the elements {} (which FFmpeg does not read): not in the output as it was"
SEEK_HEAD, CUES = 0x114D9B74, 0x1C53BB6B
EDITION, ATOM, DISPLAY, TRACK = 0x45B9, 0xB6, 0x80, 0xAE
TAG, TARGETS, SIMPLE = 0x7373, 0x63C0, 0x67C8


def element(number, *parts):
    content = b"".join(parts)
    size = (len(content) | 1 << 56).to_bytes(8, "big")
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + size + content


def chapter(number, *more, named=None):
    times = element(0x91, (number * 10**6).to_bytes(8, "big")), element(0x92, (number * 10**6 + 10**6).to_bytes(8, "big"))
    return element(ATOM, element(0x73C4, bytes([number + 1])), *times, named or name(f"Chapter {number}"), *more)


def name(text, language=b"und", *more):
    return element(DISPLAY, element(0x85, text.encode()), element(0x437C, language), *more)


def simple(key, value, *more):
    return element(SIMPLE, element(0x45A3, key), element(0x4487, value), *more)


def with_elements(path, info=b"", track=b"", chapters=b"", tags=b"", behind=b"", live=False):
    """A Matroska file with more in these; without the places of others, which it moves."""
    file = dict(elements_in(Clip("ffv1", times=[0, 40, 80], audio=["aac"]).write(path).read_bytes()))
    parts, tracks = b"", 0
    for number, content in elements_in(file[SEGMENT]):
        if number == TRACKS:
            entries = []
            for kind, entry in elements_in(content):
                tracks += 1
                entries.append(element(kind, entry, track if tracks == 2 else b""))
            parts += element(number, *entries)
        elif number == INFO:
            parts += element(number, content, info)
        elif number not in (SEEK_HEAD, CUES, TAGS, CHAPTERS):
            parts += element(number, content)
    more = (element(CHAPTERS, chapters) if chapters else b"") + (element(TAGS, tags) if tags else b"")
    segment = SEGMENT.to_bytes(4, "big") + b"\x01" + b"\xff" * 7 + more + parts if live else element(SEGMENT, parts, more)
    path.write_bytes(element(EBML, file[EBML]) + segment + behind)
    return path


ARTISTS = element(TAG, element(TARGETS), simple(b"ARTIST", b"Alice"), simple(b"ARTIST", b"Bob"))
CASES = [
    ({"track": element(0x22B59D, b"pt-BR")}, "LanguageBCP47"),
    ({"track": element(0x258688, b"a name")}, "CodecName"),
    ({"info": element(0x7384, b"ep01.mkv") + element(0x3EB923, bytes([7]) * 16)}, "NextUUID, SegmentFilename"),
    ({"chapters": element(EDITION, chapter(0)) + element(EDITION, chapter(1))}, "EditionEntry"),
    ({"chapters": element(EDITION, element(0x45DD, b"\1"), chapter(0))}, "EditionFlagOrdered"),
    ({"chapters": element(EDITION, chapter(0, chapter(1)))}, "ChapterAtom in another"),
    ({"chapters": element(EDITION, chapter(0, name("Eins", b"ger")))}, "ChapterDisplay"),
    ({"chapters": element(EDITION, chapter(0, element(0x98, b"\1")))}, "ChapterFlagHidden"),
    ({"chapters": element(EDITION, chapter(0, element(0x4598, b"\0")))}, "ChapterFlagEnabled"),
    ({"chapters": element(EDITION, chapter(0, named=name("Eins", b"ger")))}, "ChapLanguage"),
    ({"chapters": element(EDITION, chapter(0, named=name("Um", b"und", element(0x437D, b"pt-BR"))))}, "ChapLanguageBCP47"),
    ({"tags": ARTISTS}, "SimpleTag ARTIST"),
    ({"tags": element(TAG, element(TARGETS), simple(b"TITLE", b"Um", element(0x447B, b"pt-BR")))}, "TagLanguageBCP47"),
    ({"tags": element(TAG, element(TARGETS), element(SIMPLE, element(0x45A3, b"X"), element(0x4485, b"\0\1")))}, "TagBinary"),
    ({"tags": element(TAG, element(TARGETS), simple(b"ACTOR", b"A", simple(b"CHARACTER", b"B")))}, "SimpleTag in another"),
    ({"tags": element(TAG, element(TARGETS, element(0x63CA, b"MOVIE")), simple(b"ARTIST", b"A"))}, "TargetType"),
    ({"behind": b"gyro" * 9}, "36 bytes behind the segment"),
]


@pytest.mark.parametrize(("more", "told"), CASES, ids=[told for _, told in CASES])
@pytest.mark.parametrize("target", ["mkv", "mp4"])
def test_elements_that_are_lost_are_told(more, told, target, tmp_path):
    assert NOTE.format(told) in copied(with_elements(tmp_path / "in.mkv", **more), tmp_path / f"out.{target}", LOSSLESS)


def test_a_live_writers_are_found_too(tmp_path):
    assert list(unread_elements_of(with_elements(tmp_path / "in.mkv", tags=ARTISTS, live=True))) == ["SimpleTag ARTIST"]


PLAIN = {
    "languages": {"track": element(0x22B59D, b"en")},
    "chapters": {
        "chapters": element(EDITION, element(0x45BD, b"\0"), chapter(0, element(0x98, b"\0"), element(0x4598, b"\1")), chapter(1))
    },
    "tags": {"tags": element(TAG, element(TARGETS), simple(b"ARTIST", b"Alice"), simple(b"TITLE", b"A title"))},
    "statistics": {
        "tags": element(TAG, element(TARGETS, element(0x63CA, b"MOVIE")), simple(b"BPS", b"9"), simple(b"NUMBER_OF_BYTES", b"9"))
    },
    "zeros": {"behind": bytes(40)},
}


@pytest.mark.parametrize("more", PLAIN.values(), ids=PLAIN)
def test_what_ffmpeg_reads_is_not_told(more, tmp_path):
    notes = copied(with_elements(tmp_path / "in.mkv", **more), tmp_path / "out.mkv", LOSSLESS)
    assert not [note for note in notes if "elements" in note]


def test_damage_ends_the_search(tmp_path):
    whole = with_elements(tmp_path / "in.mkv", chapters=element(EDITION, chapter(0, chapter(1))), tags=ARTISTS).read_bytes()
    dice = random.Random(0)
    for _ in range(300):
        data = bytearray(whole[: dice.randrange(len(whole))])
        for _ in range(dice.randrange(20)):
            data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF)) if data else 0
        (tmp_path / "in.mkv").write_bytes(data)
        unread_elements_of(tmp_path / "in.mkv")
    assert CLUSTER.to_bytes(4, "big") in whole
