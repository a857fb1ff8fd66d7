"""A part of a video: FFmpeg's times, exactly the frames that are shown in it, and with them sound, subtitles and chapters."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from test_field_streams import remuxed
from test_segments import StopError, stop_after
from video_clips import Clip, planes_of, read, same

from runtime import Engine, StreamDeblurrer
from runtime.deblur_video import deblur_video, main
from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.files.time_ranges import TimeRange, parse_time, read_ranges, time_range
from runtime.plan_video import plan_video
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader
from runtime.video.muxer import timecode_of
from runtime.video.part import Ranges

CLOCK = Fraction(1, 30000)
STEPS = np.random.default_rng(3).choice([500, 1001, 1502, 2002], 79)
TIMES = [0, *np.cumsum(STEPS).tolist()]  # 3.3 s of uneven times
SECONDS = [time * CLOCK for time in TIMES]
SLOW = [number * 6000 for number in range(100)]  # 20 s
LOSSLESS = EncoderOptions(options={"qp": "0", "preset": "ultrafast"})
CHAPTERS = [(0, 1000, "a"), (1000, 1800, "b"), (1800, 3000, "c")]
LINES = tuple(f"line {number}" for number in range(30))
START, END = Fraction("1.3"), Fraction("2.1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("83.5", Fraction(167, 2)),
        (".25", Fraction(1, 4)),
        ("83.5s", Fraction(167, 2)),
        ("500ms", Fraction(1, 2)),
        ("200us", Fraction(1, 5000)),
        ("1:23.5", Fraction(167, 2)),
        ("00:01:23.500", Fraction(167, 2)),
        ("100:00:00", 360000),
    ],
)
def test_times_are_ffmpegs(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "1:60", "99:99", "1e3", "nan", "inf", "1,5", "5m", "1 s", "٣", "9" * 5000])
def test_other_times_are_refused(text):
    with pytest.raises(InputError, match="expected seconds"):
        parse_time(text)


def test_what_names_a_part():
    assert time_range(None, None, None) is None
    assert time_range("1.3", "2.1", None) == time_range("1.3", None, "800ms") == TimeRange(START, END)
    assert Fraction("2.1") not in TimeRange(START, END)
    for names in (("2", "1", None), ("2", "2", None), ("2", None, "0"), ("1", "2", "3")):
        with pytest.raises(InputError, match="expected"):
            time_range(*names)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Sound and subtitles beside frames at uneven times, in two containers."""
    folder = tmp_path_factory.mktemp("clips")
    more = {"times": TIMES, "audio": ["aac"], "chapters": CHAPTERS}
    return {
        "mp4": Clip(**more).write(folder / "in.mp4"),
        "mkv": Clip(**more, subtitles=LINES, metadata={"title": "t"}).write(folder / "in.mkv"),
        "ts": Clip(times=[time + 45000 for time in TIMES], audio=["aac"]).write(folder / "in.ts"),
    }


@pytest.fixture
def engine(tiny_model):
    with Engine(tiny_model, "onnxruntime", threads=1) as opened:
        yield opened


def options(source, output, **more):
    return DeblurOptions(source, output, scene_threshold=0, encoder=LOSSLESS, part=TimeRange(START, END), **more)


def deblurred(engine, planes):
    stream = StreamDeblurrer(engine, bits=8, color_range="limited")
    return [sharp for luma in planes for sharp in stream.push(luma)] + stream.flush()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_exactly_the_frames_in_the_range_with_sound_within_a_packet(suffix, clips, engine, tmp_path):
    output = tmp_path / f"out.{suffix}"
    summary = deblur_video(options(clips[suffix], output), engine=engine)
    before, after = read(clips[suffix]), read(output)
    wanted = [number for number, time in enumerate(before.times) if START <= time < END]
    assert summary.frames == len(wanted) == len(after.times)
    assert "beside the picture" not in " ".join(summary.notes)
    assert same(after.chroma, [before.chroma[number] for number in wanted])
    assert same(after.luma, deblurred(engine, [before.luma[number] for number in wanted]))
    tick = CLOCK if suffix == "mp4" else Fraction(1, 1000)
    assert all(abs(before.times[number] - START - time) <= tick for number, time in zip(wanted, after.times))
    packet = Fraction(1024, 48000)
    sound, whole = after.packets["audio1"], before.packets["audio1"]
    assert [payload for payload, _ in sound] == [payload for payload, time in whole if START <= time < END]
    assert 0 <= sound[0][1] < packet
    assert END - START - packet <= sound[-1][1] + tick
    assert sound[-1][1] < END - START
    assert [(float(start), float(end)) for start, end, _ in after.chapters] == [(0, 0.5), (0.5, 0.8)]
    if suffix == "mkv":
        assert [payload for payload, _ in after.packets["subtitle2"]] == [f"line {number}".encode() for number in range(13, 21)]
    assert not [note for note in summary.notes if "not in the output" in note]


def test_a_subtitle_that_is_shown_at_the_cut_begins_there(clips, engine, tmp_path):
    with VideoReader(clips["mkv"], part=TimeRange(Fraction("1.35"), Fraction("2.04"))) as reader:
        reader.set_aside({2})
        assert len(list(reader)) == sum(Fraction("1.35") <= time < Fraction("2.04") for time in read(clips["mkv"]).times)
        lines = [(bytes(packet), packet.pts, packet.duration) for packet in reader.take_packets()]
    assert lines[0] == (b"line 13", 1350, 40)
    assert lines[-1] == (b"line 20", 2000, 40)


def test_a_timecode_is_left_out_where_it_is_not_the_parts(tmp_path):
    source = Clip(times=TIMES[:40], metadata={"timecode": "01:00:00:00"}).write(tmp_path / "in.mov")
    with VideoReader(source, part=TimeRange(Fraction("0.5"))) as reader:
        assert timecode_of(reader) is None
        assert "the timecode 01:00:00:00 is not in the output: it is that of the whole file's first frame" in reader.notes
    with VideoReader(source, part=TimeRange(end=Fraction("0.5"))) as reader:
        assert timecode_of(reader) == "01:00:00:00"
        assert not reader.notes


def test_times_count_from_the_start_of_the_file(clips):
    assert read(clips["ts"]).times[0] > 1
    for part in (TimeRange(START, END), TimeRange(Fraction(0), END), TimeRange(START)):
        with VideoReader(clips["ts"], part=part) as reader:
            found = [frame.pts * reader.info.time_base - reader.origin for frame in reader]
            assert reader.info.first_pts * reader.info.time_base - reader.origin == found[0]
        everything = read(clips["ts"]).times
        assert found == [time - reader.origin for time in everything if time - reader.origin in part]


@pytest.mark.parametrize(
    ("codec", "suffix", "settings"),
    [
        ("libx264", "mp4", {"g": "30", "bf": "3", "x264-params": "open-gop=1"}),
        ("libx265", "mkv", {"x265-params": "log-level=error:open-gop=1:keyint=30"}),
        ("libx264", "ts", {"g": "40"}),
        ("libx264", "mkv", {"g": "12", "x264-params": "intra-refresh=1"}),
        ("mpeg2video", "ts", {"g": "12", "bf": "2"}),
        ("mpeg4", "avi", {"g": "12"}),
    ],
)
def test_a_late_part_is_sought_and_is_what_decoding_all_gives(codec, suffix, settings, tmp_path, monkeypatch):
    clock = (SLOW, CLOCK) if codec != "mpeg2video" else (list(range(500)), Fraction(1, 25))
    source = Clip(codec, times=clock[0], time_base=clock[1], moving=True, options=settings).write(tmp_path / f"in.{suffix}")

    def planes(part):
        with VideoReader(source, part=part) as reader:
            return (
                [([plane.copy() for plane in planes_of(frame.decoded)], frame.pts) for frame in reader],
                reader.origin,
                reader.info,
            )

    part = TimeRange(Fraction("15.1"), Fraction("17.3"))
    everything, origin, info = planes(None)
    wanted = [each for each in everything if each[1] * info.time_base - origin in part]
    seek, sought = VideoReader._sought, []

    def watched(*given):
        sought.append(seek(*given))
        return sought[-1]

    for way in (watched, lambda *_: False):
        monkeypatch.setattr(VideoReader, "_sought", way)
        found, _, _ = planes(part)
        assert [pts for _, pts in found] == [pts for _, pts in wanted]
        assert same([luma for luma, _ in found], [luma for luma, _ in wanted])
    assert sought == [True]


def test_a_part_goes_on_after_a_stop(clips, engine, tmp_path):
    source = Clip(times=[number * 1000 for number in range(80)], audio=["aac"]).write(tmp_path / "in.mp4")
    wanted = TimeRange(Fraction("0.5"), Fraction("2.1"))
    whole = replace(options(source, tmp_path / "whole.mp4"), part=wanted)
    deblur_video(whole, engine=engine)
    parts = replace(whole, output=tmp_path / "parts.mp4", resume=True, resume_every=10)
    with pytest.raises(StopError):
        deblur_video(parts, stop_after(30), engine=engine)
    with pytest.raises(InputError, match=r"the part .* was 0.5 s to 2.1 s, is 0.5 s to 2 s"):
        deblur_video(replace(parts, part=TimeRange(Fraction("0.5"), Fraction(2))), engine=engine)
    said = []
    deblur_video(parts, say=said.append, engine=engine)
    assert any("frames are done already" in line for line in said)
    one, two = read(whole.output), read(parts.output)
    assert (one.times, one.packets) == (two.times, two.packets)
    assert same(one.pictures, two.pictures)


def test_a_plan_is_of_the_part(clips, tiny_model, tmp_path):
    forecast = plan_video(options(clips["mp4"], tmp_path / "out.mp4", model=tiny_model, threads=1))
    assert abs(forecast.frames - sum(START <= time < END for time in SECONDS)) <= 3
    assert not list(tmp_path.iterdir())


def test_a_plan_counts_the_windows_of_the_ranges(tiny_model, tmp_path):
    source = Clip(times=[number * 1000 for number in range(60)]).write(tmp_path / "in.mp4")
    ranges = (TimeRange(Fraction("0.2"), Fraction("0.6")), TimeRange(Fraction("1.5"), Fraction("1.6")))
    asked = replace(options(source, tmp_path / "out.mp4", model=tiny_model, threads=1, ranges=ranges), part=None)
    assert (plan_video(asked).frames, plan_video(asked).windows) == (60, 4)
    with pytest.raises(VideoError, match="ends at 2 s, the part is 3 s to the end"):
        plan_video(replace(asked, ranges=(TimeRange(Fraction(3)),)))


def test_pictures_keep_their_names(engine, tmp_path):
    source, folder = Clip(times=TIMES[:12]).write(tmp_path / "in.mp4"), tmp_path / "all"
    folder.mkdir()
    deblur_video(DeblurOptions(source, folder, scene_threshold=0), engine=engine)
    (tmp_path / "some").mkdir()
    part = DeblurOptions(folder, tmp_path / "some", scene_threshold=0, rate=10, part=TimeRange(Fraction("0.3"), Fraction("0.75")))
    assert deblur_video(part, engine=engine).frames == 5
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == [f"{number:08d}.png" for number in range(4, 9)]


def test_an_end_behind_the_video_is_told(clips, engine, tmp_path):
    late = replace(options(clips["mp4"], tmp_path / "out.mp4"), part=TimeRange(Fraction(3), Fraction(60)))
    summary = deblur_video(late, engine=engine)
    assert summary.frames == sum(time >= 3 for time in SECONDS)
    assert [
        note
        for note in summary.notes
        if note.startswith("the video ends at 3.") and note.endswith("before the 60 s that were asked for")
    ]


def test_a_part_without_a_frame_is_refused(clips):
    for part in (TimeRange(Fraction(60)), TimeRange(SECONDS[5] + CLOCK, SECONDS[5] + 2 * CLOCK)):
        with pytest.raises(VideoError, match=r"no frame is shown from .* choose another --ss or --to"):
            VideoReader(clips["mp4"], part=part)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ss", "2.1", "--to", "1.3"], "the part ends at 1.3 s and begins at 2.1 s, expected a later end"),
        (["-ss", "1", "-to", "2", "-t", "1"], "expected one of them"),
        (["--ss", "soon"], "got the time 'soon', expected seconds"),
        (["-t", "0"], "expected a later end"),
        (["--segments", "nowhere.txt"], "nowhere.txt: No such file"),
    ],
)
def test_bad_parts_are_one_line(arguments, message, clips, tmp_path, capsys):
    assert main([str(clips["mp4"]), str(tmp_path / "out.mp4"), *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_ranges_are_read_in_order(tmp_path):
    path = tmp_path / "ranges.txt"
    path.write_text("# labels\n\n2.0 2.2\n0.5\t0.9\tthe face, left\n1:00 61500ms last\n")
    assert read_ranges(path) == (
        TimeRange(Fraction(1, 2), Fraction(9, 10), "the face, left"),
        TimeRange(Fraction(2), Fraction("2.2")),
        TimeRange(Fraction(60), Fraction("61.5"), "last"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 ranges"),
        ("1.0\n", "line 1: got '1.0', expected START END NAME"),
        ("0 1 a\n3 2 b\n", "line 2: the range 'b' ends at 2 s and begins at 3 s"),
        ("0 1 a\nx 2 b\n", "line 2: got the time 'x'"),
        ("0 2 a\n1 3 b\n", "the range 'b' (1 s to 3 s) begins within the range 'a' (0 s to 2 s)"),
    ],
)
def test_other_files_of_ranges_are_refused(text, message, tmp_path):
    path = tmp_path / "ranges.txt"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_ranges(path)
    assert message in str(refused.value)


def test_a_part_of_a_recording_whose_clock_turns_over_counts_from_its_start(tmp_path):
    clip = Clip(times=list(range(60)), time_base=Fraction(1, 30), options={"g": "10"}).write(tmp_path / "plain.ts")
    turn = 2**33 - 90000  # of 1/90000 s, a second before the 33 bits of a clock are used up

    def later(_, packet):
        packet.pts, packet.dts = packet.pts + turn, packet.dts + turn

    source = remuxed(clip, tmp_path / "in.ts", later)
    with VideoReader(clip) as whole:
        expected = [frame.luma.copy() for frame in whole][30:45]
    with VideoReader(source, part=TimeRange(Fraction(1), Fraction(3, 2))) as reader:
        assert reader.origin < 0
        found = [frame.luma.copy() for frame in reader]
    assert len(found) == 15
    assert all(np.array_equal(one, other) for one, other in zip(found, expected))
    ranges = Ranges((TimeRange(Fraction(0), Fraction(1)),), source, reader.info, reader.origin)
    with VideoReader(source) as reader:
        assert [frame.passed for frame in ranges.mark(reader)] == [False] * 30 + [True] * 30
