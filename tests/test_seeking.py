"""A reader that was sent to a frame hands out what one that came there by itself does, whatever the codec and the container."""

import pytest
from video_clips import Clip

from runtime.video import VideoReader
from runtime.video.format import plane_of

TIMES = [1000 + number * 1001 for number in range(64)]
X264 = {"options": {"g": "12", "bf": "3"}}
OPEN_X264 = {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1"}}
OPEN_X265 = {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12:open-gop=1:bframes=4"}}


def seen(frame):
    planes = [plane_of(frame.decoded, index).tobytes() for index in range(len(frame.decoded.planes))]
    return frame.number, frame.pts, frame.duration, planes


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("in.mp4", X264),
        ("in.ts", X264),
        ("in.mkv", OPEN_X264),
        ("in.ts", OPEN_X264),
        ("in.mp4", OPEN_X265),
        ("in.nut", {"codec": "ffv1", "options": {"g": "12"}}),
    ],
)
def test_frames_after_a_seek_are_those_of_the_whole(name, how, tmp_path):
    path = Clip(times=TIMES, moving=True, **how).write(tmp_path / name)
    with VideoReader(path) as reader:
        frames = [(seen(frame), frame.decoded.key_frame) for frame in reader]
    assert sum(is_key for _, is_key in frames) > 4
    for number in range(0, 64, 9):
        key = max(place for place in range(number + 1) if frames[place][1])
        with VideoReader(path) as reader:
            assert reader.seek(number, frames[number][0][1], frames[key][0][1])
            assert [seen(frame) for frame in reader] == [facts for facts, _ in frames[number:]]


def test_a_time_that_no_frame_has_is_not_reached(tmp_path):
    path = Clip(times=TIMES, **X264).write(tmp_path / "in.mp4")
    with VideoReader(path) as reader:
        assert not reader.seek(3, TIMES[3] + 1, TIMES[0])
