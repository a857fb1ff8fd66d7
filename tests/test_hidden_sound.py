"""Sound that an edit list hides stays hidden: in front of what is heard, and between two pieces; AVI has all begin at once."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

from runtime.video import VideoReader

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


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
def test_sound_that_begins_after_all_that_ffmpeg_looks_at_has_no_note(target, tmp_path):
    """It then takes the sound's start for 0."""
    late = 7  # seconds
    with av.open(str(tmp_path / "in.flv"), "w") as container:
        video = container.add_stream("flv1", rate=5)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("libmp3lame", rate=44100, layout="mono", options={"flags": "bitexact"})
        audio.codec_context.open()
        packets = []
        for number in range(5 * (late + 1)):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), number, np.uint8), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            packets += video.encode(frame)
        for number in range(30):
            frame = av.AudioFrame(audio.codec_context.format.name, "mono", 1152)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.time_base, frame.pts = 44100, Fraction(1, 44100), late * 44100 + number * 1152
            packets += audio.encode(frame)
        packets += [*video.encode(), *audio.encode()]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    assert copied(tmp_path / "in.flv", tmp_path / target, LOSSLESS) == []


def samples(path):
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


def with_sound(path, codec="aac", picture=0, sound=0):
    """A second of both, which begin so many milliseconds after 0."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0", "preset": "ultrafast"})
        video.width, video.height = 64, 48
        audio = container.add_stream(codec, rate=48000, layout="stereo")
        audio.codec_context.open()
        size, packets = audio.codec_context.frame_size, []
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), 9 * number, np.uint8), "yuv420p")
            frame.pts, frame.time_base = picture + 40 * number, Fraction(1, 1000)
            packets += video.encode(frame)
        for number in range(48000 // size):
            length = size if number + 1 < 48000 // size else size // 4
            frame = av.AudioFrame.from_ndarray(np.zeros((2, length), np.float32), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48000, 48 * sound + number * size
            packets += audio.encode(frame)
        packets += video.encode(None) + audio.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


@pytest.mark.parametrize(("codec", "hidden"), [("aac", 1024), ("libmp3lame", 1105)])
def test_what_an_edit_list_hides_at_the_start_is_hidden_in_matroska_too(codec, hidden, tmp_path):
    source = with_sound(tmp_path / "in.mp4", codec)
    assert copied(source, tmp_path / "out.mkv", LOSSLESS) == []
    assert samples(tmp_path / "out.mkv") == samples(source)
    with av.open(str(tmp_path / "out.mkv")) as container:
        first = next(container.demux(audio=0))
        assert int.from_bytes(bytes(first.get_sidedata("skip_samples"))[:4], "little") == hidden
        assert first.pts == pytest.approx(-hidden / 48, abs=1)
        assert container.streams.video[0].start_time == 0
    (note,) = copied(source, tmp_path / "out.nut", LOSSLESS)
    assert note == f"audio stream 1 begins with {round(hidden / 48)} ms that are not to be heard, which .nut does not say"


@pytest.mark.parametrize(
    ("codec", "target", "told"), [("libmp3lame", ".mp4", True), ("libopus", ".mp4", False), ("libopus", ".ts", True)]
)
def test_what_is_hidden_at_the_end_is_told_where_it_is_lost(codec, target, told, tmp_path):
    source = with_sound(tmp_path / "in.mkv", codec)
    notes = copied(source, tmp_path / f"out{target}", LOSSLESS)
    assert bool([note for note in notes if note.startswith("audio stream 1 ends with ")]) == told
    assert copied(source, tmp_path / "out.mkv", LOSSLESS) == []
    assert samples(tmp_path / "out.mkv") == samples(source)


@pytest.mark.parametrize("suffix", [".flv", ".mkv", ".ts", ".mp4"])
def test_avi_has_all_begin_at_once_which_is_told(suffix, tmp_path):
    (note, *_) = copied(with_sound(tmp_path / f"in{suffix}", "ac3", sound=80), tmp_path / "out.avi", LOSSLESS)
    assert note in [f"audio stream 1 begins {late} ms earlier beside the picture than it did" for late in (74, 75, 80)]


@pytest.mark.parametrize("suffix", [".flv", ".mkv", ".ts", ".mp4"])
def test_a_late_picture_in_avi_stays_beside_its_sound(suffix, tmp_path):
    """But for the first one: there is none before it."""
    source = with_sound(tmp_path / f"in{suffix}", "ac3", picture=2000, sound=1800)
    notes = copied(source, tmp_path / "out.avi", LOSSLESS)
    assert [note for note in notes if note.startswith("the first picture begins with the sound, 2")]
    assert not [note for note in notes if "later beside" in note]
    with VideoReader(tmp_path / "out.avi") as reader:
        assert [float(frame.pts * reader.info.time_base) for frame in reader][:3] == pytest.approx([0, 0.24, 0.28], abs=0.041)
