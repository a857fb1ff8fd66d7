"""User data of the pictures of H.264, such as times of a camera: kept where the encoder can, or noted; signatures are neither."""

import re
from fractions import Fraction

import av
import pytest
from test_field_streams import FFV1, LOSSLESS, copied
from video_clips import Clip

from runtime.encoder_options import EncoderOptions
from runtime.video import VideoReader

IDR, SEI, AUD = 5, 6, 9  # kinds of units
OF_A_CAMERA = b"MISPmicrosectime" + b"\x7f" * 12
OF_X264 = bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef") + b"x264 - core 165"
KEPT = "SEI_UNREGISTERED (user data of the pictures: -c libx264 -e udu_sei=1 keeps it)"


def with_user_data(path, first, later):
    """H.264 with these, bytes, on its first picture and on all others (ISO/IEC 14496-10, 7.3.2.3 and D.1.7)."""
    clip = Clip(times=list(range(6)), time_base=Fraction(1, 25), options={"bf": "0", "qp": "0"}).write(path.with_name("clip.ts"))
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(before.demux(video=0)):
            if packet.size:
                units = [unit for unit in re.split(b"\0*\0\0\1", bytes(packet)) if unit and unit[0] & 31 not in (AUD, SEI)]
                own = [
                    SEI.to_bytes(1, "big") + b"\x05" + bytes([len(data)]) + data + b"\x80" for data in (later if number else first)
                ]
                picture = next(place for place, unit in enumerate(units) if unit[0] & 31 <= IDR)
                sent = av.Packet(b"".join(b"\0\0\0\1" + unit for unit in (*units[:picture], *own, *units[picture:])))
                sent.time_base, sent.pts, sent.dts = packet.time_base, packet.pts, packet.dts
                sent.duration, sent.is_keyframe, sent.stream = packet.duration, packet.is_keyframe, stream
                after.mux(sent)
    return path


def user_data(path):
    with av.open(str(path)) as container:
        found = [[bytes(data) for data in frame.side_data if data.type.name == "SEI_UNREGISTERED"] for frame in container.decode()]
    return [[data for data in each if not data.startswith(OF_X264[:16])] for each in found]


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.ts"])
def test_user_data_of_every_picture_is_kept(target, tmp_path):
    source = with_user_data(tmp_path / "in.ts", [OF_A_CAMERA], [OF_A_CAMERA])
    assert user_data(source) == [[OF_A_CAMERA]] * 6
    assert copied(source, tmp_path / target) == []
    assert user_data(tmp_path / target) == [[OF_A_CAMERA]] * 6


@pytest.mark.parametrize("encoder", [FFV1, EncoderOptions("libx265"), EncoderOptions(options={"qp": "0", "udu_sei": "0"})])
def test_user_data_that_an_encoder_does_not_keep_is_noted(encoder, tmp_path):
    source = with_user_data(tmp_path / "in.ts", [OF_A_CAMERA], [OF_A_CAMERA])
    notes = copied(source, tmp_path / "out.mkv", encoder)
    assert [note for note in notes if note == f"side data is not in the output: {encoder.codec} in .mkv lost {KEPT}"]


def test_user_data_beside_a_signature_is_kept_on_request(tmp_path):
    """The signature would be kept too, of another x264 than the one that made the output."""
    source = with_user_data(tmp_path / "in.ts", [OF_X264, OF_A_CAMERA], [OF_A_CAMERA])
    assert copied(source, tmp_path / "noted.mp4") == [f"side data is not in the output: libx264 in .mp4 lost {KEPT}"]
    assert copied(source, tmp_path / "out.mp4", EncoderOptions(options={"qp": "0", "udu_sei": "1"})) == []
    assert user_data(tmp_path / "out.mp4") == [[OF_A_CAMERA]] * 6


def test_user_data_that_begins_later_is_noted(tmp_path):
    source = with_user_data(tmp_path / "in.ts", [], [OF_A_CAMERA])
    assert copied(source, tmp_path / "out.mp4") == [f"side data {KEPT}: not in the output as it was"]


def test_a_signature_is_no_user_data(tmp_path):
    source = with_user_data(tmp_path / "in.ts", [OF_X264], [])
    assert copied(source, tmp_path / "out.mkv", FFV1) == []
    with VideoReader(source) as reader:
        assert reader.info.signed
        assert not reader.info.side_data
    assert copied(source, tmp_path / "out.mp4", LOSSLESS) == []
