"""Nothing is lost without a note: covers, second pictures, streams without a decoder, and the inventory of a source."""

import dataclasses
from contextlib import suppress
from fractions import Fraction

import av
import pytest
from test_field_side_data import jpeg
from test_field_streams import FFV1, LOSSLESS, copied
from video_clips import Clip

from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.files.time_ranges import TimeRange
from runtime.video import VideoReader, VideoWriter
from runtime.video.format import VideoInfo
from runtime.video.inventory import FACTS, inventory_of, settle

RATE = Fraction(1, 25)


def with_cover(path, mapped=lambda number: True):
    clip = Clip(times=list(range(5)), time_base=RATE, audio=["aac"]).write(path.with_name(f"clip{path.suffix}"))
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        copies = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        if path.suffix == ".mkv":
            after.add_attachment("cover.jpg", "image/jpeg", jpeg(1))
        else:
            cover = after.add_stream("mjpeg", rate=25)
            cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
        after.start_encoding()
        if path.suffix != ".mkv":
            packet = av.Packet(jpeg(1))
            packet.stream, packet.time_base, packet.pts, packet.dts, packet.is_keyframe = cover, RATE, 0, 0, True
            after.mux(packet)
        for packet in before.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    return path


def covers_of(path):
    with av.open(str(path)) as container:
        found = [stream.index for stream in container.streams if stream.disposition & av.stream.Disposition.attached_pic]
        return [bytes(packet) for packet in container.demux() if packet.stream_index in found and packet.size]


@pytest.mark.parametrize("source", [".mp4", ".mkv"])
@pytest.mark.parametrize(("target", "kept"), [(".mp4", True), (".m4v", False), (".mkv", True), (".mov", False), (".nut", False)])
def test_cover_art_is_kept_or_noted(source, target, kept, tmp_path):
    notes = copied(with_cover(tmp_path / f"in{source}"), tmp_path / f"out{target}", LOSSLESS if target != ".nut" else FFV1)
    assert covers_of(tmp_path / f"out{target}") == ([jpeg(1)] if kept else [])
    said = [note for note in notes if note.endswith("covers: an .mp4 or .mkv does")]
    assert bool(said) is not kept


def test_a_second_picture_is_left_out_for_a_reason_that_is_true(tmp_path):
    clip = Clip("ffv1", times=list(range(3)), time_base=RATE).write(tmp_path / "clip.mkv")
    with av.open(str(clip)) as before, av.open(str(tmp_path / "in.mkv"), "w") as after:
        copies = [after.add_stream_from_template(before.streams.video[0]) for _ in range(2)]
        for packet in before.demux(video=0):
            for copy in copies if packet.size else ():
                packet.stream = copy
                after.mux(packet)
    (note,) = copied(tmp_path / "in.mkv", tmp_path / "out.mkv", FFV1)
    assert note == "video stream 1 (ffv1) is not in the output: one picture is deblurred, and another beside it would stay blurry"


@pytest.mark.parametrize("fourcc", [b"apac", b"mha1", b"zzzz"])
def test_sound_without_a_decoder_is_kept_refused_or_noted(fourcc, tmp_path):
    source = Clip(times=list(range(3)), time_base=RATE, audio=["aac"]).write(tmp_path / "in.mp4")
    source.write_bytes(source.read_bytes().replace(b"mp4a", fourcc))
    for target in ("out.mp4", "out.mkv"):
        with suppress(VideoError):  # anything else would be a fault
            copied(source, tmp_path / target)
        dropped = copied(source, tmp_path / target, EncoderOptions(options={"qp": "0"}, drop_unsupported=True))
        assert [note for note in dropped if note.startswith("audio stream 1")] or len(av.open(str(tmp_path / target)).streams) == 2


RICH = Clip(
    times=list(range(6)),
    time_base=RATE,
    audio=["aac", "aac"],
    color=(2, 9, 9, 16),
    aspect=Fraction(4, 3),
    rotation=90,
    metadata={"title": "Title", "artist": "Somebody", "comment": "said"},
    chapters=[(0, 100, "one"), (100, 200, "two")],
)


@pytest.mark.parametrize(
    ("target", "encoder"),
    [
        ("out.mp4", LOSSLESS),
        ("out.mov", LOSSLESS),
        ("out.mkv", LOSSLESS),
        ("out.mkv", FFV1),
        ("out.nut", FFV1),
        ("out.ts", LOSSLESS),
        ("out.avi", EncoderOptions(options={"qp": "0", "bf": "0"})),
        ("out.flv", LOSSLESS),
    ],
)
def test_every_entry_of_the_inventory_is_kept_noted_or_refused(target, encoder, tmp_path):
    source = RICH.write(tmp_path / "in.mp4")
    try:
        notes = copied(source, tmp_path / target, encoder)
    except VideoError:
        assert not (tmp_path / target).exists()
        return
    with VideoReader(source) as reader:
        list(reader)
        assert len(inventory_of(reader).streams) >= 2
        assert settle(reader, tmp_path / target, notes) == []  # nothing that no note names
    with VideoReader(source) as reader, VideoReader(tmp_path / target) as output:
        before, after = inventory_of(reader), inventory_of(output)
    for name, value in before.facts.items():
        assert after.facts.get(name) == value or any(name in note for note in notes), name
    for name in before.tags:
        assert name in {key.lower() for key in after.tags} or any(name in note for note in notes), name
    assert len(after.streams) >= 2 or any("stream" in note for note in notes)


def test_every_fact_of_a_video_is_in_the_inventory():
    assert FACTS.keys() == {field.name for field in dataclasses.fields(VideoInfo)}


def test_side_data_of_a_later_frame_is_in_the_inventory(tmp_path):
    frames = [av.VideoFrame(64, 48, "yuvj420p") for _ in range(3)]
    with av.open(str(tmp_path / "in.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, RATE
            for packet in stream.encode(frame):
                container.mux(packet)
        packet = av.Packet(jpeg(1))
        packet.stream, packet.time_base, packet.pts, packet.dts, packet.is_keyframe = stream, RATE, 3, 3, True
        container.mux(packet)
    notes = copied(tmp_path / "in.avi", tmp_path / "out.mp4")
    assert [note for note in notes if note == "side data EXIF: not in the output as it was"]


def test_sound_that_ends_before_the_part_is_told_so(tmp_path):
    whole = Clip(times=list(range(0, 2000, 40)), time_base=Fraction(1, 1000), audio=["aac"]).write(tmp_path / "whole.mp4")
    with av.open(str(whole)) as before, av.open(str(tmp_path / "in.mp4"), "w") as after:
        copies = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.size and (packet.stream.type == "video" or packet.pts * packet.time_base < Fraction(1, 2)):
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    part = TimeRange(Fraction(1))
    with VideoReader(tmp_path / "in.mp4", part=part) as reader, VideoWriter(tmp_path / "out.mp4", reader, LOSSLESS) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert "audio stream 1 (aac) is not in the output: it has nothing in the part" in writer.notes


def test_a_chain_of_ogg_is_called_one(tmp_path):
    link = Clip("libvpx", times=list(range(5)), time_base=Fraction(1, 25)).write(tmp_path / "link.ogg").read_bytes()
    (tmp_path / "in.ogg").write_bytes(link + link)
    with pytest.raises(VideoError, match=r"is a chain, other streams follow behind its frame 5.*--salvage"):
        copied(tmp_path / "in.ogg", tmp_path / "out.mkv")
    with VideoReader(tmp_path / "in.ogg", salvage=True) as reader:
        assert len(list(reader)) == 5
    (tmp_path / "cut.ogg").write_bytes(link[: len(link) * 2 // 3])
    with pytest.raises(VideoError, match=r"broken or cut off .*it ends within a page"):
        copied(tmp_path / "cut.ogg", tmp_path / "out.mkv")
