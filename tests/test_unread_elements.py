"""What a Matroska file says in elements that FFmpeg does not hand on is told where it is lost; what it hands on is not."""

import random

import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

from runtime.video.pipe_end import CLUSTER, EBML, LONGEST_HEAD, SEGMENT, head_of
from runtime.video.unread_elements import MOST, unread_elements_of

NOTE = "the elements {} (which FFmpeg does not read): not in the output as it was"
SEEK_HEAD, CUES, VOID = 0x114D9B74, 0x1C53BB6B, 0xEC  # places in the file, which change
INFO, TRACKS, CHAPTERS, TAGS = 0x1549A966, 0x1654AE6B, 0x1043A770, 0x1254C367
TRACK, VIDEO, LANGUAGE, BCP47, CODEC_NAME = 0xAE, 0xE0, 0x22B59C, 0x22B59D, 0x258688


def element(number, *parts):
    """Of numbers, texts, and bytes as they are."""
    content = b"".join(
        part.encode() if isinstance(part, str) else part.to_bytes(4, "big") if isinstance(part, int) else part for part in parts
    )
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + (len(content) | 1 << 56).to_bytes(8, "big") + content


def elements(data):
    at = 0
    while at < len(data):
        number, length, size = head_of(data[at : at + LONGEST_HEAD])
        yield number, data[at + length : at + length + size]
        at += length + size


def with_elements(path, info=b"", track=b"", video=b"", chapters=b"", tags=b"", behind=b"", at_the_end=False, **clip):
    """A Matroska file with more at the ends of these, which are in front of the clusters or behind them."""
    times = [0, 3000, 6000]
    (_, header), (_, segment) = elements(Clip(times=times, **clip).write(path).read_bytes())
    parts, clusters = b"", b""
    for number, content in elements(segment):
        if number == CLUSTER:
            clusters += element(number, content)
        elif number == TRACKS:
            tracks = [with_video(each, video) for kind, each in elements(content) if kind == TRACK]  # without a check sum
            parts += element(TRACKS, *(element(TRACK, each, track) for each in tracks))
        elif number not in (SEEK_HEAD, CUES, VOID):
            parts += element(number, content, {INFO: info, TAGS: tags}.get(number, b""))
    parts += element(CHAPTERS, chapters) if chapters else b""
    path.write_bytes(element(EBML, header) + element(SEGMENT, clusters + parts if at_the_end else parts + clusters) + behind)
    return path


def with_video(track, more):
    return b"".join(element(number, content, more if number == VIDEO else b"") for number, content in elements(track))


def edition(*parts):
    return element(0x45B9, element(0x45BC, 1), *parts)


def atom(uid, name, *more):
    return element(0xB6, element(0x73C4, uid), element(0x91, (uid - 1) * 1000), display(name), *more)


def display(name, *more):
    return element(0x80, element(0x85, name), *(more or (element(0x437C, "und"),)))


def tag(targets, *simple):
    return element(0x7373, element(0x63C0, targets), *simple)


def simple(name, value, *more):
    return element(0x67C8, element(0x45A3, name), element(0x4487, value), *more)


ONE, TWO = atom(1, "one"), atom(2, "two")
CASES = {
    "a language in full": ({"track": element(BCP47, "nb-NO")}, "LanguageBCP47"),
    "another language": ({"track": element(BCP47, "fr")}, "LanguageBCP47"),
    "a codec's name": ({"track": element(CODEC_NAME, "H.264 of mine")}, "CodecName"),
    "a track that is off": ({"track": element(0xB9, 0)}, "FlagEnabled"),
    "cropping by players": ({"video": element(0x54BB, 8) + element(0x54CC, 0)}, "PixelCropTop"),
    "linked files": (
        {
            "info": element(0x7384, "a.mkv")
            + element(0x3CB923, bytes(16))
            + element(0x3EB923, bytes(16))
            + element(0x3C83AB, "z.mkv")
            + element(0x3E83BB, "b.mkv")
        },
        "NextFilename, NextUUID, PrevFilename, PrevUUID, SegmentFilename",
    ),
    "two editions": ({"chapters": edition(ONE) + edition(TWO)}, "EditionEntry"),
    "ordered": ({"chapters": edition(element(0x45DD, 1), ONE, TWO)}, "EditionFlagOrdered"),
    "hidden": ({"chapters": edition(ONE, atom(2, "two", element(0x98, 1)))}, "ChapterFlagHidden"),
    "disabled": ({"chapters": edition(ONE, atom(2, "two", element(0x4598, 0)))}, "ChapterFlagEnabled"),
    "nested": ({"chapters": edition(atom(1, "one", TWO))}, "ChapterAtom"),
    "at one time": ({"chapters": edition(ONE, TWO, element(0xB6, element(0x73C4, 3), element(0x91, 1000)))}, "ChapterAtom"),
    "two names": ({"chapters": edition(atom(1, "one", display("un")))}, "ChapterDisplay"),
    "a language of chapters": (
        {"chapters": edition(element(0xB6, element(0x73C4, 1), element(0x91, 0), display("un", element(0x437C, "fre"))))},
        "ChapLanguage",
    ),
    "from elsewhere": ({"chapters": edition(ONE, atom(2, "two", element(0x6E67, bytes(range(16)))))}, "ChapterSegmentUUID"),
    "two artists": ({"tags": tag(b"", simple("ARTIST", "me"), simple("ARTIST", "you"))}, "SimpleTag"),
    "two titles": ({"info": element(0x7BA9, "one"), "tags": tag(b"", simple("TITLE", "other"))}, "Title"),
    "bytes": ({"tags": tag(b"", element(0x67C8, element(0x45A3, "KEY"), element(0x4485, b"\0\1")))}, "TagBinary"),
    "nested tags": ({"tags": tag(b"", simple("ARTIST", "me", simple("SORT_WITH", "m")))}, "SimpleTag"),
    "of a film": ({"tags": tag(element(0x63CA, "MOVIE"), simple("ARTIST", "me"))}, "TargetType"),
    "of a series": ({"tags": tag(element(0x68CA, 70), simple("ARTIST", "me"))}, "TargetTypeValue"),
    "of an edition": ({"tags": tag(element(0x63C9, 1), simple("ARTIST", "me"))}, "TagEditionUID"),
    "of no chapter": ({"tags": tag(element(0x63C4, 9), simple("ARTIST", "me"))}, "TagChapterUID"),
    "of no file": ({"tags": tag(element(0x63C6, 9), simple("ARTIST", "me"))}, "TagAttachmentUID"),
    "a tag's language": (
        {"tags": tag(b"", simple("ARTIST", "me", element(0x447A, "por"), element(0x447B, "pt-BR")))},
        "TagLanguageBCP47",
    ),
    "behind": ({"behind": b"TAG" + bytes(125)}, "bytes behind the Segment"),
}


def told(notes):
    return [note for note in notes if "elements" in note]


@pytest.mark.parametrize(("more", "name"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("target", ["mkv", "mp4"])
def test_elements_that_are_lost_are_told(more, name, target, tmp_path):
    source = with_elements(tmp_path / "in.mkv", **more)
    assert unread_elements_of(source)
    assert told(copied(source, tmp_path / f"out.{target}", LOSSLESS)) == [NOTE.format(name)]


def test_elements_behind_the_clusters_are_found(tmp_path):
    more = {"info": element(0x7384, "a.mkv"), "chapters": edition(ONE) + edition(TWO), "track": element(CODEC_NAME, "x")}
    before = unread_elements_of(with_elements(tmp_path / "in.mkv", **more))
    assert unread_elements_of(with_elements(tmp_path / "in.mkv", at_the_end=True, **more)) == before
    assert set(before) == {"SegmentFilename", "EditionEntry", "CodecName"}


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_files_of_ffmpeg_have_nothing_that_is_told(suffix, tmp_path):
    codec = (
        {"codec": "libvpx", "options": {"deadline": "realtime"}} if suffix == "webm" else {"audio": ["aac"], "attachment": b"font"}
    )
    metadata = {"title": "t", "artist": "me", "comment-fre": "oui", "comment": "yes"}
    clip = Clip(times=[0, 3000, 6000], metadata=metadata, chapters=[(0, 50, "one"), (50, 100, "two")], **codec)
    source = clip.write(tmp_path / f"in.{suffix}")
    assert unread_elements_of(source) == {}


def test_a_plain_file_of_another_writer_has_nothing_that_is_told(tmp_path):
    """As mkvmerge writes it: languages twice, all flags, tags for tracks and statistics."""
    flags = element(0x98, 0) + element(0x4598, 1)
    twice = element(0x437C, "eng") + element(0x437D, "en")
    chapters = [
        element(0xB6, element(0x73C4, number), element(0x91, number * 10**7), flags, element(0x80, element(0x85, "name"), twice))
        for number in (1, 2)
    ]
    of_a_tag = element(0x4484, 1) + element(0x447A, "eng") + element(0x447B, "en")
    uid = 7
    statistics = [simple(name, "1", of_a_tag) for name in ("BPS", "DURATION", "NUMBER_OF_FRAMES", "_STATISTICS_TAGS")]
    source = with_elements(
        tmp_path / "in.mkv",
        track=element(LANGUAGE, "ger") + element(BCP47, "de") + element(0x73C5, uid) + element(0xB9, 1),
        chapters=edition(element(0x45BD, 0), element(0x45DB, 0), *chapters),
        tags=tag(element(0x68CA, 50) + element(0x63CA, "MOVIE") + element(0x63C5, uid), *statistics)
        + tag(element(0x68CA, 50) + element(0x63C5, uid), simple("ARTIST", "me", of_a_tag))
        + tag(element(0x68CA, 50), simple("ARTIST", "me"), simple("COMMENT", "a"), simple("COMMENT", "b", element(0x447A, "fre"))),
    )
    assert unread_elements_of(source) == {}
    assert not told(copied(source, tmp_path / "out.mkv", LOSSLESS))


@pytest.mark.parametrize(
    ("language", "full"), [("eng", "en"), ("und", "und"), ("chi", "zh"), ("zho", "zh"), ("fra", "fr"), ("fil", "fil"), (None, "en")]
)
def test_a_language_that_says_no_more_is_not_told(language, full, tmp_path):
    (tmp_path / "in.mkv").write_bytes(of_a_track(element(LANGUAGE, language) if language else b"", element(BCP47, full)))
    assert unread_elements_of(tmp_path / "in.mkv") == {}


@pytest.mark.parametrize(("language", "full"), [("eng", "en-US"), ("chi", "yue"), ("und", "fr"), (None, "fr"), ("chi", "\u00e9\0")])
def test_a_language_that_says_more_is_told(language, full, tmp_path):
    (tmp_path / "in.mkv").write_bytes(of_a_track(element(LANGUAGE, language) if language else b"", element(BCP47, full)))
    assert list(unread_elements_of(tmp_path / "in.mkv")) == ["LanguageBCP47"]


def of_a_track(*parts):
    return element(EBML) + element(SEGMENT, element(TRACKS, element(TRACK, *parts)))


def test_a_live_recording_is_looked_through(tmp_path):
    """The segment and its clusters have no size."""
    without_size = b"\xff"
    cluster = CLUSTER.to_bytes(4, "big") + without_size + element(0xE7, 0) + element(0xA3, bytes(100))
    info = element(INFO, element(0x7384, "a.mkv"))
    path = tmp_path / "in.mkv"
    path.write_bytes(element(EBML) + SEGMENT.to_bytes(4, "big") + without_size + cluster + cluster + info)
    assert list(unread_elements_of(path)) == ["SegmentFilename"]
    path.write_bytes(path.read_bytes() + element(EBML) + element(SEGMENT, info))
    assert list(unread_elements_of(path)) == ["SegmentFilename", "bytes behind the Segment"]


def test_damaged_files_end_the_search(tmp_path):
    more = {key: value for change, _ in CASES.values() for key, value in change.items()}
    path = with_elements(tmp_path / "in.mkv", attachment=b"font", size=(16, 16), **more)
    whole, noise = path.read_bytes(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(noise.randrange(1, 20)):
            data[noise.randrange(len(data))] = noise.choice((0, 1, 0x40, 0x80, 0xFF, noise.randrange(256)))
        path.write_bytes(data[: noise.randrange(len(data)) if noise.random() < 0.5 else len(data)])
        unread_elements_of(path)
    for data in (b"", b"\0", b"\x1a", bytes(1000), b"\xff" * 1000, element(EBML), element(EBML) + SEGMENT.to_bytes(4, "big")):
        path.write_bytes(data)
        assert unread_elements_of(path) == {}


def test_no_more_is_read_than_a_bound(tmp_path):
    """Of an element that says it were a million million bytes, and of one that is large."""
    path = tmp_path / "in.mkv"
    name = element(0x7384, "a.mkv")
    path.write_bytes(element(EBML) + b"\x18\x53\x80\x67\x01" + bytes(7) + INFO.to_bytes(4, "big") + b"\x01\0\1\0\0\0\0\0" + name)
    assert list(unread_elements_of(path)) == ["SegmentFilename"]
    large = element(INFO, name, element(VOID, bytes(2 * MOST)))
    path.write_bytes(element(EBML) + element(SEGMENT, large, element(TRACKS, element(TRACK, element(CODEC_NAME, "x")))))
    assert list(unread_elements_of(path)) == ["SegmentFilename"]
