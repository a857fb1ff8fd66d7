"""Pictures that are repeated by a packet without a byte, as Theora and capture programs have it: not the end of a video."""

from fractions import Fraction

import av
import pytest
from test_field_streams import FFV1, copied, times
from video_clips import Clip, read, same

from runtime.encoder_options import EncoderOptions
from runtime.video import VideoReader
from runtime.video.look_ahead import look_ahead

MILLISECOND = Fraction(1, 1000)
REPEATS = {3, 4, 9}  # of ten pictures


def with_repeats(target, codec="ffv1"):
    pixel_format, alone = ("yuvj420p" if codec == "mjpeg" else "yuv420p"), {"g": "1"}
    clip = Clip(codec, pixel_format, times=list(range(0, 400, 40)), time_base=MILLISECOND, options=alone)
    whole = clip.write(target.with_name("whole.mkv"))
    with av.open(str(whole)) as before, av.open(str(target), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(before.demux(video=0)):
            if not packet.size:
                continue
            sent = av.Packet() if number in REPEATS else packet
            sent.time_base, sent.pts, sent.dts, sent.duration = packet.time_base, packet.pts, packet.dts, packet.duration
            sent.stream = stream
            after.mux(sent)
    return target


@pytest.mark.parametrize("codec", ["ffv1", "mjpeg"])
def test_a_packet_without_a_byte_repeats_a_picture(codec, tmp_path):
    source = with_repeats(tmp_path / "in.nut", codec)
    with av.open(str(source)) as container:
        assert sum(not packet.size and packet.pts is not None for packet in container.demux()) == len(REPEATS)
    with VideoReader(source) as reader:
        look_ahead(reader)
        frames = [(frame.pts * reader.info.time_base, frame.duration * reader.info.time_base) for frame in reader]
    steps = [1, 1, 3, 1, 1, 1, 2]
    assert [int(start * 25) for start, _ in frames] == [0, 1, 2, 5, 6, 7, 8]
    assert [float(length * 25) for _, length in frames] == pytest.approx(steps)
    assert reader.notes == []


def test_repeats_are_kept_by_times(tmp_path):
    source = with_repeats(tmp_path / "in.nut")
    assert copied(source, tmp_path / "out.mkv", FFV1) == []
    after, whole = read(tmp_path / "out.mkv"), read(tmp_path / "whole.mkv")
    shown = [number for number in range(10) if number not in REPEATS]
    assert after.times == [Fraction(number, 25) for number in shown]
    assert same(after.pictures, [whole.pictures[number] for number in shown])


def test_an_output_that_counts_its_frames_says_that_repeats_are_lost(tmp_path):
    source = with_repeats(tmp_path / "in.nut")
    notes = copied(source, tmp_path / "out.y4m", EncoderOptions("wrapped_avframe", format="yuv4mpegpipe"))
    assert notes == ["the times of the frames are not in the output: .y4m has one rate, 25 per second"]
    assert len(times(tmp_path / "out.y4m")[0]) == 7
