"""Immersive sound (IAMF), which FFmpeg reads as a group of streams, is not copied as loose ones."""

import struct
from fractions import Fraction

import av
import pytest
from test_hidden_sound import box, boxes

from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.video import VideoReader, VideoWriter

FAST = {"preset": "ultrafast", "bf": "0"}
DESCRIPTORS = bytes.fromhex(  # of one element of two channels in Opus, whose substream is number 9, and of a mix
    "f80669616d6600000014004f707573c007fffc010201380000bb80000000080a0100000109002010010110230301656e004d00010101530000006480f702"
    "8000006480f70280000001800000000000"
)
ENTRY = box(
    b"iamf", bytes(7) + b"\1" + bytes(8) + b"\0\0\0\x10" + bytes(8) + box(b"iacb", b"\1" + bytes([len(DESCRIPTORS)]) + DESCRIPTORS)
)
SUBSTREAM_9 = 0x78  # the head of a unit with its sound


def with_iamf(path, plain_sound):
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options=FAST)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        plain = container.add_stream("aac", rate=48000) if plain_sound else None
        sound = container.add_stream("libopus", rate=48000)
        for number in range(10):
            picture = av.VideoFrame(64, 48, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for stream in filter(None, (plain, sound)):
            silence = av.AudioFrame("fltp" if stream is plain else "s16", "stereo", 960)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.sample_rate = 48000
            for number in range(20):
                silence.pts = 960 * number
                for packet in stream.encode(silence):
                    if stream is sound:
                        content = bytes(packet)
                        unit = av.Packet(bytes([SUBSTREAM_9, len(content)]) + content)
                        unit.pts, unit.dts, unit.duration = packet.pts, packet.dts, packet.duration
                        unit.time_base, unit.stream = packet.time_base, sound
                        packet = unit
                    container.mux(packet)
    data = path.read_bytes()
    at = data.index(b"moov") - 4
    path.write_bytes(data[:at] + changed(data[at:]))
    return path


def changed(whole):
    """A box, in which the description of Opus is made one of IAMF."""
    (kind,) = struct.unpack_from("4s", whole, 4)
    if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        return box(kind, b"".join(changed(inner) for _, inner in boxes(whole)))
    return box(kind, whole[8:16] + ENTRY) if kind == b"stsd" and b"Opus" in whole else whole


def rewrite(source, target, **options):
    encoder = EncoderOptions(options=FAST, **options)
    with VideoReader(source) as reader, VideoWriter(target, reader, encoder) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    with av.open(str(target)) as container:
        return [stream.type for stream in container.streams], writer.notes


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("plain_sound", [False, True])
def test_parts_of_immersive_sound_are_refused_or_left_out(plain_sound, suffix, tmp_path):
    source, target = with_iamf(tmp_path / "in.mp4", plain_sound), tmp_path / f"out{suffix}"
    with pytest.raises(VideoError, match=r"stream [12] \(opus\) is a part of immersive sound \(IAMF\).*--drop-unsupported"):
        rewrite(source, target)
    kinds, notes = rewrite(source, target, drop_unsupported=True)
    assert kinds == ["video"] + ["audio"] * plain_sound
    assert [note for note in notes if "audio stream" in note] == [
        f"audio stream {1 + plain_sound} (opus) is not in the output: "
        "it is a part of immersive sound (IAMF), which PyAV cannot write"
    ]
