"""Sound that an edit list hides stays hidden: in front of what is heard, and between two pieces of it."""

import struct
from fractions import Fraction

import av
import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

SECOND = 1000  # ticks of the movie's clock; the sound's has 48000
AT_ONCE = 1 << 16  # an edit's rate of 1
NOTHING = -1  # the place in a track that an empty edit has


def boxes(data):
    at = 8
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + size]
        at += size


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def edited(path, *edits):
    """An MP4 with sound, of which only pieces are heard: each (milliseconds, place in the track in samples)."""
    clip = Clip(times=list(range(0, 1000, 40)), time_base=Fraction(1, SECOND), audio=["aac"], audio_after=Fraction(1, 25))
    data = clip.write(path).read_bytes()
    at = data.index(b"moov") - 4  # behind all pictures and sound, whose places stay as they are
    entries = b"".join(struct.pack(">IiI", length, place, AT_ONCE) for length, place in edits)
    elst = box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)) + entries))
    index, tracks = b"", 0
    for kind, content in boxes(data[at:]):
        tracks += kind == b"trak"
        if kind == b"trak" and tracks == 2:
            parts = [(name, part) for name, part in boxes(content) if name != b"edts"]
            content = box(b"trak", b"".join((elst if name == b"mdia" else b"") + part for name, part in parts))
        index += content
    path.write_bytes(data[:at] + box(b"moov", index))
    return path


def heard(path):
    """When each piece of sound that is heard begins, in milliseconds."""
    with av.open(str(path)) as container:
        return [round(frame.pts * frame.time_base * 1000) for frame in container.decode(audio=0)]


@pytest.mark.parametrize("target", ["out.mp4", "out.mov", "out.mkv"])
def test_sound_hidden_between_two_pieces_is_left_out_and_told(target, tmp_path):
    source = edited(tmp_path / "in.mp4", (300, 1024), (400, 28800))
    before, notes = heard(source), copied(source, tmp_path / target, LOSSLESS)
    (note,) = [note for note in notes if "edit list" in note]
    assert note.startswith("audio stream 1: without ")
    assert note.endswith(" packets that an edit list hides in its middle")
    after = heard(tmp_path / target)
    assert (before[0], after[0]) == (0, 0)
    assert len(after) - len(before) in (0, 1)  # the decoder's delay is not hidden in Matroska
    assert after[-10:] == pytest.approx(before[-10:], abs=22)  # a packet


@pytest.mark.parametrize("target", ["out.mp4", "out.mov", "out.mkv"])
def test_sound_hidden_in_front_of_a_late_start_is_not_heard(target, tmp_path):
    source = edited(tmp_path / "in.mp4", (500, NOTHING), (400, 19200))
    notes = copied(source, tmp_path / target, LOSSLESS)
    assert [note for note in notes if "edit list" in note or "earlier beside" in note] == []
    assert heard(source)[0] == pytest.approx(500, abs=25)
    assert heard(tmp_path / target)[0] == pytest.approx(450, abs=60)  # and what the decoder needs before


def test_what_a_decoder_needs_at_the_start_has_no_note(tmp_path):
    source = edited(tmp_path / "in.mp4", (900, 1024))
    assert copied(source, tmp_path / "out.mp4", LOSSLESS) == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [packet.is_discard for packet in container.demux(audio=0)][:2] == [True, False]
