"""What is read: lists of other files only where asked, fragmented MP4 counted whole, pipes that were cut off."""

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_pictures import save
from video_clips import Clip

from runtime.deblur_video import deblur_video
from runtime.errors import VideoError
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


@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
@pytest.mark.parametrize("kind", ["nut", "matroska"])
def test_a_pipe_that_was_cut_off_is_not_taken_for_whole(kind, codec):
    data = piped(kind, codec)
    whole, cut = read_from_pipe(data), read_from_pipe(data[: len(data) * 6 // 10])
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
