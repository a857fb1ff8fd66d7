"""What coded pictures say in places that FFmpeg reads over is told, and what it hands on, or needs for decoding, is not."""

from fractions import Fraction

import av
import pytest
from video_clips import Clip

from runtime.encoder_options import EncoderOptions
from runtime.files.time_ranges import TimeRange
from runtime.video import VideoReader, VideoWriter
from runtime.video.picture_writer import PictureWriter
from runtime.video.splice import open_splicer

TIMES = {"times": list(range(12)), "time_base": Fraction(1, 25)}
OPTIONS = {
    "libx264": {"preset": "ultrafast", "bf": "0", "g": "4", "crf": "20"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=error:bframes=0"},
    "libsvtav1": {"preset": "12", "svtav1-params": "pred-struct=1:lp=1"},
    "mpeg2video": {"bf": "0"},
}
HEADS = {"libx264": b"\x06", "libx265": b"\x4e\x01"}
BAR_DATA = (4, b"\xb5\x00\x31GA94\x06" + bytes(6))
CAPTIONS = (4, b"\xb5\x00\x31GA94\x03\xc1\xff\xfc\x94\x20\xff")
VIVID, LIGHT = (4, bytes.fromhex("2600040005") + b"\1" + bytes(40)), (144, bytes.fromhex("03e80190"))
SPHERE, RECOVERY, MAKERS = (150, b"\x80\0"), (6, b"\x84"), (4, b"\xb5\x12\x34maker")


def sei(codec, *messages):
    """A unit with these messages, (payloadType, content)."""
    content = b"".join(bytes([number, len(text)]) + text for number, text in messages) + b"\x80"
    return HEADS[codec] + content.replace(bytes(3), b"\0\0\3\0")


def clip(codec, path):
    return Clip(codec, options=OPTIONS[codec], **TIMES).write(path)


def pictures_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def with_units(codec, units, path, only=range(12)):
    """A clip, with these in front of the pictures of the given numbers."""
    with av.open(str(clip(codec, path.with_name("plain.mp4")))) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(before.demux(video=0)):
            if packet.size:
                more = av.Packet((units if number in only else b"") + bytes(packet))
                more.pts, more.dts, more.time_base, more.stream = packet.pts, packet.dts, packet.time_base, stream
                more.is_keyframe = packet.is_keyframe
                after.mux(more)
    return path


def sized(unit):
    return len(unit).to_bytes(4, "big") + unit


def rewrite(source, target, encoder=None, part=None):
    encoder = encoder or EncoderOptions(options=OPTIONS["libx264"])
    with VideoReader(source, part=part) as reader, VideoWriter(target, reader, encoder) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    return writer.notes


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("libx264", "150 (equirectangular projection), T.35 (HDR Vivid), T.35 (b512346d616b6572), T.35 (bar data)"),
        ("libx265", "150 (equirectangular projection), T.35 (b512346d616b6572), T.35 (bar data)"),
    ],
)
def test_messages_of_h264_and_hevc(codec, expected, suffix, tmp_path):
    unit = sei(codec, BAR_DATA, CAPTIONS, VIVID, LIGHT, SPHERE, RECOVERY, MAKERS)
    source = with_units(codec, sized(unit), tmp_path / f"in{suffix}")
    with VideoReader(source) as reader:
        list(reader)
        assert {"A53_CC", "CONTENT_LIGHT_LEVEL"} <= reader.side_data.keys()  # which FFmpeg hands on
        assert ("DYNAMIC_HDR_VIVID" in reader.side_data) == ("Vivid" not in expected)
        assert ", ".join(sorted(reader.messages)) == expected
    told = f"the messages of the pictures {expected} (which FFmpeg does not read): not in the output as it was"
    assert told in rewrite(source, tmp_path / "out.mp4")
    assert told in rewrite(source, tmp_path / "out.mkv", EncoderOptions("ffv1"))


def test_what_encoders_write_of_themselves_is_no_message(tmp_path):
    for codec in OPTIONS:
        with VideoReader(clip(codec, tmp_path / "in.mkv")) as reader:
            assert len(list(reader)) == 12
            assert reader.messages == set(), codec


def test_units_of_no_known_kind(tmp_path):
    source = with_units("libx264", sized(b"\x1emaker"), tmp_path / "in.mp4")
    assert rewrite(source, tmp_path / "out.mp4") == [
        "the messages of the pictures unit 30 (which FFmpeg does not read): not in the output as it was"
    ]


def test_messages_that_come_late_or_outside_the_part(tmp_path):
    source = with_units("libx264", sized(sei("libx264", SPHERE)), tmp_path / "in.mp4", only=[9])
    assert len(rewrite(source, tmp_path / "all.mp4")) == 1
    assert len(rewrite(source, tmp_path / "end.mp4", part=TimeRange(Fraction(32, 100)))) == 1
    with VideoReader(source, part=TimeRange(Fraction(42, 100))) as reader:
        list(reader)
        assert reader.messages == set()


@pytest.mark.parametrize("broken", [b"\x06", b"\x06\xff", b"\x06\xff\xff\x80", b"\x06\x96\xff\x01", b"\x06\x96"])
def test_broken_messages_are_read_without_an_error(broken, tmp_path):
    with VideoReader(with_units("libx264", sized(broken), tmp_path / "in.mp4")) as reader:
        assert len(list(reader)) == 12
        assert reader.messages == set()


def obu(kind, content):
    return bytes([kind << 3 | 2, len(content)]) + content


def test_metadata_of_av1(tmp_path):
    timecode, captions, makers = b"\5\0\0\1", b"\4" + CAPTIONS[1] + b"\x80", b"\4" + MAKERS[1] + b"\x80"
    units = b"".join(obu(5, content) for content in (timecode, captions, makers, b"\x1fours\x80"))
    source, frame = tmp_path / "in.obu", b"\x32"  # the head of a unit with a picture
    pictures = pictures_of(clip("libsvtav1", tmp_path / "plain.obu"))
    source.write_bytes(b"".join(picture.replace(frame, units + frame, 1) for picture in pictures))
    with VideoReader(source) as reader:
        list(reader)
        assert "A53_CC" in reader.side_data
        assert reader.messages == {"5 (timecode)", "31 (unnamed)", "T.35 (b512346d616b6572)"}


def test_user_data_and_extensions_of_mpeg2(tmp_path):
    pictures = pictures_of(clip("mpeg2video", tmp_path / "plain.mpg"))
    first_slice = b"\0\0\1\1"
    more = b"\0\0\1\xb2GA94\6bars\0\0\1\xb2GA94\3\xc1\xff\xfc\x94\x20\xff\0\0\1\xb5\x41\0\0\0\0\0\0\0\0\0"
    changed = b"".join(picture.replace(first_slice, more + first_slice, 1) for picture in pictures)
    (tmp_path / "in.m2v").write_bytes(changed)
    with VideoReader(tmp_path / "in.m2v") as reader:
        assert len(list(reader)) == 12
        assert "A53_CC" in reader.side_data
        assert reader.messages == {"user data 4741393406626172", "extension copyright"}


def test_pictures_and_copies_of_pictures(tmp_path):
    source = with_units("libx264", sized(sei("libx264", SPHERE)), tmp_path / "in.mp4")
    with VideoReader(source) as reader, PictureWriter(tmp_path / "pictures", reader) as pictures:
        for frame in reader:
            pictures.write(frame, frame.luma)
    assert any("equirectangular" in note for note in pictures.notes)
    ranges, encoder = [TimeRange(Fraction(24, 100))], EncoderOptions(options=OPTIONS["libx264"])
    with VideoReader(source) as reader, open_splicer(tmp_path / "out.mp4", reader, encoder, ranges) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert "4 frames were copied" in " ".join(writer.notes)
    assert any("150 (equirectangular projection): in the pictures alone that were copied" in note for note in writer.notes)


def test_pictures_with_others_beside_them_are_not_copied(tmp_path):
    """Where some are encoded and some copied, the others would be there for some alone."""
    source = with_units("libx264", sized(b"\x74\x40\x01view"), tmp_path / "in.mp4")
    ranges, encoder = [TimeRange(Fraction(24, 100))], EncoderOptions(options=OPTIONS["libx264"])
    with VideoReader(source) as reader, open_splicer(tmp_path / "out.mp4", reader, encoder, ranges) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert any("encoded anew" in note and "others beside them" in note for note in writer.notes)
