"""What is said to users: true, useful, and as a shell or a person takes it."""

import shlex
import struct
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from test_field_streams import FFV1, copied
from test_pictures import save
from video_clips import VARIABLE, Clip, cut

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.run import network_memory
from runtime.video import VideoReader
from runtime.video.format import ffmpeg_line

ROOT = Path(__file__).resolve().parents[1]


def test_a_command_that_is_advised_is_quoted_and_copies_the_sound():
    words = shlex.split(ffmpeg_line(Path("My Holiday (1).vob"), "-vf bwdif", "out.mkv"))
    assert words == ["ffmpeg", "-i", "My Holiday (1).vob", "-vf", "bwdif", "-c:a", "copy", "out.mkv"]


def test_ffv1_is_no_remedy_for_what_ffv1_refuses(tmp_path):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "1.png", np.zeros((3, 5), np.uint8), "gray")
    with suppress(VideoError):
        copied(tmp_path / "in", tmp_path / "out.mkv", FFV1)
        return
    with pytest.raises(VideoError, match="scale the video first"):
        copied(tmp_path / "in", tmp_path / "out.mkv", FFV1)


def test_an_animated_webp_is_called_what_it_is(tmp_path):
    frames = b"VP8X" + struct.pack("<IB3x", 10, 2) + bytes(6) + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    (tmp_path / "in.webp").write_bytes(b"RIFF" + struct.pack("<I", len(frames) + 4) + b"WEBP" + frames)
    with pytest.raises(VideoError, match=r"in\.webp: is an animated WebP, which FFmpeg does not decode.*make a GIF of it"):
        VideoReader(tmp_path / "in.webp")


def test_salvage_is_advised_with_the_command_that_has_it(tmp_path):
    source = Clip(times=list(range(60)), time_base=Fraction(1, 25), options={"g": "20"}).write(tmp_path / "in.mkv")
    source = cut(source, tmp_path / "cut.mkv", 0.6)
    with pytest.raises(VideoError, match=r"or take what is before with videodeblur run --salvage"), VideoReader(source) as reader:
        list(reader)


def test_too_little_memory_is_told_in_figures_that_say_something(monkeypatch):
    monkeypatch.setattr(network_memory, "_per_pixel", lambda *_: 1000)
    with pytest.raises(InputError, match=r"there are 40 MB of memory for the network, expected more than \d+: end other programs"):
        network_memory.pixels_within(40_000_000, None, "fp32")


@pytest.mark.parametrize(("codec", "options"), [("libx265", {"preset": "ultrafast"}), ("libsvtav1", {"preset": "12"})])
def test_encoders_do_not_print_their_settings(codec, options, tmp_path):
    source = Clip(times=VARIABLE[:3]).write(tmp_path / "in.mp4")
    code = f"""
from test_field_streams import copied
from runtime.encoder_options import EncoderOptions
copied({str(source)!r}, {str(tmp_path / "out.mkv")!r}, EncoderOptions({codec!r}, options={options!r}))
"""
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=paths, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_user_says_to_x265_about_its_log_counts():
    assert EncoderOptions("libx265").resolved()["x265-params"] == "log-level=error"
    assert EncoderOptions("libx265", options={"x265-params": "log-level=full"}).resolved()["x265-params"] == "log-level=full"
