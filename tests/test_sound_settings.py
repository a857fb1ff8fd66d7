"""Sound that changes its rate or channels on the way, in containers that say them once."""

from fractions import Fraction

import av
import numpy as np
import pytest
from test_field_streams import LOSSLESS, copied

from runtime.errors import VideoError
from runtime.files.time_ranges import TimeRange
from runtime.video import VideoReader, VideoWriter

FLV_HEADER, FLV_TAG, FLV_SIZE, FLV_SCRIPT = 13, 11, 4, 18  # bytes; a kind of tag
SECOND = 1000  # milliseconds


def second(path, layout="stereo", rate=48000, start=0):
    """A second of a picture and AAC, so many seconds after 0."""
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=rate, layout=layout)
        video.width, video.height, video.options = 64, 48, {"bf": "0", "g": "10"}
        for number in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 10 * number, np.uint8), "yuv420p")
            picture.pts, picture.time_base = 25 * start + number, Fraction(1, 25)
            container.mux(video.encode(picture))
        for at in range(0, rate - 2048, 1024):
            samples = np.random.default_rng(at).uniform(-0.1, 0.1, (av.AudioLayout(layout).nb_channels, 1024))
            frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, rate * start + at, Fraction(1, rate)
            container.mux(sound.encode(frame))
        container.mux(video.encode(None) + sound.encode(None))
    return path.read_bytes()


def joined(path, **other):
    """A transport stream whose sound is another in its second half."""
    path.write_bytes(second(path.with_name("a.ts"), start=1) + second(path.with_name("b.ts"), start=2, **other))
    return path


def joined_flv(path):
    first, other = (second(path.with_name(f"{layout}.flv"), layout) for layout in ("stereo", "5.1"))
    data = first[:FLV_HEADER]
    for whole, later in ((first, 0), (other, SECOND)):
        at = FLV_HEADER
        while at < len(whole):
            end = at + FLV_TAG + int.from_bytes(whole[at + 1 : at + 4], "big") + FLV_SIZE
            time = int.from_bytes(whole[at + 4 : at + 7], "big") + later
            if whole[at] != FLV_SCRIPT:
                data += whole[at : at + 4] + time.to_bytes(3, "big") + whole[at + 7 : end]
            at = end
    path.write_bytes(data)
    return path


def heard(path):
    """Rates and channels that come out of a decoder."""
    with av.open(str(path)) as container:
        return {(frame.sample_rate, frame.layout.nb_channels) for frame in container.decode(audio=0)}


@pytest.mark.parametrize(
    ("other", "told"), [({"layout": "5.1"}, "48000 Hz, 6 channels"), ({"rate": 44100}, "44100 Hz, 2 channels")]
)
@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_sound_that_changes_in_a_transport_stream_is_refused_elsewhere(other, told, target, tmp_path):
    source = joined(tmp_path / "in.ts", **other)
    message = rf"its sound \(stream 1\) changes from 48000 Hz, 2 channels to {told}, expected one kind .* \.{target}: write a \.ts"
    with pytest.raises(VideoError, match=message):
        copied(source, tmp_path / f"out.{target}", LOSSLESS)
    copied(source, tmp_path / "out.ts", LOSSLESS)
    assert heard(tmp_path / "out.ts") == heard(source)
    assert len(heard(source)) == 2


def test_what_is_met_on_the_way_is_told(tmp_path):
    (note,) = [
        note for note in copied(joined(tmp_path / "in.ts", layout="5.1"), tmp_path / "out.mkv", LOSSLESS, limit=40) if "Hz" in note
    ]
    assert note.startswith("audio stream 1 changes from 48000 Hz, 2 channels to 48000 Hz, 6 channels at 1")
    assert note.endswith(" s, .mkv has the first throughout: write a .ts, or cut it there into two files")


def test_a_limit_in_front_of_the_change_has_no_note(tmp_path):
    notes = copied(joined(tmp_path / "in.ts", layout="5.1"), tmp_path / "out.mkv", LOSSLESS, limit=10)
    assert not [note for note in notes if "Hz" in note]


@pytest.mark.parametrize(("target", "kept"), [("flv", True), ("mov", True), ("mkv", False), ("ts", False)])
def test_new_settings_beside_the_packets_are_kept_or_told(target, kept, tmp_path):
    source = joined_flv(tmp_path / "in.flv")
    notes = [note for note in copied(source, tmp_path / f"out.{target}", LOSSLESS) if "Hz" in note]
    assert bool(notes) != kept
    if kept:
        assert heard(tmp_path / f"out.{target}") == heard(source) == {(48000, 2), (48000, 6)}
    else:
        assert "changes from 48000 Hz, 2 channels to 48000 Hz, 6 channels at 1" in notes[0]


@pytest.mark.parametrize(("target", "kept"), [("flv", True), ("mp4", True), ("mkv", False)])
def test_a_part_behind_the_change_has_its_settings_or_is_told(target, kept, tmp_path):
    source = joined_flv(tmp_path / "in.flv")
    part = TimeRange(Fraction("1.3"))
    with VideoReader(source, part=part) as reader, VideoWriter(tmp_path / f"out.{target}", reader, LOSSLESS) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert bool([note for note in writer.notes if "Hz" in note]) != kept
    if kept:
        assert heard(tmp_path / f"out.{target}") == {(48000, 6)}
