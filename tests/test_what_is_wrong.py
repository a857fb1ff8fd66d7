"""What is not broken is not called so: encrypted files, and an index behind the pictures in a pipe; chapters that overlap."""

import os
from fractions import Fraction

import av
import pytest
from test_field_streams import copied
from test_hidden_sound import box, boxes
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


def test_encrypted_sound_is_not_copied_as_noise(tmp_path):
    """The muxer encrypts all tracks: that of the picture is exchanged, and what is left of its place filled."""
    clip = Clip(times=list(range(5)), time_base=RATE, audio=["aac"]).write(tmp_path / "clip.mp4")
    plain, mixed = remuxed(clip, tmp_path / "plain.mp4", {}), remuxed(clip, tmp_path / "in.mp4", ENCRYPTED)
    at = plain.index(b"moov") - 4
    assert mixed.index(b"moov") - 4 == at  # samples lie in front, at the same places
    track = next(part for kind, part in boxes(plain[at:]) if kind == b"trak")
    parts = [part for _, part in boxes(mixed[at:])]
    first = next(number for number, (kind, _) in enumerate(boxes(mixed[at:])) if kind == b"trak")
    parts[first] = track + box(b"free", bytes(len(parts[first]) - len(track) - 8))
    (tmp_path / "in.mp4").write_bytes(plain[:at] + box(b"moov", b"".join(parts)))
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
