"""A file whose end is missing is known by its own structure, where what is left decodes without an error."""

from fractions import Fraction

import av
import numpy as np
import pytest
from test_field_inputs import frames_of, piped, read_from_pipe
from video_clips import Clip

from runtime.errors import VideoError
from runtime.video import VideoReader

FRAMES = 30
CODECS = {".webm": "libvpx", ".ogv": "libvpx", ".gif": "gif", ".y4m": "wrapped_avframe", ".mxf": "mpeg2video"}
REFUSED = [".mkv", ".ogv", ".webm", ".mp4", ".mxf", ".y4m"]
NOTED = [(".avi", "bytes shorter than it says"), (".gif", "no mark at its end"), (".nut", "no index"), (".flv", "a whole tag")]


def made(path):
    with av.open(str(path), "w", format="yuv4mpegpipe" if path.suffix == ".y4m" else None) as container:
        stream = container.add_stream(CODECS.get(path.suffix, "libx264"), rate=25)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "rgb8" if path.suffix == ".gif" else "yuv420p"
        for number in range(FRAMES):
            picture = av.VideoFrame.from_ndarray((np.indices((96, 96)).sum(0) + number).astype(np.uint8), format="yuv420p")
            picture = picture.reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def without(source, missing):
    part = source.with_name(f"cut{source.suffix}")
    part.write_bytes(source.read_bytes()[:-missing])
    return part


@pytest.mark.parametrize("suffix", REFUSED)
def test_an_end_that_is_missing_for_certain_is_refused(suffix, tmp_path):
    source = made(tmp_path / f"in{suffix}")
    assert frames_of(source) == (FRAMES, [])
    part = without(source, 5 if suffix != ".mxf" else source.stat().st_size // 7)
    with pytest.raises(VideoError, match=r"broken or cut off at frame \d+ \("):
        frames_of(part)
    frames, notes = frames_of(part, salvage=True)
    assert frames >= FRAMES - 6
    assert "broken or cut off" in notes[-1]


@pytest.mark.parametrize(("suffix", "message"), NOTED)
def test_an_end_that_may_be_missing_is_noted(suffix, message, tmp_path):
    source = made(tmp_path / f"in{suffix}")
    assert frames_of(source) == (FRAMES, [])
    _, notes = frames_of(without(source, 5))
    assert [note for note in notes if message in note]
    assert all("the decoder met damage in 1 coded pictures" in note for note in notes if message not in note)


@pytest.mark.parametrize("suffix", [".flv", ".mxf"])
def test_a_header_that_says_its_length_counts(suffix, tmp_path):
    source = made(tmp_path / f"in{suffix}")
    with av.open(str(source)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    with pytest.raises(VideoError, match=r"at 0\.\d\d of 1\.\d\d s"):
        frames_of(without(source, source.stat().st_size - places[10]))


def test_a_live_matroska_file_has_no_length_and_whole_elements(tmp_path):
    """Its sizes are unknown where its writer could not go back."""
    source = tmp_path / "in.mkv"
    source.write_bytes(piped("matroska"))
    assert frames_of(source) == (FRAMES, [])
    with pytest.raises(VideoError, match=r"bytes are missing|within an element"):
        frames_of(without(source, 5))


def test_fragments_whose_sound_was_cut_off_are_told(tmp_path):
    plain = Clip(times=list(range(30)), time_base=Fraction(1, 25), audio=["aac"], options={"preset": "ultrafast"}).write(
        tmp_path / "plain.mkv"
    )
    source = tmp_path / "in.mp4"
    flags = {"movflags": "frag_keyframe+empty_moov+skip_trailer"}
    with av.open(str(plain)) as before, av.open(str(source), "w", container_options=flags) as after:
        copies = [after.add_stream_from_template(stream) for stream in before.streams]
        for packet in before.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    assert frames_of(source) == (30, [])
    with pytest.raises(VideoError, match=r"cut off at frame 30 \(\d+ bytes are missing\)"):
        frames_of(without(source, 300))


def test_y4m_through_a_pipe_tells_half_a_picture():
    data = piped("yuv4mpegpipe", "wrapped_avframe")
    assert read_from_pipe(data).stdout.decode() == "30 []\n"
    assert b"broken or cut off at frame 29 (it ends within a picture)" in read_from_pipe(data[:-100]).stderr


def test_an_ogg_that_ends_between_two_pages_is_noted(tmp_path):
    whole = made(tmp_path / "in.ogv")
    data = whole.read_bytes()
    with VideoReader(without(whole, len(data) - data.rfind(b"OggS"))) as reader:
        list(reader)
        assert [note for note in reader.notes if "no mark at its end" in note]
    with VideoReader(whole) as reader:
        assert len(list(reader)) == FRAMES
        assert reader.notes == []
