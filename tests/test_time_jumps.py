"""A transport stream whose clock jumps is refused before the work, where the output cannot hold it."""

from fractions import Fraction

import av
import numpy as np
import pytest

from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.video import VideoReader, VideoWriter
from runtime.video.time_jumps import time_jump

FAST = EncoderOptions(options={"preset": "ultrafast", "bf": "0"})
RATE = Fraction(25)
FRAMES = 50  # of a part
HOUR = 3600


def joined(path, *starts):
    """Parts of two seconds, of which each has a clock that starts at so many seconds."""
    parts = []
    for start in starts:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "25", **FAST.options})
            stream.width, stream.height = 320, 240
            for number in range(FRAMES):
                noise = np.random.default_rng(number).integers(0, 255, (360, 320)).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(noise, "yuv420p")
                frame.pts, frame.time_base = start * 25 + number, 1 / RATE
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def seconds(jump):
    return jump and (round(float(jump.before)), round(float(jump.after)))


@pytest.mark.parametrize(
    ("starts", "found"),
    [
        ((10, 12), None),
        ((10, 1000, 2000), None),
        ((10, 12, 10 * HOUR), (14, 10 * HOUR)),
        ((10, 12, 14, 16, 18, 10 * HOUR), (20, 10 * HOUR)),
        ((10, 10 * HOUR, 10 * HOUR + 2, 10 * HOUR + 4), (12, 10 * HOUR)),
        ((10, 40, 20), (42, 20)),
        ((10, 12, 14, 16, 18, 3), (20, 3)),
    ],
)
def test_a_jump_is_found_wherever_it_is(starts, found, tmp_path):
    with VideoReader(joined(tmp_path / "in.ts", *starts)) as reader:
        assert seconds(time_jump(reader, Fraction(7 * HOUR))) == found


def test_what_an_output_cannot_hold_is_refused_before_the_work(tmp_path):
    source = joined(tmp_path / "in.ts", 0, 10 * HOUR)
    for suffix, most in ((".mp4", "23860.93 s"), (".mov", "23860.93 s"), (".avi", "2400 s")):
        with (
            VideoReader(source) as reader,
            pytest.raises(VideoError, match=rf"from 1.96 s to 36000 s, .* longer than {most} in {suffix}"),
        ):
            VideoWriter(tmp_path / f"out{suffix}", reader, FAST)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mkv", reader, FAST) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert writer.frames == 2 * FRAMES


def test_a_jump_back_is_refused_before_the_work_and_behind_the_limit_it_is_none(tmp_path):
    source = joined(tmp_path / "in.ts", 10, 40, 20)
    with VideoReader(source) as reader, pytest.raises(VideoError, match=r"from 31\.96 s to 10 s, expected times that rise: cut it"):
        VideoWriter(tmp_path / "out.mkv", reader, FAST)
    with VideoReader(source, limit=20) as reader:
        assert time_jump(reader, None) is None
