"""What a container does not keep of programs, streams, chapters and cropping is told, and what it keeps is not."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from test_rehearsal import with_sound
from video_clips import Clip, read

from runtime.encoder_options import EncoderOptions
from runtime.video import VideoReader, VideoWriter
from runtime.video.fragments import gamma_of
from runtime.video.loops import plays_of
from runtime.video.segments import ResumableWriter
from runtime.video.transport_stream import Program, TransportStream

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
    assert TransportStream(source).services == {77: ("NRK", "Kanal \u00e5tte")}
    assert rewrite(source, tmp_path / "out.mkv") == ["the service (77, Kanal \u00e5tte of NRK): not in the output as it was"]


def test_names_and_numbers_of_a_transport_stream_are_kept_in_another(tmp_path):
    numbers = {"mpegts_start_pid": "4113", "mpegts_pmt_start_pid": "256", "mpegts_transport_stream_id": "9"}
    source = broadcast(tmp_path / "in.ts", **SERVICE, **numbers)
    for name in ("out.ts", "out.m2ts"):
        assert rewrite(source, tmp_path / name) == []
        assert TransportStream(tmp_path / name).services == TransportStream(source).services
        assert TransportStream(tmp_path / name).programs == TransportStream(source).programs == {77: {4113}}
        assert TransportStream(tmp_path / name).program_with(4113) == Program(77, 256, 9, ("NRK", "Kanal \u00e5tte"))


def test_numbers_that_another_transport_stream_cannot_have_are_told(tmp_path, monkeypatch):
    source = broadcast(tmp_path / "in.ts", mpegts_start_pid="4113", mpegts_service_id="5")
    monkeypatch.setattr("runtime.video.muxer.NUMBERS", range(0x20, 0x100))
    assert rewrite(source, tmp_path / "out.ts") == [
        "numbers of streams and programs (PID 0x1011, program 5): not in the output as it was"
    ]


def test_a_service_that_ffmpeg_made_up_is_not_missed(tmp_path):
    source = broadcast(tmp_path / "in.ts")
    assert TransportStream(source).services == {}
    assert rewrite(source, tmp_path / "out.mkv") == []


@pytest.mark.parametrize("length", [0, 1, 187, 188 * 3])
def test_no_transport_stream_has_no_services(length, tmp_path):
    (tmp_path / "in.ts").write_bytes(b"G" * length)
    assert TransportStream(tmp_path / "in.ts").services == {}


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


def test_the_gamma_of_a_quicktime_file_is_kept_in_another_and_told_elsewhere(tmp_path):
    source = tmp_path / "in.mov"
    with av.open(str(source), "w", container_options={"movflags": "+write_gama", "mov_gamma": "1.8"}) as container:
        stream = container.add_stream("libx264", rate=25, options=FAST.options)
        stream.width, stream.height = 64, 48
        container.mux(stream.encode(noise(0)) + stream.encode(None))
    assert gamma_of(source) == Fraction(round(1.8 * (1 << 16)), 1 << 16)
    assert rewrite(source, tmp_path / "out.mov") == []
    assert gamma_of(tmp_path / "out.mov") == gamma_of(source)
    for suffix in (".mp4", ".mkv"):
        assert rewrite(source, tmp_path / f"out{suffix}") == ["the gamma (gama): not in the output as it was"]
        assert gamma_of(tmp_path / f"out{suffix}") is None


def noise(number, size=(72, 64)):
    return av.VideoFrame.from_ndarray(np.random.default_rng(number).integers(0, 255, size).astype(np.uint8), format="yuv420p")


@pytest.mark.parametrize("kind", [VideoWriter, ResumableWriter])
def test_a_stereo_mode_is_said_once(kind, tmp_path):
    """FFmpeg refuses pictures that have it twice, from the container and from the encoder."""
    source = detailed(tmp_path / "in.mkv")
    with VideoReader(source) as reader, kind(tmp_path / "out.mkv", reader, FAST) as writer:
        if kind is ResumableWriter:
            writer.begin({}, (8, 8))
        for frame in reader:
            writer.write(frame, frame.luma)
    for path in (source, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            told = [data.type.name for data in next(container.decode(video=0)).side_data]
            assert told.count("STEREO3D") == 1
            assert container.streams.video[0].metadata["stereo_mode"] == "left_right"


def test_what_is_said_of_chapters_beside_titles_is_told_where_it_is_lost(tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(Clip(**TIMES).write(tmp_path / "plain.mkv"))) as before, av.open(str(source), "w") as after:
        copy = after.add_stream_from_template(before.streams.video[0])
        told = {"title": "A", "artist": "Mari"}
        after.set_chapters([{"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": told}])
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = copy
                after.mux(packet)
    assert rewrite(source, tmp_path / "out.mkv") == []
    assert "artist of chapters: not in the output as it was" in rewrite(source, tmp_path / "out.mp4")


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">Senja</x:xmpmeta>'
XMP_NAME = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def with_box(path, name, content):
    Clip(**TIMES).write(path)
    with path.open("ab") as file:
        file.write((24 + len(content)).to_bytes(4, "big") + b"uuid" + name + content)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".nut"])
def test_xmp_is_kept(suffix, tmp_path):
    source = with_box(tmp_path / "in.mp4", XMP_NAME, XMP)
    assert rewrite(source, tmp_path / f"out{suffix}") == []
    with av.open(str(tmp_path / f"out{suffix}"), options={"export_xmp": "1"}) as container:
        told = {name.lower(): value for name, value in container.metadata.items()}
    assert told["xmp"].encode() == XMP
    if suffix == ".mp4":
        assert XMP_NAME + XMP in (tmp_path / "out.mp4").read_bytes()


def test_boxes_that_are_lost_are_noted(tmp_path):
    source = with_box(tmp_path / "xmp.mp4", XMP_NAME, XMP)
    assert "metadata is not in the output: .avi cannot hold xmp" in rewrite(source, tmp_path / "out.avi")
    source = with_box(tmp_path / "own.mp4", b"G" * 16, b"12345678")
    assert rewrite(source, tmp_path / "out.mp4") == [f"the box {'47' * 16} (uuid): not in the output as it was"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
def test_sound_in_front_of_the_picture_stays_there(suffix, tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(Clip(**TIMES, audio=["aac"]).write(tmp_path / "plain.mkv"))) as before, av.open(str(source), "w") as after:
        copies = {stream.index: after.add_stream_from_template(stream) for stream in reversed(before.streams)}
        for packet in before.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    unsaid = ["audio stream 0 begins with 21 ms that are not to be heard, which .ts does not say"]
    assert rewrite(source, tmp_path / f"out{suffix}") == (unsaid if suffix == ".ts" else [])
    assert [kind for kind, *_ in read(tmp_path / f"out{suffix}").streams] == ["audio", "video"]


def test_mpeg2s_own_timecode_is_told_where_it_is_lost(tmp_path):
    source = tmp_path / "in.mpg"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"gop_timecode": "01:02:03:04"})
        stream.width, stream.height = 64, 48
        for number in range(12):
            picture = noise(number)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with VideoReader(source) as reader:
        assert reader.gop_timecode[:8] == "01:02:03"
    (note,) = rewrite(source, tmp_path / "out.mkv")
    assert note == "side data is not in the output: libx264 in .mkv lost GOP_TIMECODE"  # and no empty PANSCAN
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mpg", reader, EncoderOptions("mpeg2video")) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert [note for note in writer.notes if "off their times" not in note] == ["GOP_TIMECODE: not in the output as it was"]


def programs(path):
    """Two, of a picture and a sound each; FFmpeg has no way to make them, but for one at a time."""
    streams = []
    for number in range(2):
        options = {"mpegts_start_pid": str(0x100 + 16 * number), "mpegts_pmt_start_pid": str(0x1000 + number)}
        with av.open(str(path), "w", container_options={**options, "mpegts_service_id": str(1 + number)}) as container:
            picture, sound = container.add_stream("libx264", rate=25, options=FAST.options), container.add_stream("ac3", rate=48000)
            picture.width, picture.height = 64, 48
            for time in range(25):
                frame = noise(time)
                frame.pts, frame.time_base = time, Fraction(1, 25)
                container.mux(picture.encode(frame))
                samples = av.AudioFrame.from_ndarray(np.zeros((2, 1536), np.float32), "fltp", "stereo")
                samples.sample_rate, samples.pts = 48000, 1536 * time
                container.mux(sound.encode(samples))
            container.mux(picture.encode(None))
            container.mux(sound.encode(None))
        data = path.read_bytes()
        packets = [data[at : at + 188] for at in range(0, len(data), 188)]
        streams.append([packet for packet in packets if (packet[1] & 0x1F, packet[2]) not in ((0, 0), (0, 0x11))])
    content = bytes.fromhex("00b011 0001c10000 0001f000 0002f001")
    listed = b"\x47\x40\0\x10\0" + content + checksum(content)
    mixed = [packet for pair in zip(*streams) for packet in pair]
    path.write_bytes(listed.ljust(188, b"\xff") + b"".join(mixed))
    return path


def checksum(data):
    """CRC-32 of MPEG-2."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register.to_bytes(4, "big")


def test_sound_of_another_program_than_the_pictures_is_told(tmp_path):
    source = programs(tmp_path / "in.ts")
    assert TransportStream(source).programs == {1: {0x100, 0x101}, 2: {0x110, 0x111}}
    left_out, told = rewrite(source, tmp_path / "out.mkv")
    assert left_out.startswith("video stream 2 (h264) is not in the output")
    assert told == "audio stream 3: of another program than the picture, and copied all the same"
    assert rewrite(broadcast(tmp_path / "one.ts"), tmp_path / "out.mkv") == []


@pytest.mark.parametrize("length", [0, 1, 187, 188 * 3])
def test_no_transport_stream_has_no_programs(length, tmp_path):
    (tmp_path / "in.ts").write_bytes(b"G" * length)
    assert TransportStream(tmp_path / "in.ts").programs == {}


def test_a_limited_range_that_is_said_alone_is_the_same_unsaid(tmp_path):
    """H.264 has no place for it without other tags; where nothing is said, players take it for limited."""
    source = Clip(**TIMES, color=(1, 2, 2, 2)).write(tmp_path / "in.mkv")
    notes = rewrite(source, tmp_path / "out.mp4")
    assert not any("range" in note for note in notes)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert (reader.info.color_tags[0], reader.info.color_range) == (0, "limited")


def test_layers_of_mpeg_audio_that_mp4_does_not_tell_apart_are_no_loss(tmp_path):
    assert rewrite(with_sound(tmp_path / "in.mkv", "mp2"), tmp_path / "out.mp4") == []


@pytest.mark.parametrize(("suffix", "key"), [(".mp4", "name"), (".mov", "name"), (".mkv", "title")])
def test_names_of_the_tracks_of_an_mp4_are_kept(suffix, key, tmp_path):
    """They are read under another name than they are written under."""
    with_sound(tmp_path / "plain.mkv", "aac")
    with av.open(str(tmp_path / "plain.mkv")) as before, av.open(str(tmp_path / "in.mp4"), "w") as after:
        copies = [after.add_stream_from_template(stream) for stream in before.streams]
        for copy in copies:
            copy.metadata["title"] = f"track {copy.index}"
        for packet in before.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                after.mux(packet)
    assert rewrite(tmp_path / "in.mp4", tmp_path / f"out{suffix}") == []
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert [stream.metadata[key] for stream in container.streams] == ["track 0", "track 1"]


@pytest.mark.parametrize(
    ("layout", "lost"), [("5.1(side)", True), ("3.0", True), ("5.1", False), ("stereo", False), ("mono", False)]
)
def test_which_channels_there_are_is_told_where_it_is_lost(layout, lost, tmp_path):
    """Matroska counts those of PCM; players take the usual ones for their number."""
    source = tmp_path / "in.mov"
    with av.open(str(source), "w") as container:
        video, sound = (
            container.add_stream("libx264", rate=25, options=FAST.options),
            container.add_stream("pcm_s16le", layout=layout),
        )
        video.width, video.height = 64, 48
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1920 * sound.layout.nb_channels), np.int16), "s16", layout)
        samples.sample_rate, samples.pts = 48000, 0
        container.mux(video.encode(noise(0)) + video.encode(None) + sound.encode(samples))
    notes = [f"channel layout {layout} of audio stream 1 (said of the streams): not in the output as it was"] if lost else []
    assert rewrite(source, tmp_path / "out.mkv") == notes
    assert rewrite(source, tmp_path / "out.mov") == []


@pytest.mark.parametrize(("target", "size"), [("out.mts", 192), ("out.M2TS", 192), ("out.ts", 188)])
def test_a_camcorders_packets_keep_their_times(target, size, tmp_path):
    source = broadcast(tmp_path / "in.mts", mpegts_m2ts_mode="1", mpegts_start_pid="4113", mpegts_service_id="5")
    assert TransportStream(source).packet_size == 192
    assert rewrite(source, tmp_path / target) == []
    assert TransportStream(tmp_path / target).packet_size == size
    assert read(tmp_path / target).times == read(source).times


def test_packets_without_times_get_none(tmp_path):
    rewrite(broadcast(tmp_path / "in.ts", mpegts_start_pid="4113"), tmp_path / "out.mts")
    assert TransportStream(tmp_path / "out.mts").packet_size == 188


def animated(path, codec, pixel_format, **options):
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for number in range(3):
            picture = av.VideoFrame(64, 48, pixel_format)
            for plane in picture.planes:
                plane.update(bytes([number * 40]) * plane.buffer_size)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "options", "plays"),
    [
        ("in.gif", "gif", {"loop": "0"}, "without end"),
        ("in.gif", "gif", {"loop": "2"}, "3 times"),
        ("in.gif", "gif", {"loop": "-1"}, None),
        ("in.apng", "apng", {"plays": "0"}, "without end"),
        ("in.apng", "apng", {"plays": "3"}, "3 times"),
        ("in.apng", "apng", {"plays": "1"}, None),
    ],
)
def test_how_often_a_picture_is_to_be_played_is_told(name, codec, options, plays, tmp_path):
    source = animated(tmp_path / name, codec, "gray", **options)
    assert plays_of(source) == plays
    told = [note for note in rewrite(source, tmp_path / "out.mp4") if "played" in note]
    assert told == ([f"how often it is to be played ({plays}): not in the output as it was"] if plays else [])


def test_the_comment_of_a_gif_is_no_picture_that_was_lost(tmp_path):
    source = animated(tmp_path / "in.gif", "gif", "gray", loop="-1")
    source.write_bytes(source.read_bytes()[:-1] + b"\x21\xfe\x04made\x00;")
    assert not [note for note in rewrite(source, tmp_path / "out.mp4") if "gave no picture" in note]


@pytest.mark.parametrize(("target", "shared"), [("out.mkv", 6), ("out.mp4", 0), ("out.nut", 0)])
def test_pictures_that_a_clock_cannot_tell_apart_are_told(target, shared, tmp_path):
    source = Clip(times=list(range(12)), time_base=Fraction(1, 2400), options=FAST.options).write(tmp_path / "in.mp4")
    told = [note for note in rewrite(source, tmp_path / target) if "ticks" in note]
    note = f"the clock of .mkv ticks every 1 ms: {shared} pictures have the time of another, an .mp4 keeps them apart"
    assert told == ([note] if shared else [])
    assert len(set(read(tmp_path / target).times)) == 12 - shared
