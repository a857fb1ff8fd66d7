"""What is not broken is not called so: encrypted files, and an index behind the pictures in a pipe; chapters that overlap."""

import os
from fractions import Fraction

import av
import pytest
from test_field_streams import copied
from video_clips import Clip

from runtime.errors import VideoError
from runtime.video import VideoReader
from runtime.video.pipe_end import WatchedPipe

RATE = Fraction(1, 25)
KEY = "00112233445566778899aabbccddeeff"


def test_an_encrypted_picture_is_called_encrypted(tmp_path):
    clip = Clip(times=list(range(5)), time_base=RATE).write(tmp_path / "clip.mp4")
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": KEY, "encryption_kid": KEY}
    with av.open(str(clip)) as before, av.open(str(tmp_path / "in.mp4"), "w", options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
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
