"""Ranges that are deblurred, and the rest as it is: copied as it is coded where that can be, else encoded anew and told."""

from dataclasses import replace
from fractions import Fraction

import av
import pytest
from test_segments import StopError, stop_after
from video_clips import Clip, read, same

from runtime import Engine, StreamDeblurrer
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.files.time_ranges import TimeRange
from runtime.run.options import DeblurOptions

RANGES = (TimeRange(Fraction("0.5"), Fraction("0.9"), "face"), TimeRange(Fraction(2), Fraction("2.2"), "car"))
TIMES = [number * 1200 for number in range(90)]  # 25 frames a second
GROUPS = [number for number in range(90) if 10 <= number < 30 or 50 <= number < 60]  # of ten pictures, that a range touches
LOSSLESS = {"libx264": {"qp": "0", "preset": "ultrafast"}, "libx265": {"x265-params": "lossless=1:log-level=error"}}
SOURCES = {
    "libx264": {"g": "10", "bf": "2", "qp": "0"},
    "libx265": {"x265-params": "log-level=error:open-gop=0:keyint=10"},
}


@pytest.fixture
def engine(tiny_model):
    with Engine(tiny_model, "onnxruntime", threads=1) as opened:
        yield opened


def source_of(path, codec="libx264", **more):
    settings = {"times": TIMES, "moving": True, "audio": ["aac"], "options": SOURCES[codec], **more}
    return Clip(codec, **settings).write(path)


def options(source, output, codec="libx264", **more):
    encoder = EncoderOptions(codec, options=LOSSLESS.get(codec, {}))
    return DeblurOptions(source, output, scene_threshold=0, encoder=encoder, **{"ranges": RANGES, **more})


def expected(engine, source):
    """The luma of each frame: the ranges deblurred, each for itself, the rest as it is."""
    before = read(source)
    with av.open(str(source)) as container:
        start = max(Fraction(0), Fraction(container.start_time, 1_000_000))
    luma = before.luma
    for each in RANGES:
        numbers = [number for number, time in enumerate(before.times) if time - start in each]
        stream = StreamDeblurrer(engine, bits=8, color_range="limited")
        sharp = [done for number in numbers for done in stream.push(luma[number])] + stream.flush()
        for number, plane in zip(numbers, sharp):
            luma[number] = plane
    return luma


def coded(path):
    """The pictures' bytes, without what says where units begin and how a decoder is set up, by their time."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return {packet.pts * packet.time_base: bytes(packet)[-40:] for packet in container.demux(stream) if packet.size}


@pytest.mark.parametrize(
    ("codec", "suffix", "tag"),
    [("libx264", "mp4", "avc3"), ("libx264", "mkv", None), ("libx264", "ts", None), ("libx265", "mp4", "hev1")],
)
def test_whole_groups_outside_the_ranges_are_copied(codec, suffix, tag, engine, tmp_path):
    source, output = source_of(tmp_path / f"in.{suffix}", codec), tmp_path / f"out.{suffix}"
    summary = deblur_video(options(source, output, codec), engine=engine)
    before, after = read(source), read(output)
    assert same(after.luma, expected(engine, source))
    assert same(after.chroma, before.chroma)
    assert [time - after.times[0] for time in after.times] == [time - before.times[0] for time in before.times]
    assert after.packets == before.packets
    told = (
        f"{90 - len(GROUPS)} frames were copied as they are coded, {len(GROUPS)} were encoded: the ranges, and what is next to them"
    )
    assert told in summary.notes
    old, new = coded(source), coded(output)
    assert sum(new[time] == old[time] for time in new) == 90 - len(GROUPS)
    if tag:
        with av.open(str(output)) as container:
            assert container.streams.video[0].codec_context.codec_tag == tag
    assert [path.name for path in tmp_path.iterdir() if "pieces" in path.name] == []


@pytest.mark.parametrize(
    ("made", "asked", "reason"),
    [
        ({}, {"codec": "ffv1"}, "the source is h264, and ffv1 is not"),
        ({"options": {"g": "10"}}, {}, "FFmpeg mistakes lossless H.264 beside other H.264"),
        ({"options": {"g": "90", "qp": "0"}}, {}, "no group of pictures stands alone outside the ranges"),
        ({}, {"frames": 60}, "with --frames, --salvage or --compare no pictures are copied"),
        ({}, {"compare": "diff"}, "with --frames, --salvage or --compare no pictures are copied"),
    ],
)
def test_what_cannot_be_copied_is_encoded_and_told(made, asked, reason, engine, tmp_path):
    source, output = source_of(tmp_path / "in.mkv", **made), tmp_path / "out.mkv"
    summary = deblur_video(options(source, output, **asked), engine=engine)
    assert f"the frames outside the ranges were encoded anew, their samples as they were: {reason}" in summary.notes
    if not asked.get("compare"):
        assert same(read(output).luma, expected(engine, source)[: asked.get("frames")])


def test_two_settings_of_an_encoder_are_told_apart(engine, tmp_path):
    source, output = source_of(tmp_path / "in.mp4", options={"g": "10", "profile": "baseline"}), tmp_path / "out.mp4"
    asked = replace(options(source, output), encoder=EncoderOptions(crf=1))
    assert any("60 frames were copied" in note for note in deblur_video(asked, engine=engine).notes)
    for number, (found, wanted) in enumerate(zip(read(output).luma, expected(engine, source))):
        assert abs(found.astype(int) - wanted).max() <= (4 if number in GROUPS else 0)


def test_an_open_group_is_not_torn(engine, tmp_path):
    source = source_of(tmp_path / "in.mkv", options={"g": "10", "bf": "3", "qp": "0", "x264-params": "open-gop=1:keyint=10"})
    deblur_video(options(source, tmp_path / "out.mkv"), engine=engine)
    assert same(read(tmp_path / "out.mkv").luma, expected(engine, source))


def test_ranges_in_a_part(engine, tmp_path):
    source, output = source_of(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    deblur_video(options(source, output, part=TimeRange(Fraction("0.4"), Fraction("2.8"))), engine=engine)
    assert same(read(output).luma, expected(engine, source)[10:70])
    assert read(output).times[0] == 0


def test_a_run_with_ranges_goes_on_after_a_stop(engine, tmp_path):
    source = source_of(tmp_path / "in.mp4")
    asked = options(source, tmp_path / "out.mp4", resume=True, resume_every=10)
    with pytest.raises(StopError):
        deblur_video(asked, stop_after(40), engine=engine)
    deblur_video(asked, engine=engine)
    after = read(tmp_path / "out.mp4")
    assert same(after.luma, expected(engine, source))
    assert after.packets == read(source).packets


def test_ranges_behind_the_video_and_between_frames(engine, tmp_path):
    source = source_of(tmp_path / "in.mp4")
    with pytest.raises(VideoError, match=r"ends at 3.59\d* s, the range 'late' is 60 s to 61 s: mend its line"):
        deblur_video(options(source, tmp_path / "out.mp4", ranges=(TimeRange(Fraction(60), Fraction(61), "late"),)), engine=engine)
    assert not (tmp_path / "out.mp4").exists()
    short = TimeRange(Fraction("0.01"), Fraction("0.02"), "short")
    summary = deblur_video(options(source, tmp_path / "out.mp4", ranges=(short,)), engine=engine)
    assert "no frame is shown in the range 'short', 0.01 s to 0.02 s" in summary.notes
