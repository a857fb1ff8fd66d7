"""What is not broken is not called so: encrypted files, and an index behind the pictures in a pipe; chapters that overlap."""

import os
import struct
from fractions import Fraction

import av
import pytest
from test_field_streams import copied
from video_clips import Clip

from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.video import VideoReader, VideoWriter
from runtime.video.pipe_end import WatchedPipe

RATE = Fraction(1, 25)
KEY = "00112233445566778899aabbccddeeff"
ENCRYPTED = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": KEY, "encryption_kid": KEY}


def remuxed(source, target, options):
    with av.open(str(source)) as before, av.open(str(target), "w", options=options) as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                after.mux(packet)
    return target.read_bytes()


def box(data, wanted, start=0):
    """The first byte of an MP4's first box of that name from there on, and the byte after its last."""
    while True:
        size, name = struct.unpack_from(">I4s", data, start)
        if name == wanted:
            return start, start + size
        start += size


def test_encrypted_sound_is_not_copied_as_noise(tmp_path):
    """The muxer encrypts all tracks: that of the picture is exchanged, and what is left of its place filled."""
    clip = Clip(times=list(range(5)), time_base=RATE, audio=["aac"]).write(tmp_path / "clip.mp4")
    plain, mixed = remuxed(clip, tmp_path / "plain.mp4", {}), bytearray(remuxed(clip, tmp_path / "in.mp4", ENCRYPTED))
    index = box(plain, b"moov")[0]
    assert box(mixed, b"moov")[0] == index  # samples lie in front, at the same places
    (was, until), (begin, end) = (box(data, b"trak", index + 8) for data in (plain, mixed))
    left = end - begin - (until - was)
    mixed[begin:end] = plain[was:until] + struct.pack(">I4s", left, b"free").ljust(left, b"\0")
    mixed[:index] = plain[:index]
    (tmp_path / "in.mp4").write_bytes(mixed)
    with VideoReader(tmp_path / "in.mp4") as reader:
        with pytest.raises(VideoError, match=r"its audio \(stream 1\) is encrypted.*--no-copy-audio-streams"):
            VideoWriter(tmp_path / "out.mp4", reader)
        with VideoWriter(tmp_path / "out.mp4", reader, EncoderOptions(leave_out=("audio",))) as writer:
            for frame in reader:
                writer.write(frame, frame.luma)
            writer.finish()
    assert [path.name for path in tmp_path.glob("out*")] == ["out.mp4"]


def test_an_encrypted_picture_is_called_encrypted(tmp_path):
    clip = Clip(times=list(range(5)), time_base=RATE).write(tmp_path / "clip.mp4")
    remuxed(clip, tmp_path / "in.mp4", ENCRYPTED)
    with pytest.raises(VideoError, match=r"in\.mp4: its picture is encrypted \(CENC\).*decrypt it"):
        VideoReader(tmp_path / "in.mp4")


@pytest.mark.parametrize("behind", [True, False])
def test_an_index_behind_the_pictures_is_told_in_a_pipe(behind, tmp_path, monkeypatch):
    clip = Clip(times=list(range(20)), time_base=RATE, size=(320, 192)).write(tmp_path / "clip.mp4")
    if not behind:
        copied(clip, tmp_path / "front.mp4")
    with (tmp_path / ("clip.mp4" if behind else "front.mp4")).open("rb") as file:
        pipe = WatchedPipe(file.fileno())
        monkeypatch.setattr("runtime.video.sources.WatchedPipe", lambda: pipe)
        assert os.fstat(file.fileno()).st_size > 1 << 17
        if behind:
            with pytest.raises(VideoError, match=r"-: is an MP4.* index is at its end.*give the file's name, or .*faststart"):
                VideoReader("-")
        else:
            VideoReader("-").close()


@pytest.mark.parametrize(("target", "kept"), [("out.mkv", True), ("out.mp4", False)])
def test_chapters_that_overlap_are_kept_or_noted(target, kept, tmp_path):
    chapters = [(0, 800, "all"), (200, 500, "inner"), (800, 1000, "end")]
    source = Clip(times=list(range(25)), time_base=RATE, chapters=chapters).write(tmp_path / "in.mkv")
    notes = [note for note in copied(source, tmp_path / target) if "overlap" in note]
    assert notes == ([] if kept else ["the ends of chapters that overlap the next one: not in the output as it was"])
