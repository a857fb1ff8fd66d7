"""What a transport stream says of its streams beside their packets, tables of a broadcast, and sound that begins late."""

from fractions import Fraction

import av
import numpy as np
import pytest
from test_field_streams import copied
from test_lost_details import FAST, broadcast, checksum, noise, rewrite
from video_clips import Clip

from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.video import VideoReader, VideoWriter
from runtime.video.sources import open_source
from runtime.video.transport_stream import TransportStream

LIST, PICTURE, ADDED = 0x1000, 0x100, 0x200  # numbers of packets; the first two are FFmpeg's
CLOCK = 90000  # ticks per second
KLV = bytes.fromhex("060e2b34020b01010e01030101000000") + b"\x04TEST"
SUBTITLES = bytes.fromhex("20000f1000010002 0a040f8000010000ff")  # of DVB: nothing to be shown


def packet(number, content, counter=0):
    """Of a transport stream, filled up in front, where its head says so."""
    empty = 184 - len(content)
    filling = bytes([empty - 1, 0][: min(empty, 2)]).ljust(empty, b"\xff")
    return bytes([0x47, 0x40 | number >> 8, number & 255, (0x30 if empty else 0x10) | counter % 16]) + filling + content


def timed(content, pts):
    parts = ((pts >> 29 & 0xE | 0x21).to_bytes(1, "big"), (pts >> 14 & 0xFFFE | 1).to_bytes(2, "big"))
    body = b"\x84\x80\x05" + b"".join(parts) + (pts << 1 & 0xFFFE | 1).to_bytes(2, "big") + content
    return b"\0\0\x01\xbd" + len(body).to_bytes(2, "big") + body


def section(content):
    """Behind its first three bytes comes how long it is."""
    whole = content[:1] + (0xB000 | len(content) + 3).to_bytes(2, "big") + content[1:]
    return b"\0" + whole + checksum(whole)


def with_streams(path, *streams, others=(), program=b""):
    """A broadcast with streams of (kind, descriptors, content) added to its list, what is said of the `program`, and `others`,
    packets of the caller's."""
    data = broadcast(path).read_bytes()
    listed = b"".join(
        bytes([kind]) + (0xE000 | ADDED + place).to_bytes(2, "big") + (0xF000 | len(said)).to_bytes(2, "big") + said
        for place, (kind, said, _) in enumerate(streams)
    )
    packets = []
    for at in range(0, len(data), 188):
        old = data[at : at + 188]
        if int.from_bytes(old[1:3], "big") & 0x1FFF != LIST:
            packets.append(old)
            continue
        length = 3 + (int.from_bytes(old[6:8], "big") & 0xFFF) - 4
        table = old[5 : 5 + length]
        head = table[:1] + table[3:10] + (0xF000 | len(program)).to_bytes(2, "big") + program
        packets.append((old[:4] + section(head + table[12:] + listed)).ljust(188, b"\xff"))
    for number in range(3):
        at = 1.4 + number / 10
        packets += [
            packet(ADDED + place, timed(content, round(at * CLOCK)), number) for place, (_, _, content) in enumerate(streams)
        ]
    path.write_bytes(b"".join([*packets, *others]))
    return path


def described(*descriptors):
    return b"".join(bytes([number, len(content)]) + content for number, content in descriptors)


def telemetry(path):
    return with_streams(path, (0x06, described((0x05, b"KLVA")), KLV))


def data_of(path):
    with av.open(str(path)) as container:
        return [(each.pts, bytes(each)) for each in container.demux(data=0) if each.size]


def test_telemetry_keeps_its_times(tmp_path):
    source = telemetry(tmp_path / "in.ts")
    assert data_of(source) == [(pts, KLV) for pts in (126000, 135000, 144000)]
    assert rewrite(source, tmp_path / "out.ts") == []
    assert data_of(tmp_path / "out.ts") == data_of(source)
    assert TransportStream(tmp_path / "out.ts").descriptors[ADDED] == TransportStream(source).descriptors[ADDED]


def test_times_that_a_container_drops_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.video.muxer.TELEMETRY", set())
    source = telemetry(tmp_path / "in.ts")
    assert rewrite(source, tmp_path / "out.ts") == ["the times of data stream 1 (klv) are not in the output: .ts drops them"]
    assert data_of(tmp_path / "out.ts") == [(None, KLV)] * 3


def test_descriptors_of_a_copied_stream_are_told_where_they_are_lost(tmp_path):
    said = described((0x05, b"XYZW"), (0xFD, b"\0\x08\x3d"), (0xFD, b"\1"), (0x11, b"\xff"))
    source = with_streams(tmp_path / "in.ts", (0x06, said, KLV))
    assert TransportStream(source).descriptors[ADDED] == {0x05: b"XYZW", 0xFD: b"\0\x08\x3d\1", 0x11: b"\xff"}
    assert rewrite(source, tmp_path / "out.ts") == [
        "descriptor 0x05 and descriptor 0xfd of data stream 1 (said of the streams): not in the output as it was"
    ]
    (note,) = rewrite(source, tmp_path / "out.mkv")
    assert note.startswith("data stream 1 (bin_data) is not in the output")


def test_descriptors_that_the_output_has_are_not_missed(tmp_path):
    one = described((0x59, b"ger\x10\0\1\0\1"))
    two = described((0x59, b"fin\x20\0\2\0\3swe\x10\0\4\0\5"), (0x52, b"\7"))
    source = with_streams(tmp_path / "in.ts", (0x06, one, SUBTITLES), (0x06, two, SUBTITLES))
    assert rewrite(source, tmp_path / "out.ts") == [
        "descriptor 0x52 of subtitle stream 2 (said of the streams): not in the output as it was"
    ]


@pytest.mark.parametrize("options", [{}, {"mpegts_flags": "system_b"}])
@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3", "eac3"])
def test_sound_of_a_file_of_ffmpegs_loses_no_descriptors(codec, options, tmp_path):
    source = tmp_path / "in.ts"
    with av.open(str(source), "w", container_options=options) as container:
        picture, sound = container.add_stream("libx264", rate=25, options=FAST.options), with_sound(container, codec)
        sound.metadata["language"] = "sme"
        picture.width, picture.height = 64, 48
        mux_pictures(container, picture, range(12))
        mux_sound(container, sound, 0, 12)
    assert TransportStream(source).descriptors[PICTURE + 1][0x0A] == b"sme\0"
    assert rewrite(source, tmp_path / "out.ts") == []


def test_tables_of_a_broadcast_are_told_where_they_are_lost(tmp_path):
    time = packet(0x14, b"\0\x70\x70\x05\xe1\x2a\x12\x34\x56")
    network = packet(0x10, section(b"\x40\0\1\xc1\0\0\xf0\0\xf0\0"))
    source = with_streams(tmp_path / "in.ts", others=[time, network, time])
    assert TransportStream(source).other_tables == {"TDT", "NIT"}
    for name in ("out.ts", "out.mkv"):
        assert rewrite(source, tmp_path / name) == ["tables of the broadcast (NIT, TDT): not in the output as it was"]


def test_descriptors_of_a_program_are_told_where_another_has_none(tmp_path):
    source = with_streams(tmp_path / "in.ts", program=described((0x05, b"CUEI"), (0x0E, b"\xc0\0\1")))
    assert TransportStream(source).program_descriptors == {0x05: b"CUEI", 0x0E: b"\xc0\0\1"}
    assert rewrite(source, tmp_path / "out.ts") == [
        "the descriptors of the program 0x05 (which FFmpeg does not read): not in the output as it was"
    ]
    assert rewrite(source, tmp_path / "out.mkv") == []


def test_packets_that_no_list_names_are_told(tmp_path):
    source = with_streams(tmp_path / "in.ts", others=[packet(0x321, b"a maker's own")])
    assert TransportStream(source).unlisted == {0x321}
    for name in ("out.ts", "out.mkv"):
        assert rewrite(source, tmp_path / name) == [
            "the packets with PID 0x321 that no list names (which FFmpeg does not read): not in the output as it was"
        ]
    keys = packet(1, section(b"\1\xff\xff\xc1\0\0"))  # which name the packets with more of them
    assert TransportStream(with_streams(tmp_path / "keys.ts", others=[packet(0x321, b"keys"), keys])).unlisted == set()


@pytest.mark.parametrize("length", [0, 1, 187, 188, 188 * 5 - 1])
def test_no_transport_stream_lists_nothing(length, tmp_path):
    (tmp_path / "in.ts").write_bytes(b"G" * length)
    assert (TransportStream(tmp_path / "in.ts").descriptors, TransportStream(tmp_path / "in.ts").other_tables) == ({}, frozenset())


@pytest.mark.parametrize("seed", range(20))
def test_tables_of_garbage_end(seed, tmp_path):
    random = np.random.default_rng(seed)
    data = np.frombuffer(with_streams(tmp_path / "in.ts", (0x06, described((5, b"XYZW")), KLV)).read_bytes(), np.uint8)
    packets = data.reshape(-1, 188).copy()
    low, high = packets[:, 2], packets[:, 1] & 0x1F
    tables = (high == 0) & (low == 0) | (high << 8 | low == LIST)
    for index in np.flatnonzero(tables | (random.random(len(packets)) < 0.1)):
        places = random.integers(3, 60, 8)
        packets[index, places] = random.integers(0, 256, 8)
    (tmp_path / "in.ts").write_bytes(packets.tobytes())
    stream = TransportStream(tmp_path / "in.ts")
    for found in (stream.descriptors, stream.programs, stream.program_descriptors, stream.unlisted, stream.other_tables):
        assert len(found) < 2000


def with_sound(container, codec):
    sound = container.add_stream(codec, rate=48000)
    sound.layout = "mono"
    return sound


def mux_pictures(container, stream, numbers):
    for number in numbers:
        picture = noise(number)
        picture.pts, picture.time_base = number, Fraction(1, 25)
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def mux_sound(container, stream, begin, end):
    """From one picture to another, with a tone."""
    context = stream.codec_context
    size = context.frame_size or 1536
    for start in range(begin * 1920, end * 1920, size):
        tone = np.sin(np.arange(start, start + size) / 20)[np.newaxis]
        kind = context.format.name
        samples = (tone * 10000).astype(np.int16) if kind.startswith("s16") else tone.astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, kind, "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def late_in_a_program_stream(path):
    with av.open(str(path), "w", format="vob") as container:
        picture = container.add_stream("mpeg2video", rate=25)
        picture.width, picture.height = 64, 48
        first, second = with_sound(container, "mp2"), with_sound(container, "ac3")
        mux_pictures(container, picture, range(200))
        mux_sound(container, first, 0, 200)
        mux_sound(container, second, 160, 190)
    return path


def late_in_a_transport_stream(path, *more):
    """Files, joined, the second of which has one stream more."""
    parts = []
    for sounds, numbers in ((1, range(25)), (2, range(25, 50)), *more):
        part = path.with_name("part.ts")
        with av.open(str(part), "w") as container:
            picture = container.add_stream("libx264", rate=25, options=FAST.options)
            picture.width, picture.height = 64, 48
            streams = [with_sound(container, codec) for codec in ("mp2", "ac3")[:sounds]]
            mux_pictures(container, picture, numbers)
            for stream in streams:
                mux_sound(container, stream, numbers[0], numbers[-1])
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def in_the_middle(path):
    """Behind what FFmpeg looks at by itself, and before what it looks at for a length."""
    return late_in_a_transport_stream(path, (1, range(50, 200)))


LATE = {"in.vob": late_in_a_program_stream, "in.ts": late_in_a_transport_stream}


def sounds(path):
    """Of each stream of sound, its packets and when each begins, in seconds beside the first picture."""
    container = open_source(path).container
    with container:
        found, shown = {}, []
        for each in container.demux():
            if each.size and each.stream.type == "audio":
                found.setdefault(each.stream_index, []).append((float(each.pts * each.time_base), bytes(each)))
            elif each.size and each.pts is not None:
                shown.append(float(each.pts * each.time_base))
    return [[(time - min(shown), content) for time, content in packets] for _, packets in sorted(found.items())]


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4", "out.ts", "out.vob"])
@pytest.mark.parametrize("name", LATE)
def test_sound_that_begins_late_is_copied(name, target, tmp_path):
    source = LATE[name](tmp_path / name)
    with av.open(str(source)) as container:
        assert container.streams.audio[1].sample_rate == 0  # by what FFmpeg looks at
    notes = rewrite(source, tmp_path / target)
    assert not any("audio stream 2" in note for note in notes)
    before, after = sounds(source)[1], sounds(tmp_path / target)[1]
    assert [content for _, content in before] == [content for _, content in after]
    assert [time for time, _ in before] == pytest.approx([time for time, _ in after], abs=0.002)
    assert before[0][0] > 0.9


def test_sound_in_the_middle_alone_is_copied(tmp_path):
    """PyAV leaves out the packets of streams that it does not know of at the start."""
    source = in_the_middle(tmp_path / "in.ts")
    with av.open(str(source)) as container:
        assert len(container.streams) == 2
    assert not any("audio stream 2" in note for note in rewrite(source, tmp_path / "out.mkv"))
    before, after = sounds(source)[1], sounds(tmp_path / "out.mkv")[1]
    assert [content for _, content in before] == [content for _, content in after]
    assert before[0][0] == pytest.approx(after[0][0], abs=0.002)


def test_streams_that_begin_where_they_are_not_looked_for_are_refused(tmp_path, monkeypatch):
    source = in_the_middle(tmp_path / "in.ts")
    monkeypatch.setattr("runtime.video.sources.LOOKED_FOR_MORE", 1 << 12)
    expected = "in.ts: a stream begins late in it, where it is not looked for, expected all of them near its start: cut it there"
    with pytest.raises(VideoError, match=expected):
        rewrite(source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_sound_of_which_nothing_tells_its_rate_is_refused_for_that(tmp_path):
    source = with_streams(tmp_path / "in.ts", (0x81, described((0x05, b"AC-3")), KLV))
    reason = "nothing in the first 256 MiB of the file tells its rate and channels"
    expected = rf"in.ts: audio stream 1 \(ac3\) cannot be copied, {reason}: leave it out with --no-copy-audio-streams or"
    with VideoReader(source) as reader, pytest.raises(VideoError, match=expected):
        VideoWriter(tmp_path / "out.mkv", reader, FAST)
    with VideoReader(source) as reader:
        dropping = EncoderOptions(options=FAST.options, drop_unsupported=True)
        with VideoWriter(tmp_path / "out.mkv", reader, dropping) as writer:
            assert writer.notes == [f"audio stream 1 (ac3) is not in the output: {reason}"]
            for frame in reader:
                writer.write(frame, frame.luma)


@pytest.mark.parametrize(("codec", "told"), [("libx264", 1), ("mpeg2video", 0)])
def test_pictures_without_times_in_a_program_stream_are_told(codec, told, tmp_path):
    source = Clip(times=list(range(0, 2000, 40)), time_base=Fraction(1, 1000)).write(tmp_path / "in.mkv")
    encoder = EncoderOptions(codec, options={"crf": "51"} if codec == "libx264" else {})  # several in a packet
    notes = copied(source, tmp_path / "out.vob", encoder)
    assert len([note for note in notes if "pictures have no time in .vob" in note]) == told


@pytest.mark.parametrize(("times", "off"), [([0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 20, 21], True), (list(range(12)), False)])
def test_times_that_readers_of_a_program_stream_make_up_are_told(times, off, tmp_path):
    source = Clip(times=times, time_base=Fraction(1, 25), moving=True).write(tmp_path / "in.mp4")  # several pictures in a packet
    notes = copied(source, tmp_path / "out.mpg", EncoderOptions("mpeg2video"))
    assert [note.partition(" up to ")[0] for note in notes if "of some: an .mkv or .ts" in note] == ["pictures are shown"] * off
    notes = copied(source, tmp_path / "h264.mpg", EncoderOptions(options={"preset": "ultrafast"}))
    [note] = [note for note in notes if "have no time in .mpg" in note]
    assert note.endswith("an .mkv or .ts keeps them" if off else "add -c mpeg2video, whose pictures have theirs")
