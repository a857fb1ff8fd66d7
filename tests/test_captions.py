"""Subtitles that stand until the next one (PGS, DVB): what is shown when a part begins and ends is shown and cleared there."""

import struct
from fractions import Fraction

import av
import pytest
from test_field_streams import LOSSLESS
from video_clips import Clip

from runtime.files.time_ranges import TimeRange
from runtime.video import VideoReader, VideoWriter
from runtime.video.captions import KINDS

MS = Fraction(1, 1000)
TIMES = (0, 2000, 2500, 4000)  # milliseconds: shown and cleared in turn


def pgs(number, objects, state=0x80):
    """A display set with one object, or none."""
    placed = struct.pack(">HBBHH", 0, 0, 0, 10, 30) * objects
    segments = [(0x16, struct.pack(">HHBHBBBB", 64, 48, 0x10, number, state if objects else 0, 0, 0, objects) + placed)]
    segments.append((0x17, bytes([1, 0]) + struct.pack(">HHHH", 10, 30, 16, 4)))
    if objects:
        lines = b"".join(bytes([0, 0x80 | 16, 1, 0, 0]) for _ in range(4))
        segments.append((0x14, bytes([0, 0, 1, 235, 128, 128, 255])))
        segments.append((0x15, struct.pack(">HBB", 0, 0, 0xC0) + struct.pack(">I", len(lines) + 4)[1:] + b"\0\x10\0\4" + lines))
    return b"".join(struct.pack(">BH", kind, len(content)) + content for kind, content in [*segments, (0x80, b"")])


def dvb(number, objects):
    """A page with one region, or none."""
    region = struct.pack(">BBHH", 0, 0, 10, 30) * objects
    page = bytes([30, number << 4 | 0x0B]) + region
    return struct.pack(">BBHH", 0x0F, 0x10, 1, len(page)) + page + struct.pack(">BBHH", 0x0F, 0x80, 1, 0)


def with_captions(path, made, codec="pgssub", times=TIMES):
    clip = Clip(times=list(range(0, 5000, 100)), time_base=MS, options={"g": "10"})
    with av.open(str(clip.write(path.with_name("whole.mkv")))) as before, av.open(str(path), "w") as after:
        video, captions = after.add_stream_from_template(before.streams.video[0]), after.add_mux_stream(codec)
        after.start_encoding()
        packets = [(packet.pts, packet, video) for packet in before.demux(video=0) if packet.size]
        for number, time in enumerate(times):
            packet = av.Packet(made(number, 1 - number % 2))
            packet.time_base, packet.pts, packet.dts, packet.is_keyframe = MS, time, time, True
            packets.append((time, packet, captions))
        for _, packet, stream in sorted(packets, key=lambda each: each[0]):
            packet.stream = stream
            after.mux(packet)
    return path


def part_of(source, target, start, end, limit=None):
    """What is shown (True) and cleared in the part, with milliseconds of the output; notes."""
    asked = TimeRange(Fraction(start), None if end is None else Fraction(end)) if start is not None else None
    with VideoReader(source, limit, part=asked) as reader, VideoWriter(target, reader, LOSSLESS) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    with av.open(str(target)) as container:
        state, _ = KINDS[container.streams[1].name]
        packets = [packet for packet in container.demux() if packet.stream_index == 1 and packet.size]
        assert all(packet.decode() is not None for packet in packets)
        found = [(not state(bytes(packet)).clears, round(packet.pts * packet.time_base * 1000)) for packet in packets]
    return found, [note for note in reader.notes if "subtitle" in note]


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        ("1", "4", [(True, 0), (False, 1000), (True, 1500), (False, 3000)]),
        ("0", "2", [(True, 0), (False, 2000)]),
        ("1", "3", [(True, 0), (False, 1000), (True, 1500), (False, 2000)]),
        ("2", "3", [(True, 500), (False, 1000)]),
        ("2.2", "2.4", []),
        ("3", None, [(True, 0), (False, 1000)]),
    ],
)
def test_what_stands_at_the_ends_of_a_part_is_shown_and_cleared_there(start, end, shown, tmp_path):
    source = with_captions(tmp_path / "in.mkv", pgs)
    assert part_of(source, tmp_path / "out.mkv", start, end) == (shown, [])


def test_what_stands_behind_a_limit_is_cleared(tmp_path):
    source = with_captions(tmp_path / "in.mkv", pgs)
    assert part_of(source, tmp_path / "out.mkv", None, None, limit=10) == ([(True, 0), (False, 1000)], [])
    assert part_of(source, tmp_path / "all.mkv", None, None)[0] == [(True, 0), (False, 2000), (True, 2500), (False, 4000)]


def test_the_last_one_of_many_before_the_part_stands(tmp_path):
    source = with_captions(tmp_path / "in.mkv", pgs, times=range(0, 4000, 20))
    assert part_of(source, tmp_path / "out.mkv", "3.97", "4.5")[0] == [(True, 0), (False, 10)]


def test_dvb_too(tmp_path):
    source = with_captions(tmp_path / "in.mkv", dvb, "dvbsub")
    assert part_of(source, tmp_path / "out.mkv", "1", "3")[0] == [(True, 0), (False, 1000), (True, 1500), (False, 2000)]


def test_what_needs_more_than_is_there_is_told(tmp_path):
    source = with_captions(tmp_path / "in.mkv", lambda number, objects: pgs(number, objects, state=0))
    (note,) = part_of(source, tmp_path / "out.mkv", "1", "4")[1]
    assert note == "subtitle stream 1: what is shown when the part begins is not all in the output"
