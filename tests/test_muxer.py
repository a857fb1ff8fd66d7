"""What an output says of itself: rate, aspect, tags, start; and packets that muxers would refuse."""

from fractions import Fraction

import av
import numpy as np
import pytest
from video_clips import Clip, read

from runtime.encoder_options import EncoderOptions
from runtime.errors import DeployError, InputError
from runtime.video import VideoReader, VideoWriter
from runtime.video.packet_times import FrameTimes, RisingTimes
from runtime.video.segments import ResumableWriter

STEADY = [number * 512 for number in range(30)]  # 25 frames per second of 12800 ticks
CLOCK = Fraction(1, 12800)
NO_B = {"bf": "0", "preset": "ultrafast"}
X265 = EncoderOptions("libx265", options={"preset": "ultrafast", "x265-params": "log-level=none"})


def steady(path, **more):
    return Clip(times=STEADY, time_base=CLOCK, aspect=Fraction(4, 3), options=NO_B, **more).write(path)


def rewrite(source, target, encoder=None, resumed=False):
    encoder = encoder or EncoderOptions(options=NO_B)
    with VideoReader(source) as reader:
        kind = ResumableWriter if resumed else VideoWriter
        with kind(target, reader, encoder) as writer:
            if resumed:
                writer.begin({}, (8, 8))
            for frame in reader:
                writer.write(frame, frame.luma)
    return writer.notes


@pytest.mark.parametrize(
    ("suffix", "encoder"),
    [
        (".mp4", None),
        (".mov", None),
        (".mkv", None),
        (".avi", None),
        (".flv", None),
        (".ts", None),
        (".nut", None),
        (".mpg", EncoderOptions("mpeg2video")),
        (".mkv", EncoderOptions("mpeg2video", options={"bf": "2"})),
        (".ts", EncoderOptions("mpeg2video")),
        (".mp4", EncoderOptions("mpeg1video")),
        (".avi", EncoderOptions("mpeg4")),
        (".mp4", EncoderOptions("mpeg4", options={"bf": "2"})),
    ],
)
def test_the_rate_and_aspect_of_an_output_are_the_sources(suffix, encoder, tmp_path):
    output = tmp_path / f"out{suffix}"
    assert rewrite(steady(tmp_path / "in.mp4"), output, encoder) == []
    with VideoReader(output) as reader:
        frames = list(reader)
        assert (reader.stream.guessed_rate, reader.info.frame_rate) == (25, 25)
        assert reader.info.sample_aspect_ratio == Fraction(4, 3)
    assert len(frames) == 30
    seconds = [float((frame.pts - frames[0].pts) * reader.info.time_base) for frame in frames]
    assert seconds == pytest.approx([number / 25 for number in range(30)], abs=0.0011)  # Matroska's and FLV's milliseconds


def test_y4m_has_the_rate_and_aspect_of_the_source(tmp_path):
    """Through NUT too, whose clock is another."""
    raw = EncoderOptions("wrapped_avframe", format="yuv4mpegpipe")
    rewrite(steady(tmp_path / "in.mp4"), tmp_path / "out.y4m", raw)
    assert (tmp_path / "out.y4m").read_bytes().startswith(b"YUV4MPEG2 W64 H48 F25:1 Ip A4:3 ")
    rewrite(tmp_path / "in.mp4", tmp_path / "between.nut")
    rewrite(tmp_path / "between.nut", tmp_path / "out.y4m", raw)
    assert (tmp_path / "out.y4m").read_bytes().startswith(b"YUV4MPEG2 W64 H48 F25:1 Ip A4:3 ")
    with VideoReader(tmp_path / "out.y4m") as reader:
        assert (reader.info.frame_rate, len(list(reader))) == (25, 30)


def test_uneven_times_that_y4m_cannot_hold_are_noted(tmp_path):
    clip, raw = Clip().write(tmp_path / "in.mp4"), EncoderOptions("wrapped_avframe", format="yuv4mpegpipe")
    notes = rewrite(clip, tmp_path / "out.y4m", raw)
    with VideoReader(clip) as reader:
        rate = float(reader.info.frame_rate)
    assert f"the times of the frames are not in the output: .y4m has one rate, {rate:.5g} per second" in notes


def test_uneven_times_survive_an_encoder_that_counts_frames(tmp_path):
    clip = Clip().write(tmp_path / "in.mp4")
    rewrite(clip, tmp_path / "out.mp4", EncoderOptions("mpeg2video", options={"bf": "2"}))
    assert read(tmp_path / "out.mp4").times == read(clip).times


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".ts", None), (".avi", None), (".flv", None), (".mp4", None), (".mpg", "mpeg2video"), (".avi", "mpeg4")]
)
def test_segments_are_joined_into_containers_without_a_place_for_headers(suffix, codec, tmp_path):
    output = tmp_path / f"out{suffix}"
    rewrite(steady(tmp_path / "in.mp4"), output, EncoderOptions(codec) if codec else None, resumed=True)
    with VideoReader(output) as reader:
        assert (reader.info.frame_rate, len(list(reader))) == (25, 30)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("resumed", [False, True])
def test_hevc_is_tagged_hvc1(suffix, resumed, tmp_path):
    source = steady(tmp_path / "in.mp4")
    tagged = EncoderOptions("libx265", options={**X265.options, "tag": "hev1"})
    for encoder, tag in ((X265, "hvc1"), (tagged, "hev1")):
        rewrite(source, tmp_path / f"out{suffix}", encoder, resumed)
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            assert container.streams.video[0].codec_context.codec_tag == tag
            assert sum(1 for _ in container.decode(video=0)) == 30


def test_a_tag_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="the tag is 'hvc', expected four letters"):
        rewrite(steady(tmp_path / "in.mp4"), tmp_path / "out.mp4", EncoderOptions(options={"tag": "hvc"}))


def with_sound(path, start=0, **more):
    """A second of pictures and sound, from `start` seconds on."""
    with av.open(str(path), "w", container_options=more) as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width, video.height = 64, 48
        sound = container.add_stream("aac", rate=48000, layout="stereo")
        packets = []
        for number in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 9 * number, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = number + round(start * 25), Fraction(1, 25)
            packets += video.encode(picture)
        for number in range(46):
            samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            samples.sample_rate, samples.pts = 48000, number * 1024 + round(start * 48000)
            packets += sound.encode(samples)
        packets += video.encode(None) + sound.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


LATE = [(".ts", 40000, ".mp4"), (".ts", 0, ".mkv"), (".mkv", 500, ".mov"), (".flv", 50, ".mkv"), (".mkv", 500, ".avi")]


@pytest.mark.parametrize(("suffix", "start", "into"), LATE)
@pytest.mark.parametrize("resumed", [False, True])
def test_a_late_start_does_not_become_blank_hours(suffix, start, into, resumed, tmp_path):
    """A transport stream begins at 1.4 s or anywhere else; MP4 would show nothing until then."""
    source, output = with_sound(tmp_path / f"in{suffix}", start), tmp_path / f"out{into}"
    rewrite(source, output, resumed=resumed)
    before, after = read(source), read(output)
    assert before.times[0] >= start
    assert 0 <= min(after.times) < 0.1
    with av.open(str(output)) as container:
        assert 0.9 < container.duration / 1e6 < 1.2
    (old,), (new,) = before.packets.values(), after.packets.values()
    assert len(old) == len(new)
    if into != ".avi":
        lead = [float(packets[0][1] - contents.times[0]) for packets, contents in ((old, before), (new, after))]
        assert lead[0] == pytest.approx(lead[1], abs=0.002)


@pytest.mark.parametrize("into", [".mp4", ".mkv", ".flv", ".nut", ".ts"])
def test_a_clock_that_starts_anew_is_no_start_before_zero(into, tmp_path):
    """That of a transport stream has 33 bits, for 26.5 hours; FFmpeg has what is before its end begin below 0."""
    source = with_sound(tmp_path / "in.ts", 2**33 / 90000 - 2)
    before = read(source)
    assert before.times[0] < 0
    notes = rewrite(source, tmp_path / f"out{into}")
    assert [note for note in notes if not note.startswith("the rate")] == []
    after = read(tmp_path / f"out{into}")
    assert len(after.times) == len(before.times)
    assert float(after.times[-1] - after.times[0]) == pytest.approx(float(before.times[-1] - before.times[0]), abs=0.002)
    assert abs(after.times[0] - (before.times[0] if into == ".ts" else 0)) < 0.1  # a transport stream's clock turns there too


def test_a_late_start_of_a_recorded_stream_does_not_become_blank_hours(tmp_path):
    """MP4 in fragments, as of DASH: each says when it is shown since the stream began."""
    source = with_sound(tmp_path / "in.mp4", movflags="frag_keyframe+empty_moov")
    data = source.read_bytes()
    pieces = data.split(b"tfdt")
    assert len(pieces) > 2
    for number, piece in enumerate(pieces[1:], 1):  # version 1, flags, and the time in 64 bits
        track = int.from_bytes(pieces[number - 1].rpartition(b"tfhd")[2][4:8], "big")
        scale = {1: 12800, 2: 48000}[track]
        time = int.from_bytes(piece[4:12], "big") + 40000 * scale
        pieces[number] = piece[:4] + time.to_bytes(8, "big") + piece[12:]
    source.write_bytes(b"tfdt".join(pieces))
    assert 40000 <= read(source).times[0] < 40001
    rewrite(source, tmp_path / "out.mp4")
    assert 0 <= read(tmp_path / "out.mp4").times[0] < 0.1


@pytest.mark.parametrize(("suffix", "into"), [(".ts", ".ts"), (".mkv", ".mkv"), (".mp4", ".mp4")])
def test_a_start_is_kept_where_it_is_told(suffix, into, tmp_path):
    source = with_sound(tmp_path / f"in{suffix}", 5)
    rewrite(source, tmp_path / f"out{into}")
    assert float(read(tmp_path / f"out{into}").times[0]) == pytest.approx(float(read(source).times[0]), abs=0.1)


def test_chapters_of_a_late_start_move_with_it(tmp_path):
    times = [10000 + number * 40 for number in range(10)]
    clip = Clip(times=times, time_base=Fraction(1, 1000), chapters=[(10000, 10200, "a"), (10200, 10400, "b")], options=NO_B)
    rewrite(clip.write(tmp_path / "in.mkv"), tmp_path / "out.mp4")
    found = read(tmp_path / "out.mp4")
    assert [(float(start), title["title"]) for start, _, title in found.chapters] == [(0, "a"), (pytest.approx(0.2), "b")]


def one_back(path):
    """An FLV of which a packet of sound is 60 ms earlier than it was, as capture devices write them."""
    data, at = bytearray(path.read_bytes()), 13
    while at < len(data):
        kind, size, time = data[at], int.from_bytes(data[at + 1 : at + 4], "big"), int.from_bytes(data[at + 4 : at + 7], "big")
        if kind == 8 and time > 400:
            data[at + 4 : at + 7] = (time - 60).to_bytes(3, "big")
            break
        at += 11 + size + 4
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv", ".nut"])
@pytest.mark.parametrize("resumed", [False, True])
def test_sound_out_of_order_is_moved_with_a_note(suffix, resumed, tmp_path):
    """As FFmpeg does, instead of ending the run after the work."""
    source = one_back(with_sound(tmp_path / "in.flv"))
    (note,) = rewrite(source, tmp_path / f"out{suffix}", resumed=resumed)
    assert note == "audio stream 1: 1 packet was out of order, and moved by up to 39 ms"
    (packets,), (before,) = (read(path).packets.values() for path in (tmp_path / f"out{suffix}", source))
    assert len(packets) == len(before)


def test_times_rise():
    times, seen = RisingTimes(strict=True), []
    for dts in (0, 10, 10, 5, 20):
        packet = av.Packet(b"x")
        packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 1000), dts, dts, 10
        times.settle(packet, Fraction(1, 2000))
        seen.append((packet.pts, packet.dts, packet.duration, packet.time_base))
    assert seen == [(time, time, 20, Fraction(1, 2000)) for time in (0, 20, 21, 22, 40)]
    assert times.told() == "2 packets were out of order, and moved by up to 6 ms"


def test_counted_frames_have_their_own_times():
    times = FrameTimes(Fraction(25))
    for pts, duration in ((100, 7), (107, 20), (127, 3)):
        times.add(pts, duration)
    found = []
    for pts, dts in ((0, -1), (2, 0), (1, 1)):
        packet = av.Packet(b"x")
        packet.pts, packet.dts = pts, dts
        times.put(packet, Fraction(1, 1000))
        found.append((packet.pts, packet.dts, packet.duration))
    assert found == [(100, 93, 7), (127, 100, 3), (107, 107, 20)]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("suffix", [".avi", ".wmv", ".asf"])
def test_without_presentation_times_there_are_no_b_frames(suffix, resumed, tmp_path):
    output = tmp_path / f"out{suffix}"
    assert rewrite(steady(tmp_path / "in.mp4"), output, EncoderOptions(), resumed) == []
    expected = [Fraction(number, 25) for number in range(30)]
    with av.open(str(output)) as container:
        assert [packet.dts * packet.time_base for packet in container.demux(video=0) if packet.size] == expected
    with av.open(str(output)) as container:
        shown = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert [time - shown[0] for time in shown][:-1] == expected[:-1]  # PyAV makes times up from the next packet's, if there is one


def test_b_frames_that_were_asked_for_in_avi_are_told(tmp_path):
    notes = rewrite(steady(tmp_path / "in.mp4"), tmp_path / "out.avi", EncoderOptions(options={"bf": "3", "b_strategy": "0"}))
    assert [note for note in notes if note.startswith("B-frames in .avi have no times there")]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_without_channels_is_refused(suffix, tmp_path):
    """As fuzzing damaged a file; FFmpeg reads it."""
    source = Clip("ffv1", audio=["pcm_s16le"]).write(tmp_path / "in.mkv")
    data = source.read_bytes()
    assert data.count(b"\x9f\x81\x02") == 1  # Matroska's Channels, 2
    source.write_bytes(data.replace(b"\x9f\x81\x02", b"\x9f\x81\x00"))
    with pytest.raises(DeployError, match="audio stream 1"):
        rewrite(source, tmp_path / f"out{suffix}", EncoderOptions())
    assert rewrite(source, tmp_path / f"silent{suffix}", EncoderOptions(leave_out=("audio",))) == []
