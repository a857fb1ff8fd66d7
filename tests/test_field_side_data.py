"""Side data as cameras leave it in files: types that PyAV does not name, and the orientation that EXIF says."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from runtime.encoder_options import EncoderOptions
from runtime.video import VideoReader, VideoWriter
from runtime.video.picture_writer import PictureWriter

RIGHT_TOP = 6  # EXIF's orientation of a phone held upright


def jpeg(orientation=RIGHT_TOP):
    frame = av.VideoFrame(64, 48, "yuvj420p")
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 100
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 48, "yuvj420p", Fraction(1, 25)
    data = b"".join(bytes(packet) for packet in context.encode(frame) + context.encode(None))
    body = b"Exif\0\0II*\0" + struct.pack("<IHHHIHxxI", 8, 1, 0x112, 3, 1, orientation, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def in_container(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
        for number in range(3):
            packet = av.Packet(jpeg())
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), number, number
            packet.is_keyframe = True
            container.mux(packet)
    return path


def in_folder(path):
    path.mkdir()
    for number in range(3):
        (path / f"{number}.jpg").write_bytes(jpeg())
    return path


@pytest.mark.parametrize(("name", "make"), [("in", in_folder), ("in.avi", in_container), ("in.mov", in_container)])
def test_exif_of_pictures_is_read_past_and_its_orientation_kept(name, make, tmp_path):
    source, options = make(tmp_path / name), EncoderOptions(options={"qp": "0"})
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader, options) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert (reader.info.rotation, writer.frames) == (-90, 3)
    assert "EXIF" in reader.info.side_data
    assert [note for note in writer.notes if "EXIF" in note]
    with VideoReader(tmp_path / "out.mp4") as after:
        assert after.info.display_matrix == reader.info.display_matrix


def test_a_type_of_side_data_that_nobody_names_has_a_number():
    from av.sidedata.sidedata import Type

    assert (Type(999).name, Type(999).value, Type(999)) == ("type 999", 999, Type(999))
    assert Type(6) is Type.DISPLAYMATRIX


def test_pictures_that_cannot_say_their_rotation_are_noted(tmp_path):
    with VideoReader(in_folder(tmp_path / "in")) as reader, PictureWriter(tmp_path / "out", reader) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert [note for note in writer.notes if "the rotation by -90 degrees is not in the output" in note]
