"""Sound with a hole in it: what is behind that is heard when it was, or a note says by how much not."""

from fractions import Fraction

import av
import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

from runtime.encoder_options import EncoderOptions

HOLE = Fraction(7, 10)  # seconds
PACKETS = 10  # in front of it


def with_hole(path, codec, hole=HOLE):
    """The last packets of the sound are later by that."""
    clip = Clip(times=list(range(0, 2000, 40)), time_base=Fraction(1, 1000), audio=[codec])
    with av.open(str(clip.write(path.with_name("whole.mkv")))) as before, av.open(str(path), "w") as after:
        streams = [after.add_stream_from_template(stream) for stream in before.streams]
        sounds = 0
        for packet in before.demux():
            if packet.size:
                sounds += packet.stream_index
                if packet.stream_index and sounds > PACKETS:
                    packet.pts = packet.dts = packet.pts + round(hole / packet.time_base)
                packet.stream = streams[packet.stream_index]
                after.mux(packet)
    return path


def told(notes):
    return [note for note in notes if " early from " in note or " late from " in note]


@pytest.mark.parametrize(
    ("codec", "source", "target"),
    [
        *(("pcm_s16le", "mkv", suffix) for suffix in ("avi", "mov", "mp4", "mxf")),
        *(("aac", suffix, "avi") for suffix in ("mkv", "mp4")),
        ("mp2", "ts", "avi"),
    ],
)
def test_sound_behind_a_hole_is_told_where_it_is_early(codec, source, target, tmp_path):
    encoder = EncoderOptions("mpeg2video") if target == "mxf" else LOSSLESS
    (note,) = told(copied(with_hole(tmp_path / f"in.{source}", codec), tmp_path / f"out.{target}", encoder))
    early, _, rest = note.removeprefix("audio stream 1 is up to ").partition(" s early from ")
    assert float(early) == pytest.approx(float(HOLE), abs=0.02)
    assert float(rest.partition(" s on")[0]) == pytest.approx(PACKETS * 1024 / 48000 + float(HOLE), abs=0.05)
    assert note.endswith(f": .{target} only counts samples, an .mkv has times")


@pytest.mark.parametrize(
    ("codec", "source", "target"),
    [("pcm_s16le", "mkv", "mkv"), ("pcm_s16le", "mkv", "nut"), *(("aac", "mkv", suffix) for suffix in ("mp4", "ts", "flv"))],
)
def test_a_hole_stays_where_containers_have_times(codec, source, target, tmp_path):
    assert told(copied(with_hole(tmp_path / f"in.{source}", codec), tmp_path / f"out.{target}", LOSSLESS)) == []


@pytest.mark.parametrize(("codec", "target"), [("pcm_s16le", "mov"), ("mp2", "avi"), ("ac3", "avi")])
def test_sound_without_a_hole_is_not_told_of(codec, target, tmp_path):
    source = with_hole(tmp_path / "in.mkv", codec, Fraction(0))
    assert told(copied(source, tmp_path / f"out.{target}", LOSSLESS)) == []
