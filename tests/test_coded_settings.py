"""What pictures say in their headers and PyAV does not tell is said by the output's too, or noted."""

from fractions import Fraction

import av
import pytest
from video_clips import Clip

from runtime.encoder_options import EncoderOptions
from runtime.video import VideoReader, VideoWriter
from runtime.video.coded_settings import OVERSCAN, PLACE, SYSTEM

X264 = {"preset": "ultrafast", "x264-params": "overscan=crop:videoformat=pal:chromaloc=2"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=error:overscan=show:videoformat=secam:chromaloc=2"}
AV1 = {"preset": "12", "svtav1-params": "lp=1:chroma-sample-position=topleft"}
PLAIN = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=error"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "ffv1": {},
    "mpeg2video": {},
}
TIMES = {"times": list(range(4)), "time_base": Fraction(1, 25)}
LOST = "{}: not in the output as it was".format


def rewrite(source, target, codec, **options):
    encoder = EncoderOptions(codec, options={**PLAIN[codec], **options})
    with VideoReader(source) as reader, VideoWriter(target, reader, encoder) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    with VideoReader(target) as output:
        return [*reader.notes, *writer.notes], output.coded_settings


@pytest.mark.parametrize(
    ("codec", "options", "told"),
    [
        ("libx264", X264, {OVERSCAN: 1, SYSTEM: 1, PLACE: 2}),
        ("libx265", X265, {OVERSCAN: 0, SYSTEM: 3, PLACE: 2}),
        ("libsvtav1", AV1, {PLACE: 2}),
        ("mpeg2video", {"video_format": "pal"}, {SYSTEM: 1}),
        ("libx264", PLAIN["libx264"], {}),
        ("ffv1", {}, {}),
    ],
    ids=["H.264", "HEVC", "AV1", "MPEG-2", "nothing", "a codec without"],
)
def test_what_a_picture_says_is_kept_or_told(codec, options, told, tmp_path):
    source = Clip(codec, options=options, **TIMES).write(tmp_path / "in.mkv")
    with VideoReader(source) as reader:
        assert reader.coded_settings == told
    for other, kept in (("libx264", told), ("libx265", told), ("libsvtav1", {PLACE}), ("ffv1", {})):
        notes, found = rewrite(source, tmp_path / "out.mkv", other)
        assert found == {name: value for name, value in told.items() if name in kept}
        assert sorted(note for note in notes if note.startswith("the ")) == [
            LOST(name) for name in sorted(told) if name not in kept
        ]


def test_what_the_user_says_is_left(tmp_path):
    source = Clip(options=X264, **TIMES).write(tmp_path / "in.mp4")
    notes, found = rewrite(source, tmp_path / "out.mp4", "libx264", **{"x264-params": "chromaloc=1"})
    assert found == {OVERSCAN: 1, SYSTEM: 1, PLACE: 1}
    assert notes == [LOST(PLACE)]


def test_places_are_those_of_half_the_rows(tmp_path):
    """Of 4:2:2 and 4:4:4 no standard has any, whatever a file says."""
    source = Clip(pixel_format="yuv422p", options={**X264, "profile": "high422"}, **TIMES).write(tmp_path / "in.mp4")
    with VideoReader(source) as reader:
        assert PLACE not in reader.coded_settings
    assert rewrite(source, tmp_path / "out.mp4", "libx264")[0] == []


def as_fraction(ratio):
    return Fraction(ratio.replace(":", "/"))


def shaped(source, target, shape):
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        stream.sample_aspect_ratio = shape
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    return target


@pytest.mark.parametrize(
    ("coded", "stated", "noted"), [("4:3", "1:1", True), ("1:1", "4:3", True), ("4:3", "1333:1000", False), ("4:3", "4:3", False)]
)
def test_a_container_that_contradicts_the_shape_of_samples(coded, stated, noted, tmp_path):
    plain = Clip(aspect=as_fraction(coded), **TIMES).write(tmp_path / "plain.mp4")
    source = shaped(plain, tmp_path / "in.mp4", as_fraction(stated))
    notes, _ = rewrite(source, tmp_path / "out.mp4", "libx264")
    told = f"the container says that samples are {stated}, the coded picture {coded}: the output has the container's"
    assert notes == [told] * noted
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert abs(container.streams.video[0].sample_aspect_ratio - as_fraction(stated)) < Fraction(1, 100)
