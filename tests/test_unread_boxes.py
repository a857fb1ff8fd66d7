"""What an MP4 says in boxes that FFmpeg does not read is told where it is lost; what it reads is not."""

import struct

import pytest
from test_field_streams import LOSSLESS, copied
from test_hidden_sound import box, boxes
from video_clips import Clip

from runtime.video import VideoReader
from runtime.video.unread_boxes import unread_boxes_of

NOTE = "the boxes {} (which FFmpeg does not read): not in the output as it was"
FULL = bytes(4)  # version and flags
XML = box(b"meta", FULL + box(b"hdlr", bytes(8) + b"nrtm" + bytes(13)) + box(b"xml ", FULL + b"<Device/>\0"))


def text(kind, content):
    return box(kind, struct.pack(">HH", len(content), 0x15C7) + content)


def item(kind, content):
    return box(kind, box(b"data", struct.pack(">II", 1, 0) + content))


def of_itunes(*items):
    return box(b"udta", box(b"meta", FULL + box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9)) + box(b"ilst", b"".join(items))))


KEYED = box(  # as phones write it, of a track
    b"meta",
    box(b"hdlr", bytes(8) + b"mdta" + bytes(14))
    + box(b"keys", struct.pack(">II", 0, 1) + box(b"mdta", b"com.apple.quicktime.camera.lens_model"))
    + box(b"ilst", box(struct.pack(">I", 1), box(b"data", struct.pack(">II", 1, 0) + b"back camera"))),
)


def with_boxes(path, moov=b"", trak=b"", top=b""):
    """An MP4 with more at the ends of these; the index is behind the pictures, whose places stay as they are."""
    data = Clip(times=[0, 3000, 6000]).write(path).read_bytes()
    at, index = data.index(b"moov") - 4, b""
    for kind, content in boxes(data[at:]):
        index += box(b"trak", content[8:] + trak) if kind == b"trak" else content if kind != b"udta" else b""
    path.write_bytes(data[:at] + box(b"moov", index + moov) + top)
    return path


CASES = [
    (
        {"moov": box(b"udta", text(b"\xa9csn", b"SN-1") + box(b"CAME", b"12345678") + text(b"\xa9xyz", b"+48.8577+002.2950/"))},
        "CAME, ©csn",
    ),
    ({"moov": of_itunes(item(b"\xa9nam", b"a title"), item(b"xyzw", b"something"))}, "xyzw"),
    ({"moov": XML}, "xml"),
    ({"moov": box(b"udta", box(b"yrrc", FULL + b"\x07\xea"))}, "yrrc (year of recording)"),
    ({"moov": box(b"uuid", bytes(range(16)) + b"lens")}, f"uuid {bytes(range(16)).hex()}"),
    ({"trak": box(b"uuid", bytes(range(16)) + b"lens")}, f"uuid {bytes(range(16)).hex()}"),
    ({"trak": box(b"udta", box(b"kind", FULL + b"urn:x\0y\0") + box(b"name", b"Front"))}, "kind"),
    ({"trak": box(b"tref", box(b"cdsc", struct.pack(">I", 1)))}, "cdsc"),
    ({"top": box(b"free", b"\0\0GPS 48.8577")}, "free"),
    ({"moov": box(b"udta", box(b"skip", b"LIGOGPSINFO"))}, "skip"),
    ({"trak": box(b"free", b"lens")}, "free"),
    ({"trak": KEYED}, "com.apple.quicktime.camera.lens_model"),
    ({"trak": box(b"meta", FULL + KEYED[8:])}, "com.apple.quicktime.camera.lens_model"),
    ({"top": box(b"free", bytes(99)) + b"gyro" * 9 + b"8db42d694ccc418790edff439fe026bf"}, "68 bytes behind the last"),
    ({"top": box(b"emsg", FULL + b"urn:x\0y\0" + bytes(16))}, "emsg"),
]


@pytest.mark.parametrize(("more", "told"), CASES, ids=[told[:8] for _, told in CASES])
@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_boxes_that_are_lost_are_told(more, told, target, tmp_path):
    assert NOTE.format(told) in copied(with_boxes(tmp_path / "in.mp4", **more), tmp_path / f"out.{target}", LOSSLESS)


@pytest.mark.parametrize("more", [{part: box(b"free", bytes(99)) for part in ("moov", "trak", "top")}, {"top": bytes(3000)}])
def test_zeros_are_no_loss(more, tmp_path):
    assert copied(with_boxes(tmp_path / "in.mp4", **more), tmp_path / "out.mp4", LOSSLESS) == []


def test_what_ffmpeg_reads_and_structure_are_not_told(tmp_path):
    metadata = {"title": "t", "comment": "c", "date": "2020", "track": "3/12"}
    for suffix in ("mp4", "mov"):
        source = Clip(times=[0, 3000, 6000], audio=["aac"], metadata=metadata, chapters=[(0, 100, "one")])
        source.write(tmp_path / f"in.{suffix}")
        notes = copied(tmp_path / f"in.{suffix}", tmp_path / "out.mp4", LOSSLESS)
        assert not [note for note in notes if "boxes" in note]


@pytest.mark.parametrize(("rate", "told"), [(0x8000, True), (0x10000, False)])
def test_a_piece_that_is_played_slower_is_told(rate, told, tmp_path):
    source = with_boxes(tmp_path / "in.mp4")
    data = source.read_bytes()
    at = data.index(b"elst") + 12  # behind version and count
    length, place, _ = struct.unpack_from(">IiI", data, at)
    source.write_bytes(data[:at] + struct.pack(">IiI", length, place, rate) + data[at + 12 :])
    assert (NOTE.format("elst with a rate of 0.5") in copied(source, tmp_path / "out.mp4", LOSSLESS)) == told


def test_a_box_without_an_end_ends_the_search(tmp_path):
    for size in (b"\0\0\0\4", b"\x7f\0\0\0"):
        path = tmp_path / "in.mp4"
        path.write_bytes(box(b"ftyp", b"isom") + box(b"moov", size + b"CAME") + size + b"abcd")
        assert unread_boxes_of(path, ()).keys() == {"8 bytes behind the last"}


def test_another_name_of_a_track_is_told(tmp_path):
    """MP4 has one name of a track, where the source has two."""
    names = box(b"udta", box(b"name", b"Front camera") + text(b"\xa9nam", b"Front"))
    source = with_boxes(tmp_path / "in.mp4", trak=names)
    with VideoReader(source) as reader:
        assert {"Front camera", "Front"} <= set(reader.stream.metadata.values())
    (note,) = [note for note in copied(source, tmp_path / "out.mp4", LOSSLESS) if "said of the streams" in note]
    assert note == "name of video stream 0 (said of the streams): not in the output as it was"


def test_the_places_of_ambisonic_channels_are_found(tmp_path):
    content = bytes(8) + box(b"mp4a", bytes(28) + box(b"SA3D", bytes(28)))
    for kind in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        content = box(kind, content)
    (tmp_path / "in.mp4").write_bytes(content)
    assert list(unread_boxes_of(tmp_path / "in.mp4", ())) == ["SA3D"]


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (20, struct.pack(">I", 0x8000), "mvhd with a rate of 0.5"),
        (24, b"\0\x40", "mvhd with a volume of 0.25"),
        (80, struct.pack(">I", 7), "mvhd with a poster, preview or selection"),
    ],
)
def test_what_players_are_to_do_with_a_whole_movie(place, value, told, tmp_path):
    source = with_boxes(tmp_path / "in.mov")
    data = bytearray(source.read_bytes())
    at = data.index(b"mvhd") + 4 + place
    data[at : at + len(value)] = value
    source.write_bytes(bytes(data))
    assert copied(source, tmp_path / "out.mov") == [NOTE.format(told)]


@pytest.mark.parametrize(
    ("language", "told"), [("pt-BR", True), ("zh-Hans", True), ("eng", True), ("nob", False), ("no", False), ("", False)]
)
def test_a_language_that_three_letters_do_not_tell(language, told, tmp_path):
    source = tmp_path / "in.mp4"
    data = Clip(times=[0, 3000, 6000]).write(source).read_bytes()  # of which the three letters are nob
    elng = box(b"elng", FULL + language.encode() + b"\0")

    def longer(whole):
        kind = whole[4:8]
        if kind in (b"moov", b"trak"):
            return box(kind, b"".join(longer(inner) for _, inner in boxes(whole)))
        return box(kind, whole[8:] + elng) if kind == b"mdia" else whole

    at = data.index(b"moov") - 4
    source.write_bytes(data[:at] + longer(data[at:]))
    assert copied(source, tmp_path / "out.mp4") == [NOTE.format(f"elng (the language {language})")] * told
