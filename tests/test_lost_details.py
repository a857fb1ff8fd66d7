"""What a container does not keep of programs, streams, chapters and cropping is told, and what it keeps is not."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from video_clips import Clip

from runtime.encoder_options import EncoderOptions
from runtime.video import VideoReader, VideoWriter
from runtime.video.services import services_of

FAST = EncoderOptions(options={"preset": "ultrafast", "bf": "0"})
TIMES = {"times": [number * 40 for number in range(12)], "time_base": Fraction(1, 1000), "options": FAST.options}
SERVICE = {"service_name": "Kanal \u00e5tte", "service_provider": "NRK", "mpegts_service_id": "77"}


def rewrite(source, target):
    with VideoReader(source) as reader, VideoWriter(target, reader, FAST) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    return writer.notes


def broadcast(path, **service):
    numbers = {name: value for name, value in service.items() if name.startswith("mpegts")}
    with av.open(str(path), "w", container_options=numbers) as container:
        container.metadata.update({name: value for name, value in service.items() if name not in numbers})
        stream = container.add_stream("libx264", rate=25, options=FAST.options)
        stream.width, stream.height = 64, 48
        for number in range(12):
            noise = np.random.default_rng(number).integers(0, 255, (72, 64))
            picture = av.VideoFrame.from_ndarray(noise.astype(np.uint8), format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_the_service_of_a_transport_stream_is_told_where_it_is_lost(tmp_path):
    source = broadcast(tmp_path / "in.ts", **SERVICE)
    assert services_of(source) == {77: ("NRK", "Kanal \u00e5tte")}
    for name in ("out.mkv", "out.ts"):
        assert rewrite(source, tmp_path / name) == ["the service (77, Kanal \u00e5tte of NRK): not in the output as it was"]


def test_a_service_that_ffmpeg_made_up_is_not_missed(tmp_path):
    source = broadcast(tmp_path / "in.ts")
    assert services_of(source) == {}
    assert rewrite(source, tmp_path / "out.mkv") == []


@pytest.mark.parametrize("length", [0, 1, 187, 188 * 3])
def test_no_transport_stream_has_no_services(length, tmp_path):
    (tmp_path / "in.ts").write_bytes(b"G" * length)
    assert services_of(tmp_path / "in.ts") == {}


def detailed(path):
    clip = Clip(**TIMES, audio=["aac", "aac"], chapters=[(0, 100, "a"), (300, 400, "b")])
    clip.write(path.with_name("plain.mkv"))
    with av.open(str(path.with_name("plain.mkv"))) as before, av.open(str(path), "w") as after:
        copies = [after.add_stream_from_template(stream) for stream in before.streams]
        copies[0].metadata["stereo_mode"] = "left_right"
        copies[2].disposition = Disposition.original
        copies[2].metadata["language"] = "sme"
        after.set_chapters(before.chapters())
        for packet in before.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    return path


def test_details_of_streams_and_gaps_between_chapters_are_told_where_they_are_lost(tmp_path):
    source = detailed(tmp_path / "in.mkv")
    assert rewrite(source, tmp_path / "out.mkv") == []
    notes = rewrite(source, tmp_path / "out.mp4")
    assert "gaps between or behind chapters: not in the output as it was" in notes
    (note,) = (note for note in notes if "(said of the streams)" in note)
    assert "stereo_mode of video stream 0" in note
    assert "disposition original of audio stream 2" in note


def test_the_name_of_a_cover_is_told_where_it_is_lost(tmp_path):
    source = tmp_path / "in.mkv"
    picture = av.CodecContext.create("png", "w")
    picture.width, picture.height, picture.pix_fmt, picture.time_base = 8, 8, "rgb24", Fraction(1)
    png = bytes(picture.encode(av.VideoFrame(8, 8, "rgb24"))[0])
    with av.open(str(Clip(**TIMES).write(tmp_path / "plain.mkv"))) as before, av.open(str(source), "w") as after:
        copy = after.add_stream_from_template(before.streams.video[0])
        after.add_attachment("small_cover.png", "image/png", png)
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = copy
                after.mux(packet)
    assert rewrite(source, tmp_path / "out.mkv") == []
    assert rewrite(source, tmp_path / "out.mp4") == [
        "filename of video stream 1 (said of the streams): not in the output as it was"
    ]


def test_a_clean_aperture_is_told_where_it_is_lost(tmp_path):
    """The box is put where another of its size, of free space, would be."""
    data = Clip(**TIMES).write(tmp_path / "plain.mp4").read_bytes()
    moov = data.index(b"moov")
    place = data.index(b"stsd", moov) + 12  # the entry
    clap = b"\0\0\0\x28clap" + b"".join(number.to_bytes(4, "big") for number in (60, 1, 44, 1, 0, 1, 0, 1))
    grown = bytearray(data)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        at = grown.index(name, moov) - 4
        grown[at : at + 4] = (int.from_bytes(grown[at : at + 4], "big") + len(clap)).to_bytes(4, "big")
    size = int.from_bytes(grown[place : place + 4], "big")
    grown[place : place + 4] = (size + len(clap)).to_bytes(4, "big")
    grown[place + size : place + size] = clap
    source = tmp_path / "in.mp4"
    assert data.index(b"mdat") < moov  # so that the places of the samples stay
    source.write_bytes(grown)
    assert rewrite(tmp_path / "plain.mp4", tmp_path / "out.mkv") == []
    assert "the clean aperture (clap): not in the output as it was" in rewrite(source, tmp_path / "out.mkv")
