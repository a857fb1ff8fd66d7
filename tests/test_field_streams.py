"""Streams as recorders, cutters and other writers leave them: alpha beside the picture, doubtful times, joints."""

from fractions import Fraction

import av
import pytest
from video_clips import VARIABLE, Clip, read, same

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.video import VideoReader, VideoWriter
from runtime.video.reader import OTHER_LAYERS

LOSSLESS = EncoderOptions(options={"qp": "0", "preset": "ultrafast"})
FFV1 = EncoderOptions("ffv1")
RATE = Fraction(1, 25)


def copied(source, target, encoder=LOSSLESS, limit=None):
    with VideoReader(source, limit) as reader, VideoWriter(target, reader, encoder) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    return [*reader.notes, *writer.notes]


def times(path):
    with VideoReader(path) as reader:
        return [frame.pts for frame in reader], reader.notes


def remuxed(source, target, change, **options):
    """The same packets, each changed by its number."""
    with av.open(str(source)) as before, av.open(str(target), "w", **options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(before.demux(video=0)):
            if packet.size:
                packet.stream = stream
                change(number, packet)
                after.mux(packet)
    return target


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_alpha_of_webm_is_kept_or_refused(codec, tmp_path):
    options = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
    clip = Clip(codec, "yuva420p", times=list(range(0, 200, 40)), time_base=Fraction(1, 1000), options=options)
    source = clip.write(tmp_path / "in.webm")
    with pytest.raises(InputError, match=r"libx264 does not take yuva420p.*-c ffv1"):
        copied(source, tmp_path / "out.mp4")
    copied(source, tmp_path / "out.mkv", FFV1)
    after = read(tmp_path / "out.mkv")
    assert (after.pixel_format, len(after.pictures)) == ("yuva420p", 5)
    with VideoReader(source) as reader:
        assert same(after.chroma, [list(frame.chroma) for frame in reader])


@pytest.mark.parametrize(
    ("codec", "suffix", "layer"),
    [
        *(("libx265", suffix, b"\x02\x09alpha") for suffix in (".hevc", ".mp4")),  # a slice of layer 1
        *(("libx264", suffix, b"\x74\x40\x01view") for suffix in (".h264", ".mp4", ".mkv")),  # of another view
        ("libx264", ".mp4", b"\x13alpha"),  # of an auxiliary picture
    ],
)
def test_other_layers_of_a_picture_are_noted(codec, suffix, layer, tmp_path):
    options = {"preset": "ultrafast", "bf": "0"}
    if codec == "libx265":
        options = {"preset": "ultrafast", "x265-params": "log-level=error:bframes=0"}
    plain = Clip(codec, times=VARIABLE[:3], options=options).write(tmp_path / "plain.mp4")
    with av.open(str(plain)) as before, av.open(str(tmp_path / f"in{suffix}"), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size:
                more = av.Packet(bytes(packet) + len(layer).to_bytes(4, "big") + layer)
                more.pts, more.dts, more.time_base, more.stream = packet.pts, packet.dts, packet.time_base, stream
                more.is_keyframe = packet.is_keyframe
                after.mux(more)
    for path, layers in ((plain, False), (tmp_path / f"in{suffix}", True)):
        with VideoReader(path) as reader:
            assert len(list(reader)) == 3
            assert [note for note in reader.notes if "layers" in note] == [OTHER_LAYERS] * layers


def test_alpha_that_no_decoder_sees_is_refused(tmp_path, monkeypatch):
    options = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
    clip = Clip("libvpx", "yuva420p", times=[0, 40], time_base=Fraction(1, 1000), options=options)
    monkeypatch.setattr("runtime.video.alpha.SEEING", {})  # as with an FFmpeg that lacks them
    with pytest.raises(VideoError, match=r"has transparency, which the decoder vp8 does not see.*ffmpeg -i"):
        VideoReader(clip.write(tmp_path / "in.webm"))


def test_a_tag_of_alpha_without_any_is_nothing(tmp_path):
    """FFmpeg copies it to outputs that have none."""
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        stream.metadata["alpha_mode"] = "1"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")) + stream.encode(None))
    assert times(tmp_path / "in.mkv") == ([0], [])


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_b_frames_in_avi_come_in_the_order_of_decoding_times(codec, tmp_path):
    options = {"bf": "3", "b_strategy": "0", "crf": "20"} if codec == "libx264" else {"bf": "2"}
    source = Clip(codec, times=list(range(20)), time_base=RATE, options=options, moving=True).write(tmp_path / "in.avi")
    shown, notes = times(source)
    assert (shown, notes) == (list(range(20)), [])
    copied(source, tmp_path / "out.mkv")
    after = read(tmp_path / "out.mkv")
    assert same(after.pictures, read(source).pictures)
    assert after.times == [Fraction(number, 25) for number in range(20)]


def moved_back(source, target, by):
    """Frame 5 earlier by so many frames, which decoding times far enough before allow."""

    def change(number, packet):
        packet.dts -= 40 * packet.duration
        packet.pts -= by * packet.duration if number == 5 else 0

    return remuxed(source, target, change)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".nut"])
@pytest.mark.parametrize("back", [1, 2])
def test_two_frames_with_one_time_are_a_tick_apart(suffix, back, tmp_path):
    clip = Clip(times=list(range(0, 400, 40)), time_base=Fraction(1, 1000), options={"bf": "0"})
    source = moved_back(clip.write(tmp_path / "whole.mp4"), tmp_path / f"in{suffix}", back)
    with av.open(str(source)) as container:
        found = [frame.pts for frame in container.decode(video=0)]
    assert found[5] == found[5 - back]
    shown, notes = times(source)
    assert shown == [*found[:5], found[4] + 1, *found[6:]]
    assert notes == ["1 frames were at the time of another, or before it, and are shown a tick later"]


def test_times_that_go_back_far_are_refused(tmp_path):
    clip = Clip(times=list(range(0, 4000, 400)), time_base=Fraction(1, 1000), options={"bf": "0"})
    source = moved_back(clip.write(tmp_path / "whole.mp4"), tmp_path / "in.mp4", 4)
    with pytest.raises(VideoError, match=r"frame 5 is shown 1\.20 s before the one it follows, expected times that rise: cut it"):
        times(source)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_joined_transport_streams_are_read_through(codec, tmp_path):
    parts = []
    for number in range(3):
        start = 100 + 20 * number  # where no time of decoding is negative, which would be moved
        clip = Clip(codec, times=list(range(start, start + 20)), time_base=RATE, options={"g": "10"}, moving=True)
        parts.append(clip.write(tmp_path / f"{number}.ts").read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    shown, notes = times(tmp_path / "in.ts")
    assert len(shown) == 60
    assert notes == ["2 times the counter of packets jumps before a keyframe: streams were joined there, or a little was lost"]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_packets_lost_on_the_air_are_no_joint(codec, tmp_path):
    whole = Clip(codec, times=list(range(60)), time_base=RATE, options={"g": "20"}).write(tmp_path / "in.ts")
    data = bytearray(whole.read_bytes())
    del data[188 * 150 : 188 * 153]
    whole.write_bytes(data)
    with pytest.raises(VideoError, match="broken or cut off at frame"):
        times(whole)


def test_a_stream_that_starts_between_keyframes_says_what_it_lost(tmp_path):
    whole = Clip(times=list(range(60)), time_base=RATE, options={"g": "20"}).write(tmp_path / "whole.ts")
    (tmp_path / "in.ts").write_bytes(whole.read_bytes()[188 * 60 :])
    shown, notes = times(tmp_path / "in.ts")
    assert len(shown) < 55
    assert [note for note in notes if "coded frames gave no picture, as after a cut that was not at a keyframe" in note]


def test_a_limit_keeps_what_lies_behind_its_frames_in_the_file(tmp_path):
    """As gpmd does in the files of action cameras: a packet of the first second comes after the pictures of that second."""
    clip = Clip("ffv1", times=list(range(0, 2000, 40)), time_base=Fraction(1, 1000)).write(tmp_path / "video.mkv")
    with (
        av.open(str(clip)) as before,
        av.open(str(tmp_path / "in.mkv"), "w", container_options={"max_interleave_delta": "1"}) as after,
    ):
        video = after.add_stream_from_template(before.streams.video[0])
        lines = after.add_mux_stream("subrip")
        for number, packet in enumerate(packet for packet in before.demux(video=0) if packet.size):
            packet.stream = video
            after.mux(packet)
            if number == 24:
                line = av.Packet(b"of the first second")
                line.stream, line.time_base, line.pts, line.dts, line.duration = lines, Fraction(1, 1000), 0, 0, 900
                after.mux(line)
    copied(tmp_path / "in.mkv", tmp_path / "out.mkv", FFV1, limit=5)
    assert [payload for payload, _ in read(tmp_path / "out.mkv").packets["subtitle1"]] == [b"of the first second"]
