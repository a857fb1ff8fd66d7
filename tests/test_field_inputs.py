"""What is read: lists of other files only where asked, fragmented MP4 counted whole, pipes that were cut off."""

import io
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from test_pictures import save
from video_clips import Clip

from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.files.time_ranges import TimeRange
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader
from runtime.video.fragments import samples_in_fragments
from runtime.video.look_ahead import look_ahead
from runtime.video.pipe_end import NUT, WatchedPipe
from runtime.video.still_pictures import read_luma

ROOT = Path(__file__).resolve().parents[1]
RATE = Fraction(1, 25)
LISTS = {
    "concat": "ffconcat version 1.0\nfile 'a.ts'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\na.ts\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("name", ["b.mp4", "b.m3u8", "b.txt"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_other_files_is_read_where_asked_only(kind, name, tmp_path):
    Clip(times=list(range(5)), time_base=RATE).write(tmp_path / "a.ts")
    (tmp_path / name).write_text(LISTS[kind])
    with pytest.raises(VideoError, match=rf"{name}: (is a list of other files .*: videodeblur run --playlist|not a video)"):
        VideoReader(tmp_path / name)
    if name == {"concat": "b.txt", "hls": "b.m3u8"}[kind]:
        with VideoReader(tmp_path / name, playlist=True) as reader:
            assert len(list(reader)) == 5


def test_a_picture_whose_name_has_a_place_for_a_number_brings_no_neighbours(tmp_path):
    for name in ("x%d.png", "x1.png", "x2.png"):
        save(tmp_path / name, np.full((48, 64), 9, np.uint8), "gray")
    with pytest.raises(VideoError, match=r"x%d\.png: is a list"):
        VideoReader(tmp_path / "x%d.png")


@pytest.mark.parametrize("name", ["2.png", "0.png"])
def test_a_list_among_pictures_is_refused(name, tmp_path):
    save(tmp_path / "1.png", np.full((48, 64), 9, np.uint8), "gray")
    (tmp_path / name).write_text(LISTS["concat"])
    with pytest.raises(VideoError, match=rf"{name}: is a list of other files, expected a picture: take it out"):
        VideoReader(tmp_path)
    with pytest.raises(VideoError, match="not a picture that can be decoded"):
        read_luma(tmp_path / name)


def fragmented(source, target, flags):
    with av.open(str(source)) as before, av.open(str(target), "w", container_options={"movflags": flags}) as after:
        copies = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    return target


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    clip = Clip(times=list(range(500)), time_base=RATE, size=(32, 32), options={"g": "25", "preset": "ultrafast"}, audio=["aac"])
    return clip.write(tmp_path_factory.mktemp("long") / "in.mp4")


@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+empty_moov+default_base_moof", "dash+frag_keyframe"])
def test_frames_of_fragmented_mp4_are_counted(flags, long, tmp_path):
    source = fragmented(long, tmp_path / "in.mp4", flags)
    with VideoReader(source) as reader:
        assert reader.info.frames == reader.info.expected_frames == 500
        assert sum(1 for _ in reader) == 500
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(VideoError, match="broken or cut off at frame"), VideoReader(source) as reader:
        list(reader)


def test_boxes_that_make_no_sense_are_no_fragments(tmp_path):
    for number, data in enumerate((b"", b"\0\0\0\x04moof", b"\0\0\0\x10moof\0\0\0\x03traf", b"\0\0\0\x01moof\0", os.urandom(999))):
        path = tmp_path / str(number)
        path.write_bytes(data)
        assert samples_in_fragments(path, 1) == 0


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory):
    clip = Clip(times=list(range(50)), time_base=RATE, size=(64, 64), options={"bf": "0", "preset": "ultrafast"}, audio=["ac3"])
    return clip.write(tmp_path_factory.mktemp("broadcast") / "in.ts").read_bytes()


def frames_of(path, salvage=False):
    with VideoReader(path, salvage=salvage) as reader:
        return len(list(reader)), reader.notes


@pytest.mark.parametrize("suffix", [".ts", ".m2ts"])
@pytest.mark.parametrize("junk", [b"", bytes(77)])
def test_a_transport_stream_that_ends_within_a_packet_is_cut_off(suffix, junk, broadcast, tmp_path):
    source, before = tmp_path / f"in{suffix}", b"time" if suffix == ".m2ts" else b""
    packets = [before + broadcast[at : at + 188] for at in range(0, len(broadcast), 188)]
    source.write_bytes(junk + b"".join(packets))
    assert frames_of(source) == (50, [])
    source.write_bytes(junk + b"".join(packets) + packets[-1][:77])
    with pytest.raises(VideoError, match=r"cut off at frame 50 \(it ends within a packet of the transport stream\)"):
        frames_of(source)
    frames, (note,) = frames_of(source, salvage=True)
    assert frames == 50
    assert note.endswith("broken or cut off at frame 50 (it ends within a packet of the transport stream)")


def test_a_transport_stream_whose_last_packet_is_not_whole_is_cut_off(broadcast, tmp_path):
    """At the border of two packets, within a picture or a piece of sound; the length of the latter is told."""
    for packets in range(len(broadcast) // 188 - 100, len(broadcast) // 188):
        (tmp_path / "in.ts").write_bytes(broadcast[: packets * 188])
        with av.open(str(tmp_path / "in.ts")) as container:
            corrupt = any(packet.is_corrupt for packet in container.demux() if packet.stream_index == 1)
        if corrupt:
            break
    with pytest.raises(VideoError, match=r"broken or cut off at frame \d+ \(the last packet of stream 1 is not whole\)"):
        frames_of(tmp_path / "in.ts")


def piped(kind, clip_codec="ffv1"):
    """A video as a program writes it into a pipe."""
    memory = io.BytesIO()
    memory.seekable = lambda: False
    target = type("Sink", (), {"write": lambda self, data: memory.write(data)})()
    with av.open(target, "w", format=kind) as container:
        stream = container.add_stream(clip_codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                np.frombuffer(plane, np.uint8)[:] = number
            frame.pts, frame.time_base = number, RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return memory.getvalue()


def read_from_pipe(data):
    code = "\n".join(
        [
            "from runtime.video import VideoReader",
            "with VideoReader('-') as reader: print(sum(1 for _ in reader), reader.notes)",
        ]
    )
    return subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [*((kind, codec) for kind in ("nut", "matroska") for codec in ("ffv1", "libx264")), ("ogg", "libvpx"), ("mpegts", "libx264")],
)
def test_a_pipe_that_was_cut_off_is_not_taken_for_whole(kind, codec):
    data = piped(kind, codec)
    whole, cut = read_from_pipe(data), read_from_pipe(data[: len(data) * 6 // 10 | 1])
    assert whole.stdout.decode() == "30 []\n", whole.stderr.decode()
    assert cut.returncode != 0 or b"the NUT stream has no index at its end" in cut.stdout
    if cut.returncode:
        assert b"broken or cut off at frame" in cut.stderr


@pytest.mark.parametrize("kind", ["nut", "matroska"])
def test_every_place_where_a_pipe_may_end_within_an_element(kind):
    data = piped(kind)
    told = []
    for end in range(1, len(data) + 1):
        inlet, outlet = os.pipe()
        os.write(outlet, data[:end])
        os.close(outlet)
        pipe = WatchedPipe(inlet)
        while pipe.read(1000):
            pass
        os.close(inlet)
        told.append(pipe.cut_within or pipe.without_index)
    assert not told[-1]
    if kind == "matroska":
        assert sum(not cut for cut in told) < 60  # between elements
    else:
        assert all(told[len(NUT) : len(told) // 2])


def test_a_playlist_is_an_option_of_a_run(tmp_path):
    assert DeblurOptions(tmp_path / "in.m3u8", tmp_path / "out.mp4", playlist=True).playlist


def interlaced_from(number, path):
    """Progressive up to there, in one file."""
    half = Clip("mpeg2video", times=list(range(number)), time_base=RATE, options={"g": "5"})
    other = Clip("mpeg2video", times=list(range(100, 100 + number)), time_base=RATE, options={"g": "5", "flags": "+ildct+ilme"})
    other.write(path.with_suffix(".b.ts"))
    path.write_bytes(half.write(path.with_suffix(".a.ts")).read_bytes() + path.with_suffix(".b.ts").read_bytes())
    return path


def test_interlaced_from_a_later_frame_on_is_found_before_the_work(tmp_path, monkeypatch):
    source = interlaced_from(25, tmp_path / "in put.ts")
    with (
        VideoReader(source) as reader,
        pytest.raises(VideoError, match=r"the frame at .* s is interlaced.*-i '.*in put.ts' -vf bw.*-c:a copy"),
    ):
        look_ahead(reader)
    monkeypatch.setattr("runtime.deblur_video.overlap", lambda *_: pytest.fail("the work was begun"))
    with pytest.raises(VideoError, match="is interlaced"):
        deblur_video(DeblurOptions(source, tmp_path / "out.mkv"))
    assert not list(tmp_path.glob("*out*"))
    with VideoReader(source, limit=10) as reader:
        look_ahead(reader)


def test_a_video_of_one_kind_passes_the_look_ahead(long):
    with VideoReader(long) as reader:
        look_ahead(reader)
        assert next(iter(reader)).number == 0


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("rate", [Fraction(60), Fraction(30000, 1001), Fraction(24)])
def test_a_raw_stream_has_the_rate_that_it_says(codec, rate, tmp_path):
    """FFmpeg gives its frames no time, and an average of 25."""
    suffix = {"libx264": ".h264", "libx265": ".hevc", "mpeg2video": ".m2v"}[codec]
    with av.open(str(tmp_path / f"in{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"x265-params": "log-level=none"} if codec == "libx265" else {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 9 * number, np.uint8), "yuv420p")))
        container.mux(stream.encode(None))
    with VideoReader(tmp_path / f"in{suffix}") as reader:
        assert float(reader.info.frame_rate) == pytest.approx(float(rate), abs=1e-3)
        times = [frame.pts * reader.info.time_base for frame in reader]
    assert [float(time - times[0]) for time in times] == pytest.approx([float(number / rate) for number in range(12)], abs=1e-4)


def raw(path, codec, pixel_format="yuv420p", kind=None, rate=12, **options):
    """Six frames without a container."""
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, pixel_format, 2_000_000
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((144, 128), 9 * number, np.uint8), "yuv420p").reformat(format=pixel_format)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


WITHOUT_RATE = "the stream says no rate: 25 frames per second are taken for it, as FFmpeg does"


def test_a_raw_stream_without_a_rate_has_a_note(tmp_path):
    raw(tmp_path / "in.mjpeg", "mjpeg", "yuvj420p")
    raw(tmp_path / "in.hevc", "libx265", **{"x265-params": "log-level=none:vui-timing-info=0"})
    for name in ("in.mjpeg", "in.hevc"):
        with VideoReader(tmp_path / name) as reader:
            assert (reader.info.frame_rate, reader.notes) == (25, [WITHOUT_RATE])


def test_pictures_in_a_pipe_have_a_note_on_their_rate(tmp_path):
    save(tmp_path / "1.png", np.full((48, 64), 9, np.uint8), "gray")
    assert WITHOUT_RATE in read_from_pipe((tmp_path / "1.png").read_bytes() * 3).stdout.decode()


def test_a_raw_stream_of_few_frames_a_second_has_no_more(tmp_path):
    """FFmpeg's guess is twice as many for H.264."""
    with VideoReader(raw(tmp_path / "in.h264", "libx264")) as reader:
        assert (reader.info.frame_rate, reader.even, reader.notes) == (12, True, [])


@pytest.mark.parametrize(("name", "kind"), [("in.drc", "dirac"), ("in.ts", "mpegts")])
def test_frames_of_dirac_have_times(name, kind, tmp_path):
    """In a raw stream FFmpeg has their numbers instead; what marks the end is no frame."""
    source = raw(tmp_path / name, "vc2", "yuv422p", kind, strict="-2")
    with VideoReader(source) as reader:
        times = [frame.pts * reader.info.time_base for frame in reader]
    assert [float(time - times[0]) for time in times] == pytest.approx([number / 12 for number in range(6)], abs=1e-4)
    assert reader.notes == []


@pytest.mark.parametrize("hidden", [2, 32])
def test_columns_that_are_hidden_at_the_left_stay_so(hidden, tmp_path):
    clip = Clip(times=list(range(8)), time_base=RATE, size=(96, 64), moving=True).write(tmp_path / "clip.mp4")
    with av.open(str(clip)) as before, av.open(str(tmp_path / "in.mp4"), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        cropping = BitStreamFilterContext(f"h264_metadata=crop_left={hidden}", before.streams.video[0], stream)
        for packet in before.demux(video=0):
            for cropped in cropping.filter(packet if packet.size else None):
                cropped.stream = stream
                after.mux(cropped)
    deblur_video(DeblurOptions(str(tmp_path / "in.mp4"), str(tmp_path / "out.mkv"), strength=0.0, encoder=EncoderOptions("ffv1")))
    with av.open(str(clip)) as whole, av.open(str(tmp_path / "out.mkv")) as written:
        for frame, made in zip(whole.decode(video=0), written.decode(video=0)):
            assert np.array_equal(made.to_ndarray(format="gray"), frame.to_ndarray(format="gray")[:, hidden:])


def test_a_pipe_with_a_name_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a pipe")
    with pytest.raises(VideoError, match=r"a pipe: is a pipe, expected a video file: give it as -, .*< '.*a pipe'"):
        VideoReader(tmp_path / "a pipe")
    with pytest.raises(VideoError, match=r"/dev/zero: is a device"):
        VideoReader("/dev/zero")


@pytest.mark.parametrize(("arguments", "closed"), [(("-", "out.mkv"), "<&-"), (("in.mp4", "-"), ">&-")])
def test_what_is_closed_is_called_so(arguments, closed, tmp_path):
    Clip(times=list(range(5)), time_base=RATE).write(tmp_path / "in.mp4")
    line = f"{sys.executable} {ROOT / 'videodeblur'} run {' '.join(arguments)} {closed}"
    found = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1
    assert f"error: -: standard {'input' if closed[0] == '<' else 'output'} is closed" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_few_frames_a_second_keep_their_shape_and_rate(tmp_path):
    """FFmpeg has not seen one when it says what a transport stream holds."""
    with av.open(str(tmp_path / "in.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(1, 2))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        sound = container.add_stream("mp2", rate=48000)
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), 9 * number, np.uint8), "yuv420p")
            container.mux(stream.encode(frame))
        for number in range(20 * 42):
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), "s16", "stereo")
            heard.rate, heard.pts = 48000, number * 1152
            container.mux(sound.encode(heard))
        container.mux(stream.encode(None))
    with VideoReader(tmp_path / "in.ts") as reader:
        assert reader.info.sample_aspect_ratio == Fraction(4, 3)
        assert reader.info.frame_rate in (None, Fraction(1, 2))
    summary = deblur_video(DeblurOptions(tmp_path / "in.ts", tmp_path / "out.mp4"))
    assert not [note for note in summary.notes if "aspect" in note or "rate" in note]
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.info.sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("wrong", [None, b"in.mp4", 3])
def test_a_path_is_a_str_or_a_path(wrong, tmp_path):
    with pytest.raises(InputError, match=r"source is .*, expected a file's name"):
        DeblurOptions(wrong, tmp_path / "out.mp4")


def test_raw_samples_above_their_depth_are_refused(tmp_path):
    luma = np.full((3, 48, 64), 1023, "<u2")
    luma[2, 5, 7] = 1024
    gray = np.full((24, 64), 512, "<u2").tobytes()
    frames = b"".join(b"FRAME\n" + picture.tobytes() + gray for picture in luma)
    (tmp_path / "in.y4m").write_bytes(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420p10 XYSCSS=420P10\n" + frames)
    with (
        VideoReader(tmp_path / "in.y4m") as reader,
        pytest.raises(VideoError, match="frame 2 has samples up to 1024, expected 1023"),
    ):
        list(reader)


def damaged(codec, options, path):
    """Clips with wrong bits in picture 10, at several places."""
    whole = Clip(codec, size=(320, 240), times=list(range(20)), time_base=Fraction(1, 25), options=options).write(path)
    with VideoReader(whole) as reader:
        assert (len(list(reader)), reader.notes) == (20, [])
    with av.open(str(whole)) as container:
        picture = [bytes(packet) for packet in container.demux(video=0) if packet.size][10]
    data = whole.read_bytes()
    for share in np.linspace(0.3, 0.9, 7):
        at = int(len(picture) * share)
        wrong = bytes(byte ^ 0x5A for byte in picture[at : at + 10])
        assert data.count(picture[:at][-200:] + picture[at : at + 10]) == 1
        path.write_bytes(data.replace(picture[:at][-200:] + picture[at : at + 10], picture[:at][-200:] + wrong))
        yield path


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("live", [False, True])
def test_damage_in_h264_is_refused_whatever_the_cores(live, cores, tmp_path):
    """FFmpeg calls a picture broken only where one thread is at it."""
    refused, before = [], os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before)[:cores])
        for path in damaged("libx264", {"preset": "ultrafast", "bf": "0"}, tmp_path / "in.mkv"):
            try:
                with VideoReader(path, live=live) as reader:
                    assert len(list(reader)) == 20
            except VideoError as error:
                refused.append(str(error))
    finally:
        os.sched_setaffinity(0, before)
    assert len(refused) > 3
    assert all("broken or cut off at frame 10" in each for each in refused)


def test_damage_that_the_decoder_covers_up_is_told(tmp_path):
    told = r"the decoder met damage in 1 coded pictures and made up what is missing, the first, near 0.40 s: slice CRC mismatch .+"
    for path in damaged("ffv1", {"slicecrc": "1"}, tmp_path / "in.mkv"):
        with VideoReader(path) as reader:
            assert len(list(reader)) == 20
            [note] = reader.notes
            assert re.fullmatch(told, note)


def test_a_keyframe_that_needs_what_is_before_it_is_no_damage(tmp_path):
    """Of a part that begins behind an open group of pictures, or in the middle of gradual refresh."""
    options = {"preset": "ultrafast", "bf": "2", "g": "10", "x264-params": "open-gop=1:scenecut=0"}
    clip = Clip(times=list(range(600)), time_base=Fraction(1, 25), options=options, alternating=True)
    with VideoReader(clip.write(tmp_path / "in.mp4"), part=TimeRange(Fraction(20))) as reader:
        assert (len(list(reader)), reader.notes) == (100, [])
