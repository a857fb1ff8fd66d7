"""What an output cannot be is told before the work, and what it cannot hold is told at all."""

import time
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from test_field_streams import copied, remuxed
from video_clips import Clip, read

from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.video import VideoReader, VideoWriter
from runtime.video.rehearsal import read_back
from runtime.video.segments import ResumableWriter

FAST = EncoderOptions(options={"preset": "ultrafast", "bf": "0"})
RATE = Fraction(25)
ENDS_IN_NOTHING = [(kind, suffix) for kind in ("pcm_s16le", "flac", "alac") for suffix in (".ts", ".m2ts")]


def steady(path, **more):
    return Clip(times=[number * 40 for number in range(12)], time_base=Fraction(1, 1000), options=FAST.options, **more).write(path)


def rewrite(source, target, encoder=FAST):
    with VideoReader(source) as reader, VideoWriter(target, reader, encoder) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    return writer.notes


def with_timecode(path, timecode="01:02:03:04", rate=RATE, metadata=(), reel=""):
    """FFmpeg makes a track of it."""
    options = {"movflags": "use_metadata_tags"} if metadata else {}
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata.update(dict(metadata))
        stream = container.add_stream("libx264", rate=rate, options=FAST.options)
        stream.width, stream.height = 64, 48
        if timecode:
            stream.metadata["timecode"] = timecode
        if reel:
            stream.metadata["reel_name"] = reel
        for number in range(12):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 20 * number, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = number, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def timecodes(path):
    with av.open(str(path)) as container:
        tracks = [stream.metadata.get("timecode") for stream in container.streams.data]
        return container.streams.video[0].metadata.get("timecode") or container.metadata.get("timecode"), tracks


@pytest.mark.parametrize(("suffix", "tracks"), [(".mov", 1), (".mp4", 1), (".mkv", 0)])
def test_a_timecode_track_is_made_anew(suffix, tracks, tmp_path):
    source = with_timecode(tmp_path / "in.mov")
    assert timecodes(source) == ("01:02:03:04", ["01:02:03:04"])
    assert rewrite(source, tmp_path / f"out{suffix}") == []
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        told = [container.metadata, *(stream.metadata for stream in container.streams)]
        found = [{name.lower(): value for name, value in metadata.items()}.get("timecode") for metadata in told]
    assert "01:02:03:04" in found
    assert timecodes(tmp_path / f"out{suffix}")[1] == ["01:02:03:04"] * tracks


@pytest.mark.parametrize(("suffix", "kept"), [(".mov", True), (".mkv", True), (".mp4", False)])
def test_the_reel_that_a_timecode_counts_on_is_kept_or_noted(suffix, kept, tmp_path):
    source = with_timecode(tmp_path / "in.mov", reel="A001_C004")
    notes = rewrite(source, tmp_path / f"out{suffix}")
    assert notes == ([] if kept else ["the reel name: not in the output as it was"])
    assert (b"A001_C004" in (tmp_path / f"out{suffix}").read_bytes()) is kept


def test_a_reel_comes_back_from_matroska(tmp_path):
    rewrite(with_timecode(tmp_path / "in.mov", reel="A001_C004"), tmp_path / "between.mkv")
    assert rewrite(tmp_path / "between.mkv", tmp_path / "out.mov") == []
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.data[0].metadata["reel_name"] == "A001_C004"


def test_a_timecode_track_survives_a_resumed_run(tmp_path):
    source = with_timecode(tmp_path / "in.mov", "00:59:59;28", Fraction(30000, 1001))
    with VideoReader(source) as reader, ResumableWriter(tmp_path / "out.mov", reader, FAST) as writer:
        writer.begin({}, (8, 8))
        for frame in reader:
            writer.write(frame, frame.luma)
    assert writer.notes == []
    assert timecodes(tmp_path / "out.mov") == ("00:59:59;28", ["00:59:59;28"])


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".nut"])
def test_a_timecode_that_is_kept_elsewhere_is_no_loss(suffix, tmp_path):
    source = with_timecode(tmp_path / "in.mp4", metadata={"timecode": "01:02:03:04"}.items())
    assert rewrite(source, tmp_path / f"out{suffix}") == []


@pytest.mark.parametrize("suffix", [".ts", ".avi"])
def test_a_timecode_that_is_lost_is_noted(suffix, tmp_path):
    notes = rewrite(with_timecode(tmp_path / "in.mov"), tmp_path / f"out{suffix}")
    assert any(f"metadata is not in the output: {suffix} cannot hold " in note and "timecode" in note for note in notes)


@pytest.mark.parametrize(("kind", "suffix"), ENDS_IN_NOTHING)
def test_sound_that_a_container_takes_but_cannot_say_is_refused(kind, suffix, tmp_path):
    source, output = steady(tmp_path / "in.mkv", audio=["aac"]), tmp_path / f"out{suffix}"
    source = with_sound(tmp_path / "sound.mkv", kind)
    with pytest.raises(VideoError, match=rf"\{suffix} cannot hold audio stream 1 of .*: write an \.mkv, or .*--drop-unsupported"):
        rewrite(source, output)
    assert not output.exists()
    notes = rewrite(source, output, EncoderOptions(options=FAST.options, drop_unsupported=True))
    assert [note for note in notes if note.startswith("audio stream 1 (") and f"{suffix} cannot hold it" in note]
    assert [kind for kind, *_ in read(output).streams] == ["video"]


@pytest.mark.parametrize("suffix", [".ts", ".m2ts"])
@pytest.mark.parametrize("late", [False, True])
def test_subtitles_that_a_container_takes_but_cannot_say_are_refused(suffix, late, tmp_path):
    """Also where the first line comes long after the first frame."""
    lines = ("",) * 4 + ("Hei",) if late else ("Hei", "du")
    source = steady(tmp_path / "in.mkv", subtitles=lines)
    with pytest.raises(VideoError, match=rf"\{suffix} cannot hold subtitle stream 1"):
        rewrite(source, tmp_path / f"out{suffix}")


@pytest.mark.parametrize(("kind", "suffix"), [("aac", ".ts"), ("aac", ".m2ts"), ("mp2", ".ts"), ("mp2", ".m2ts"), ("ac3", ".m2ts")])
def test_sound_that_a_container_can_say_is_not_refused(kind, suffix, tmp_path):
    """Some demuxers tell a codec by many packets of it, more than were read before the first frame."""
    rewrite(with_sound(tmp_path / "in.mkv", kind), tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.audio[0].name.startswith(kind)


@pytest.mark.parametrize(("kind", "suffix"), [("klv", ".mov"), ("klv", ".avi"), ("timed_id3", ".mp4"), ("klv", ".ts")])
def test_data_that_a_container_takes_but_cannot_say_is_noted(kind, suffix, tmp_path):
    with av.open(str(tmp_path / "in.ts"), "w") as container:
        video = container.add_stream("libx264", rate=25, options=FAST.options)
        video.width, video.height = 64, 48
        data = container.add_data_stream(kind)
        for number in range(12):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 9 * number, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
            packet = av.Packet(b"\x06\x0e+4hello")
            packet.stream, packet.time_base, packet.pts, packet.dts = data, Fraction(1, 25), number, number
            container.mux(packet)
        container.mux(video.encode(None))
    notes = rewrite(tmp_path / "in.ts", tmp_path / f"out{suffix}")
    kept = suffix == ".ts"
    assert notes == [] if kept else [f"data stream 1 ({kind}) is not in the output: {suffix} cannot hold it"]
    assert [stream for stream, *_ in read(tmp_path / f"out{suffix}").streams] == ["video", *["data"] * kept]


def with_sound(path, kind):
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options=FAST.options)
        video.width, video.height = 64, 48
        sound = container.add_stream(kind, rate=48000, layout="stereo")
        sound.codec_context.bit_rate = 128_000
        size = sound.codec_context.frame_size or 1024
        for number in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 9 * number, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
        for number in range(48000 // size):
            noise = np.random.default_rng(number).standard_normal((2, size)).astype(np.float32) / 10
            samples = av.AudioFrame.from_ndarray(noise, "fltp", "stereo")
            samples.sample_rate, samples.pts = 48000, number * size
            fit = av.AudioResampler(format=sound.codec_context.format.name, layout="stereo", rate=48000, frame_size=size)
            for each in fit.resample(samples):
                container.mux(sound.encode(each))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


PHONE = {
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.location.ISO6709": "+69.6500+018.9600/",
    "com.android.version": "15",
    "title": "Tromsø",
}


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_what_phones_write_under_quicktime_keys_is_kept(suffix, tmp_path):
    source = with_timecode(tmp_path / "in.mov", None, metadata=PHONE.items())
    assert rewrite(source, tmp_path / f"out{suffix}") == []
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert PHONE.items() <= container.metadata.items()


def test_a_title_stays_where_players_look_for_it(tmp_path):
    """Keys of any name take its place in MP4; they are not for the sake of what is lost all the same."""
    source = with_timecode(tmp_path / "in.mov", metadata={"title": "Tromsø"}.items())
    assert rewrite(source, tmp_path / "out.m4v") == ["metadata is not in the output: .m4v cannot hold timecode"]
    assert b"\xa9nam" in (tmp_path / "out.m4v").read_bytes()


def test_metadata_that_a_container_cannot_hold_is_noted(tmp_path):
    source = with_timecode(tmp_path / "in.mov", None, metadata=PHONE.items())
    assert rewrite(source, tmp_path / "out.mkv") == []
    (note,) = rewrite(source, tmp_path / "out.avi")
    assert note.startswith("metadata is not in the output: .avi cannot hold com.android.version, com.apple.quicktime.")
    assert "title" not in note


def test_a_trailer_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    """As that of a timecode track that is copied."""
    monkeypatch.setattr("runtime.video.rehearsal.is_timecode_track", lambda reader, source: False)
    with VideoReader(with_timecode(tmp_path / "in.mov")) as reader, VideoWriter(tmp_path / "out.mov", reader, FAST) as writer:
        assert any("data stream 1 (unknown codec) is not in the output: .mov cannot hold it" in note for note in writer.notes)
        for frame in reader:
            writer.write(frame, frame.luma)
    assert len(read(tmp_path / "out.mov").times) == 12


def test_a_folder_in_the_place_of_the_output_is_found_before_the_work(tmp_path):
    source = steady(tmp_path / "in.mkv")
    (tmp_path / "out.mp4").mkdir()
    with VideoReader(source) as reader, pytest.raises(VideoError, match=r"out\.mp4: is a folder, expected a file's name"):
        VideoWriter(tmp_path / "out.mp4", reader, FAST)


def test_a_rehearsal_is_short_and_leaves_nothing(tmp_path):
    source = steady(tmp_path / "in.mkv", audio=["aac"], subtitles=("a",), size=(640, 360))
    with VideoReader(source) as reader:
        started = time.process_time()  # other work on the machine does not count
        VideoWriter(tmp_path / "out.mkv", reader, FAST).close()
        assert time.process_time() - started < 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_the_rate_that_an_output_does_not_say_is_told_of_a_resumed_run_too(tmp_path):
    """As of screens, which are filmed when they change: the file says one rate, and the frames have their own times."""
    times = [0, *range(40, 1000, 40), *range(1000, 4000, 200)]
    source = Clip(times=times, time_base=Fraction(1, 1000), options=FAST.options).write(tmp_path / "in.mkv")
    said = []
    for kind in (VideoWriter, ResumableWriter):
        with VideoReader(source) as reader, kind(tmp_path / f"{kind.__name__}.mp4", reader, FAST) as writer:
            assert reader.even
            if kind is ResumableWriter:
                writer.begin({}, (8, 8))
            for frame in reader:
                writer.write(frame, frame.luma)
        said.append(writer.notes)
    assert said[0] == said[1] == ["the rate of 30 frames per second is not in the output: .mp4 says 10.436"]


@pytest.mark.parametrize(("suffix", "others"), [(".mkv", r"\.mp4 or \.mov"), (".mp4", r"\.mkv or \.mov")])
def test_no_other_container_is_advised_that_cannot_hold_the_sound_either(suffix, others, tmp_path):
    source = with_sound(tmp_path / "in.asf", "wmav2")
    advice = r"as PyAV writes them: leave it out with --no-copy-audio-streams or --drop-unsupported"
    with pytest.raises(VideoError, match=rf"^\{suffix} cannot hold audio stream 1 of .* \(wmav2\), nor can {others}, {advice}$"):
        rewrite(source, tmp_path / f"out{suffix}")


def test_sound_of_an_mxf_goes_to_an_mxf(tmp_path):
    """Whose muxer takes none without a picture."""
    source = tmp_path / "in.mxf"
    with av.open(str(source), "w") as container:
        video, sound = container.add_stream("mpeg2video", rate=25), container.add_stream("pcm_s16le", rate=48000, layout="mono")
        video.width, video.height = 96, 64
        for number in range(12):
            picture = av.VideoFrame(96, 64, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
            samples = av.AudioFrame.from_ndarray(np.full((1, 1920), number, np.int16), "s16", "mono")
            samples.sample_rate, samples.pts, samples.time_base = 48000, number * 1920, Fraction(1, 48000)
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
    rewrite(source, tmp_path / "out.mxf", EncoderOptions("mpeg2video"))
    assert sound_of(tmp_path / "out.mxf") == sound_of(source)


def sound_of(path):
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


def late(path, picture=0, sound=0):
    """Picture and sound begin so many seconds after 0."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options=FAST.options)
        video.width, video.height = 64, 48
        audio = container.add_stream("ac3", rate=48000)
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), 9 * number, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = 25 * picture + number, Fraction(1, 25)
            container.mux(video.encode(frame))
            samples = av.AudioFrame.from_ndarray(np.zeros((2, 1536), np.float32), "fltp", "stereo")
            samples.sample_rate, samples.pts = 48000, 48000 * sound + 1536 * number
            container.mux(audio.encode(samples))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


FIRST_PICTURE = "the first picture begins with the sound, 2.0 s earlier than it did, and lasts until the second"


@pytest.mark.parametrize(
    ("times", "told"),
    [({"picture": 2}, FIRST_PICTURE), ({"sound": 2}, "audio stream 1 begins 2.0 s earlier beside the picture than it did")],
)
def test_a_container_that_has_all_begin_at_once_is_told_before_the_work(times, told, tmp_path):
    source = late(tmp_path / "in.mkv", **times)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.avi", reader, FAST) as writer:
        assert writer.notes == [told]
        for frame in reader:
            writer.write(frame, frame.luma)
    assert writer.notes == [told]
    for suffix in (".mkv", ".mp4", ".ts", ".nut"):
        assert rewrite(source, tmp_path / f"out{suffix}") == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".nut", ".mov"])
@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(120)])
def test_a_trial_judges_the_rate(suffix, rate, tmp_path, monkeypatch):
    source = with_timecode(tmp_path / "in.mp4", None, rate)
    with VideoReader(source) as reader:
        writer = VideoWriter(tmp_path / f"out{suffix}", reader, FAST)
        writer.close()
        assert writer.notes == []
        monkeypatch.setattr(
            "runtime.video.rehearsal.read_back", lambda *args: replace(read_back(*args), frame_rate=Fraction(12800))
        )
        writer = VideoWriter(tmp_path / f"out{suffix}", reader, FAST)
        writer.close()
    assert writer.notes == [f"the rate of {float(rate):.5g} frames per second is not in the output: {suffix} says 12800"]


def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path):
    """As in an MP4 of which `ffmpeg -ss -c copy` took the rest."""
    source = tmp_path / "in.mp4"
    with av.open(str(late(tmp_path / "whole.mp4"))) as before, av.open(str(source), "w") as after:
        copies = [after.add_stream_from_template(stream) for stream in before.streams]
        for packet in before.demux():
            if packet.size:
                moved = round(Fraction(3, 5) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - moved, packet.dts - moved, copies[packet.stream_index]
                after.mux(packet)
    for suffix in (".mkv", ".ts", ".mp4"):
        notes = rewrite(source, tmp_path / f"out{suffix}")
        unsaid = ["audio stream 1 begins with 93 ms that are not to be heard, which .ts does not say"]  # that decoders need
        assert notes == (unsaid if suffix == ".ts" else [])
        with VideoReader(tmp_path / f"out{suffix}") as reader:
            assert 0 <= reader.info.first_pts * reader.info.time_base < Fraction(1, 8)
            assert reader.info.duration < 0.5


@pytest.mark.parametrize(("suffix", "options", "told"), [(".mp4", {}, True), (".mp4", {"bf": "0"}, False), (".mkv", {}, False)])
def test_a_last_picture_that_an_mp4_shows_for_less_is_noted(suffix, options, told, tmp_path):
    """MP4 counts lengths in order of decoding, whose last picture is another."""
    clip = Clip(times=list(range(0, 12000, 1000)), options={"bf": "0"}, moving=True)
    whole = Fraction(2)  # seconds

    def last_long(number, packet):
        packet.duration = round(whole / packet.time_base) if number == 11 else packet.duration

    source = remuxed(clip.write(tmp_path / "in.mp4"), tmp_path / "long.mp4", last_long)
    notes = copied(source, tmp_path / f"out{suffix}", EncoderOptions(options=options))
    assert [note.startswith("the last picture is shown") for note in notes if "last picture" in note] == [True] * told
