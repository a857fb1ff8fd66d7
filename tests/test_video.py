"""VideoReader and VideoWriter against real codecs: nothing but luma changes, and nothing is lost."""

import re
import struct
from fractions import Fraction
from itertools import count, pairwise

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from video_clips import VARIABLE, Clip, cut, read, same

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.video import VideoReader, VideoWriter

LOSSLESS = EncoderOptions(options={"qp": "0", "preset": "ultrafast"})
FFV1 = EncoderOptions("ffv1")
B_FRAMES = {"bf": "3", "b_strategy": "0", "crf": "20"}


def rewrite(source, target, encoder=LOSSLESS, limit=None, change=lambda luma, bits: (1 << bits) - 1 - luma):
    """Copies a video with its luma changed; returns the writer's notes."""
    with VideoReader(source, limit) as reader, VideoWriter(target, reader, encoder) as writer:
        for frame in reader:
            writer.write(frame, change(frame.luma, reader.info.bits).astype(frame.luma.dtype))
    return writer.notes


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_only_luma_changed(before, after, bits=8):
    assert same(after.luma, [(1 << bits) - 1 - luma for luma in before.luma])
    assert same(after.chroma, before.chroma)


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """An MP4 with all that a phone or an editor may put into one."""
    clip = Clip(
        times=[1000 + time for time in VARIABLE],
        options=B_FRAMES,
        moving=True,
        audio=["aac", "aac"],
        audio_after=Fraction(1, 2),
        color=(1, 1, 1, 1),
        aspect=Fraction(4, 3),
        rotation=90,
        flip=True,
        metadata={"title": "Title", "artist": "Ærlig"},
        chapters=[(0, 200, "one"), (200, 400, "two")],
    )
    return clip.write(tmp_path_factory.mktemp("rich") / "rich.mp4")


def test_the_clip_is_worth_testing_with(rich):
    with av.open(str(rich)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    with av.open(str(rich)) as container:
        types = [frame.pict_type for frame in container.decode(video=0)]
    assert [packet.pts for packet in packets] != sorted(packet.pts for packet in packets)
    assert types.count(av.video.frame.PictureType.B) >= 6
    contents = read(rich)
    assert len({b - a for a, b in pairwise(contents.times)}) > 2  # variable rate
    assert contents.packets["audio1"][-1][1] > contents.times[-1] + Fraction(1, 4)


def test_everything_else_in_an_mp4_is_carried_over(rich, tmp_path):
    assert rewrite(rich, tmp_path / "out.mp4") == []
    before, after = read(rich), read(tmp_path / "out.mp4")
    assert_only_luma_changed(before, after)
    assert after.times == before.times
    assert len(before.packets) >= 2
    assert after.packets == before.packets  # payloads and times
    assert after.streams == before.streams
    assert [stream[:2] for stream in after.streams[:2]] == [("video", "nob"), ("audio", "sme")]
    assert after.chapters == before.chapters
    assert (after.tags, after.aspect, after.matrix) == (before.tags, before.aspect, before.matrix)
    assert (after.tags, after.aspect, len(after.matrix)) == ((1, 1, 1, 1), Fraction(4, 3), 1)
    assert {key: after.container[key] for key in ("title", "artist")} == {"title": "Title", "artist": "Ærlig"}


def test_sound_is_in_step_after_a_change_of_container(rich, tmp_path):
    rewrite(rich, tmp_path / "out.mkv")
    before, after = read(rich), read(tmp_path / "out.mkv")
    assert_only_luma_changed(before, after)
    sound = [name for name in before.packets if name.startswith("audio")]
    shifts = [b - a for a, b in zip(before.times, after.times)]
    for name in sound:
        assert [p for p, _ in after.packets[name]] == [p for p, _ in before.packets[name]]
        shifts += [b[1] - a[1] for a, b in zip(before.packets[name], after.packets[name])]
    assert max(shifts) - min(shifts) <= Fraction(1, 1000)  # Matroska's clock; no drift, no offset between the streams
    assert after.matrix == before.matrix


def test_subtitles_attachments_and_many_sounds_of_a_matroska_file(tmp_path):
    clip = Clip(audio=["libmp3lame", "flac"], subtitles=("Hei", "på deg"), attachment=b"font" * 100, time_base=Fraction(1, 1000))
    clip.times = [0, 40, 90, 120, 170]
    source = clip.write(tmp_path / "in.mkv")
    assert rewrite(source, tmp_path / "out.mkv") == []
    before, after = read(source), read(tmp_path / "out.mkv")
    assert after.packets == before.packets
    assert [name for name in before.packets if name.startswith("subtitle")]
    assert (after.attachments, after.streams, after.times) == (before.attachments, before.streams, before.times)
    assert after.attachments == [b"font" * 100]
    assert after.streams[2][2] & Disposition.hearing_impaired


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix", "encoder"),
    [
        ("libx264", "yuv422p", ".mp4", LOSSLESS),
        ("libx264", "yuv444p", ".mp4", LOSSLESS),
        ("libx264", "yuv420p10le", ".mp4", LOSSLESS),
        ("libx264", "yuv422p10le", ".mkv", LOSSLESS),
        ("ffv1", "gray", ".mkv", FFV1),
        ("ffv1", "gray16le", ".mkv", FFV1),
        ("ffv1", "yuv444p12le", ".mkv", FFV1),
        ("ffv1", "yuva420p", ".mkv", FFV1),
        ("mjpeg", "yuvj420p", ".mkv", LOSSLESS),
    ],
)
def test_every_depth_and_subsampling_is_exact(codec, pixel_format, suffix, encoder, tmp_path):
    source = Clip(codec, pixel_format, times=VARIABLE[:6]).write(tmp_path / f"in{suffix}")
    assert rewrite(source, tmp_path / f"out{suffix}", encoder) == []
    before, after = read(source), read(tmp_path / f"out{suffix}")
    assert_only_luma_changed(before, after, av.VideoFormat(pixel_format).components[0].bits)
    assert after.pixel_format == before.pixel_format
    assert after.times == before.times


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le"])
def test_odd_sizes_are_exact(pixel_format, tmp_path):
    source = Clip("ffv1", pixel_format, size=(65, 49), times=VARIABLE[:3]).write(tmp_path / "in.mkv")
    rewrite(source, tmp_path / "out.mkv", FFV1)
    assert_only_luma_changed(read(source), read(tmp_path / "out.mkv"), av.VideoFormat(pixel_format).components[0].bits)


def test_full_range_stays_full_in_a_format_that_says_it_elsewhere(tmp_path):
    source = Clip("mjpeg", "yuvj422p", times=VARIABLE[:3]).write(tmp_path / "in.mkv")
    rewrite(source, tmp_path / "out.mkv", FFV1)
    before, after = read(source), read(tmp_path / "out.mkv")
    assert_only_luma_changed(before, after)
    assert (before.pixel_format, after.pixel_format, after.tags[0]) == ("yuvj422p", "yuv422p", 2)


def test_gray_without_a_range_is_full_and_says_so_in_the_output(tmp_path):
    source = Clip("ffv1", "gray", times=VARIABLE[:3]).write(tmp_path / "in.mkv")
    rewrite(source, tmp_path / "out.mp4")
    before, after = read(source), read(tmp_path / "out.mp4")
    assert same(after.luma, [255 - luma for luma in before.luma])
    assert after.tags[0] == 2


@pytest.mark.parametrize(
    ("clip", "color_range", "bits"),
    [
        (Clip(color=(1, 1, 1, 1)), "limited", 8),
        (Clip(color=(2, 1, 1, 1)), "full", 8),
        (Clip(), "limited", 8),
        (Clip(pixel_format="yuv420p10le"), "limited", 10),
    ],
)
def test_range_and_depth_are_read_from_the_stream(clip, color_range, bits, tmp_path):
    with VideoReader(clip.write(tmp_path / "in.mp4")) as reader:
        assert (reader.info.color_range, reader.info.bits) == (color_range, bits)


def test_info_of_a_video(rich):
    with VideoReader(rich) as reader:
        info = reader.info
        assert (info.width, info.height, info.pixel_format, info.chroma_step) == (64, 48, "yuv420p", 2)
        assert (info.frames, info.expected_frames, info.codec) == (12, 12, "h264")
        assert (info.sample_aspect_ratio, abs(info.rotation), info.time_base) == (Fraction(4, 3), 90, Fraction(1, 30000))
        assert info.duration == pytest.approx(0.55, abs=0.05)


def test_frames_come_in_order_with_the_time_until_the_next(rich):
    with VideoReader(rich) as reader:
        frames = list(reader)
    assert [frame.number for frame in frames] == list(range(12))
    assert [frame.pts for frame in frames] == [1000 + time for time in VARIABLE]
    assert [frame.duration for frame in frames[:-1]] == np.diff(VARIABLE).tolist()


def test_planes_are_readonly_and_outlive_the_reader(rich):
    with VideoReader(rich) as reader:
        frames = list(reader)
    assert same([frame.luma for frame in frames], read(rich).luma)
    with pytest.raises(ValueError, match="read-only"):
        frames[0].luma[0, 0] = 0


@pytest.mark.parametrize("count", [1, 4, 6])
def test_short_videos_keep_every_frame(count, tmp_path):
    source = Clip(times=VARIABLE[:count], audio=["aac"], options=B_FRAMES).write(tmp_path / "in.mp4")
    rewrite(source, tmp_path / "out.mp4")
    before, after = read(source), read(tmp_path / "out.mp4")
    assert len(after.times) == count
    assert (after.times, after.packets) == (before.times, before.packets)


@pytest.mark.parametrize("audio_first", [False, True])
def test_a_limit_ends_picture_and_sound(audio_first, tmp_path):
    clip = Clip(options=B_FRAMES, moving=True, audio=["aac", "aac"], audio_first=audio_first)
    source = clip.write(tmp_path / "in.mp4")
    rewrite(source, tmp_path / "out.mp4", limit=5)
    before, after = read(source), read(tmp_path / "out.mp4")
    end = before.times[5]
    assert after.times == before.times[:5]
    for name in ("audio1", "audio2"):
        assert after.packets[name] == [packet for packet in before.packets[name] if packet[1] < end]


@pytest.mark.parametrize("options", [{"bf": "0"}, B_FRAMES])
def test_the_last_frame_is_shown_as_long(options, tmp_path):
    source = Clip(options=options).write(tmp_path / "in.mp4")
    rewrite(source, tmp_path / "out.mp4", EncoderOptions(options={"bf": "0", "qp": "0"}))
    assert read(tmp_path / "out.mp4").duration == read(source).duration


def test_the_decoders_memory_is_left_alone(tmp_path):
    """Frames are predicted from those two before them, which were written by then."""
    inter = {"bf": "0", "refs": "4", "g": "100", "sc_threshold": "0"}
    source = Clip(times=list(range(0, 40000, 1000)), alternating=True, options=inter).write(tmp_path / "in.mp4")
    rewrite(source, tmp_path / "out.mp4")
    assert_only_luma_changed(read(source), read(tmp_path / "out.mp4"))


def test_captions_and_other_side_data_of_the_frames_reach_the_encoder(tmp_path):
    """Seen by a user's SEI message, which x264 passes on when asked to: the settings that the source's encoder left there."""
    source = Clip(times=VARIABLE[:3], options={"crf": "33"}).write(tmp_path / "in.mp4")
    rewrite(source, tmp_path / "out.mp4", EncoderOptions(options={"udu_sei": "1", "crf": "20"}))
    with av.open(str(tmp_path / "out.mp4")) as container:
        payloads = [bytes(data) for frame in container.decode(video=0) for data in frame.side_data]
    assert any(b"crf=33" in payload for payload in payloads)


def test_frame_types_of_the_source_do_not_bind_the_encoder(tmp_path):
    source = Clip(times=VARIABLE, options={"g": "1"}).write(tmp_path / "in.mp4")  # all intra
    rewrite(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(frame.key_frame for frame in container.decode(video=0)) == 1


def test_what_the_container_cannot_hold_is_noted(tmp_path):
    source = Clip(aspect=Fraction(4, 3), rotation=90, times=VARIABLE[:3], color=(1, 1, 1, 1)).write(tmp_path / "in.mp4")
    notes = rewrite(source, tmp_path / "out.nut", FFV1)
    assert [note.split(" is")[0].split(" are")[0] for note in notes] == [
        "the sample aspect ratio 4/3",
        "the colour tags",
        "the rotation by 90 degrees",
    ]


LIGHT = "max-cll=1000,400"
MASTERING = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


def hdr_clip(path, params=f"{LIGHT}:{MASTERING}"):
    options = {"x265-params": f"log-level=none:hdr10=1:{params}", "preset": "ultrafast"}
    return Clip("libx265", "yuv420p10le", color=(1, 9, 9, 16), times=VARIABLE[:3], options=options).write(path)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"qp": "0"}),
        ("libx265", {"x265-params": "log-level=none:lossless=1"}),
        ("libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
    ],
)
@pytest.mark.parametrize("params", [f"{LIGHT}:{MASTERING}", LIGHT])
def test_hdr10_metadata_is_carried_over(codec, options, params, tmp_path):
    source = hdr_clip(tmp_path / "in.mp4", params)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader, EncoderOptions(codec, options=options)) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    assert writer.notes == []
    with VideoReader(source) as before, VideoReader(tmp_path / "out.mp4") as after:
        assert after.info.hdr.light == before.info.hdr.light == (1000, 400)
        close = {"rel": 1e-3, "abs": 1e-4}  # AV1 has coarser units
        if params == LIGHT:
            assert after.info.hdr.primaries is None
        else:
            assert [float(value) for value in after.info.hdr.primaries] == pytest.approx(
                [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329], **close
            )
            assert [float(value) for value in after.info.hdr.luminance] == pytest.approx([0.0001, 1000], **close)
        assert after.info.color_tags == before.info.color_tags == (1, 9, 9, 16)


def test_what_the_user_says_of_hdr_counts(tmp_path):
    options = EncoderOptions("libx265", options={"x265-params": "log-level=none:max-cll=500,200"})
    with VideoReader(hdr_clip(tmp_path / "in.mp4")) as reader, VideoWriter(tmp_path / "out.mp4", reader, options) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    with VideoReader(tmp_path / "out.mp4") as after:
        assert after.info.hdr.light == (500, 200)
        assert after.info.hdr.luminance == (Fraction(1, 10000), 1000)


def test_hdr_metadata_that_the_encoder_drops_is_noted(tmp_path):
    source = hdr_clip(tmp_path / "in.mp4")
    notes = rewrite(source, tmp_path / "out.mkv", FFV1)
    before, after = read(source), read(tmp_path / "out.mkv")
    assert_only_luma_changed(before, after, 10)
    assert after.tags == before.tags == (1, 9, 9, 16)
    assert notes == ["side data is not in the output: ffv1 in .mkv lost CONTENT_LIGHT_LEVEL, MASTERING_DISPLAY_METADATA"]


def test_a_sound_that_does_not_fit_is_refused_or_dropped_on_demand(tmp_path):
    source = Clip(audio=["pcm_s16le"], subtitles=("a",), time_base=Fraction(1, 1000), times=[0, 40]).write(tmp_path / "in.mkv")
    with pytest.raises(VideoError, match=r"\.mp4 cannot hold subtitle stream 2 .*in\.mkv \(srt\): write an \.mkv, or .*--drop"):
        rewrite(source, tmp_path / "out.mp4")
    notes = rewrite(source, tmp_path / "out.mp4", EncoderOptions(drop_unsupported=True))
    assert len(notes) == 1
    assert len(read(tmp_path / "out.mp4").packets["audio1"]) > 0


def test_samples_that_are_not_served_are_refused_with_a_remedy(tmp_path):
    path, pixel_format = tmp_path / "in.nut", "bayer_bggr8"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        container.mux(stream.encode(av.VideoFrame(64, 48, pixel_format)))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match=rf"in\.nut: its samples are {pixel_format}, expected planar YUV .*ffmpeg -i"):
        VideoReader(path)


def test_interlaced_video_is_refused_with_a_remedy(tmp_path):
    source = Clip(options={"x264-params": "interlaced=1"}).write(tmp_path / "in.mp4")
    with pytest.raises(VideoError, match=r"in\.mp4: frame 0 is interlaced.*bwdif"):
        VideoReader(source)


def test_a_change_of_size_is_refused_where_it_happens(tmp_path):
    parts = [Clip(size=size, times=VARIABLE[:3]).write(tmp_path / f"{size[0]}.h264") for size in ((64, 48), (96, 64))]
    (tmp_path / "in.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    with (
        pytest.raises(VideoError, match=r"in\.h264: changes from 64x48 to 96x64 at frame 3"),
        VideoReader(tmp_path / "in.h264") as reader,
    ):
        list(reader)


def filtered(path, bsf):
    """The coded pictures, one after another, through a bit stream filter."""
    with av.open(str(path)) as container:
        filters = BitStreamFilterContext(bsf, container.streams.video[0])
        return b"".join(bytes(out) for packet in container.demux() for out in filters.filter(packet if packet.size else None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"color": (1, 9, 9, 18)}, "the colour (primaries-transfer-matrix) changes from 1-1-1 to 9-18-9"),
        ({"color": (1, 1, 1, 1), "aspect": Fraction(16, 11)}, "the shape of samples changes from 1:1 to 16:11"),
        ({"color": (2, 1, 1, 1)}, "the range of samples changes from limited to full"),
        (
            {"color": (1, 1, 1, 1), "bsf": "h264_metadata=display_orientation=insert:rotate=90"},
            "the rotation changes from 0 degrees to 90 degrees",
        ),
    ],
)
def test_a_change_of_what_an_output_says_once_is_told_once(change, said, tmp_path):
    kinds = {"color": (1, 1, 1, 1)}, change
    parts = []
    for number, kind in enumerate(kinds):
        bsf = kind.pop("bsf", None)
        part = Clip(times=VARIABLE[:4], moving=True, **kind).write(tmp_path / f"{number}.h264")
        parts.append(filtered(part, bsf) if bsf else part.read_bytes())
    (tmp_path / "in.h264").write_bytes(b"".join(parts * 2))
    with VideoReader(tmp_path / "in.h264") as reader:
        assert len(list(reader)) == 16
        (note,) = [note for note in reader.notes if not note.startswith("the stream says no rate")]
        near = re.fullmatch(rf"{re.escape(said)} near frame (\d) \((0\.\d\d) s\), .*", note)
        assert int(near[1]) in (2, 3, 4)  # the decoder knows of the shape of samples before it gives the frame
        assert float(near[2]) == int(near[1]) / 25
    with VideoReader(tmp_path / "in.h264", limit=2) as reader:
        assert len(list(reader)) == 2
        assert not [note for note in reader.notes if "changes" in note]


def test_a_change_of_the_mastering_display_is_told(tmp_path):
    light = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll={}"
    parts = [
        Clip("libx265", times=VARIABLE[:3], options={"preset": "ultrafast", "x265-params": light.format(most)}).write(
            tmp_path / f"{n}.hevc"
        )
        for n, most in enumerate(("1000,400", "4000,1000"))
    ]
    (tmp_path / "in.hevc").write_bytes(b"".join(part.read_bytes() for part in parts))
    with VideoReader(tmp_path / "in.hevc") as reader:
        assert len(list(reader)) == 6
        (note,) = [note for note in reader.notes if "HDR10" in note]
    assert re.match(r"the HDR10 metadata changes from G\(.* 1000,400 to G\(.* 4000,1000 near frame [23] ", note)


def test_a_container_that_contradicts_its_picture_is_told(tmp_path):
    path = Clip(color=(1, 1, 1, 1)).write(tmp_path / "in.mp4")
    with VideoReader(path) as reader:
        assert reader.notes == []
    before, at, after = path.read_bytes().partition(b"colrnclx")
    path.write_bytes(before + at + struct.pack(">3H", 9, 16, 9) + after[6:])
    with VideoReader(path) as reader:
        assert reader.info.color_tags[1:] == (1, 1, 1)
        assert reader.notes == [
            "the container says 9-16-9, the coded picture 1-1-1 (primaries-transfer-matrix): the output has the picture's"
        ]


def test_a_raw_stream_without_times_gets_them(tmp_path):
    source = Clip(times=VARIABLE[:6], options={"bf": "0"}).write(tmp_path / "in.h264")
    with VideoReader(source) as reader:
        times = [frame.pts * reader.info.time_base for frame in reader]
    assert len(times) == 6
    assert len({b - a for a, b in pairwise(times)}) == 1
    rewrite(source, tmp_path / "out.mp4")
    assert same(read(tmp_path / "out.mp4").luma, [255 - luma for luma in read(source).luma])


@pytest.mark.parametrize(
    ("name", "share", "message"),
    [
        ("in.mp4", 0.6, "not a video that FFmpeg can read .moov atom not found"),  # its index is at the end
        ("fast.mp4", 0.6, r"broken or cut off at frame \d+"),
        ("in.mkv", 0.6, r"broken or cut off at frame \d+ .at \d\.\d\d of 2\.00 s"),
        ("in.ts", 0.6, r"broken or cut off at frame \d+"),
    ],
)
def test_a_file_that_was_cut_off_is_noticed(name, share, message, tmp_path):
    clip = Clip(times=list(range(60)), time_base=Fraction(1, 30), options={"g": "20"})
    whole = clip.write(tmp_path / name)
    if name == "fast.mp4":
        rewrite(whole, tmp_path / "index_first.mp4")
        whole = tmp_path / "index_first.mp4"
    part, data = tmp_path / f"cut{whole.suffix}", whole.read_bytes()
    part.write_bytes(data[: int(len(data) * share) | 1])  # an odd number: nothing tells of a cut between two packets of a stream
    with pytest.raises(VideoError, match=message) as caught, VideoReader(part) as reader:
        list(reader)
    assert part.name in str(caught.value)


def test_an_mp4_that_ends_between_two_frames_is_noticed(tmp_path):
    rewrite(Clip(times=list(range(60)), time_base=Fraction(1, 30)).write(tmp_path / "in.mp4"), tmp_path / "whole.mp4")
    whole = tmp_path / "whole.mp4"  # written with its index in front
    with av.open(str(whole)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    part = cut(whole, tmp_path / "part.mp4", ends[39] / whole.stat().st_size)
    with (
        pytest.raises(VideoError, match=r"part\.mp4: broken or cut off at frame 40 \(it says it has 60\)"),
        VideoReader(part) as reader,
    ):
        list(reader)


def test_a_damaged_transport_stream_is_noticed(tmp_path):
    whole = Clip(times=list(range(60)), time_base=Fraction(1, 30), options={"g": "20"}).write(tmp_path / "in.ts")
    data = bytearray(whole.read_bytes())
    del data[188 * 150 : 188 * 153]  # three packets that were lost on the air
    whole.write_bytes(data)
    with pytest.raises(VideoError, match=r"in\.ts: broken or cut off at frame \d+"), VideoReader(whole) as reader:
        list(reader)


def test_a_trimmed_mp4_is_not_taken_for_a_cut_off_one(tmp_path):
    """Phones trim by the edit list: frames stay in the file, and in its header's count, that are not to be shown."""
    source = Clip(times=list(range(0, 30000, 1000)), options={"bf": "0", "g": "5"}).write(tmp_path / "in.mp4")
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 4
    assert struct.unpack(">IIIi", data[at : at + 16]) == (0, 1, 30000, 0)  # version, entries, duration, start
    data[at + 12 : at + 16] = struct.pack(">i", 17000)
    source.write_bytes(data)
    with VideoReader(source) as reader:
        assert len(list(reader)) == reader.info.frames == 13


def test_metadata_in_another_encoding_is_carried_over(tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w", metadata_encoding="latin-1") as container:
        container.metadata["title"] = "Smørbrød"
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height = 64, 48
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")) + stream.encode(None))
    rewrite(source, tmp_path / "out.mkv", FFV1)
    with av.open(str(tmp_path / "out.mkv"), metadata_encoding="latin-1") as container:
        assert container.metadata["title"] == "Smørbrød"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("not a video\n" * 100), "not a video that FFmpeg can read"),
        (lambda path: path.write_bytes(b""), "not a video that FFmpeg can read"),
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_a_file_that_is_no_video_is_an_error_that_names_it(make, message, tmp_path):
    make(tmp_path / "in.mp4")
    with pytest.raises(VideoError, match=rf"in\.mp4: {message}"):
        VideoReader(tmp_path / "in.mp4")


def test_a_file_without_a_video_stream(tmp_path):
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame) + stream.encode(None))
    with pytest.raises(VideoError, match=r"in\.mp4: has no video stream, only audio: give"):
        VideoReader(tmp_path / "in.mp4")


@pytest.mark.parametrize(
    ("clip", "output", "encoder", "message"),
    [
        (Clip("ffv1", size=(65, 49)), "out.mp4", LOSSLESS, r"libx264 refuses 65x49 yuv420p .*not divisible by 2.*-c ffv1"),
        (Clip("ffv1", "yuv444p12le"), "out.mp4", LOSSLESS, r"libx264 does not take yuv444p12le.*-c ffv1"),
        (Clip("ffv1"), "out.mp4", EncoderOptions("nosuch"), r"no encoder 'nosuch'"),
        (Clip("ffv1"), "out.mp4", EncoderOptions("aac"), r"aac does not encode video"),
        (Clip("ffv1"), "out.webm", LOSSLESS, r"\.webm cannot hold libx264 video: add -c libvpx-vp9, or take \.mp4, \.mkv or \.mov"),
        (Clip("ffv1"), "out.mp4", EncoderOptions(options={"sharpnes": "3"}), r"libx264 has no option sharpnes=3"),
        (Clip("ffv1"), "out.mp4", EncoderOptions(options={"crf": "high"}), r"libx264 refuses .*setting option crf to value high"),
        (Clip("ffv1"), "out.txt", LOSSLESS, r"\.txt is no video format"),
        (Clip("ffv1"), "out", LOSSLESS, r"no suffix is no video format"),
        (Clip("ffv1"), "out.png", LOSSLESS, r"\.png is a picture, .* a name with a number, such as .*out_%05d\.png"),
        (Clip("ffv1"), "out.gif", LOSSLESS, r"\.gif cannot hold libx264 video: take \.mp4, \.mkv or \.mov"),  # and few colours
        (Clip("ffv1"), "out.y4m", LOSSLESS, r"cannot be written .*: add -c wrapped_avframe, or take \.mp4, \.mkv or \.mov"),
        (Clip("ffv1"), "out.ogv", LOSSLESS, r"cannot be written .*: add -c libvpx, or take \.mp4, \.mkv or \.mov"),
        (Clip("ffv1"), "out.mov", EncoderOptions("rawvideo"), r"out\.mov: what rawvideo writes there cannot be read back \(broken"),
        (Clip("ffv1"), "out.ts", EncoderOptions("ffv1"), r"read back \(has no video stream, only data\): take another codec"),
        (Clip("ffv1"), "out.mp4", EncoderOptions(options={"x264-params": "interlaced=1"}), r"read back \(frame 0 is interlaced"),
        (Clip("ffv1"), "missing/out.mp4", LOSSLESS, r"there is no folder .*missing"),
    ],
)
def test_an_output_that_cannot_be_is_refused_at_once(clip, output, encoder, message, tmp_path):
    source = clip.write(tmp_path / "in.mkv")
    with VideoReader(source) as reader, pytest.raises(InputError, match=message):
        VideoWriter(tmp_path / output, reader, encoder)
    assert names(tmp_path) == ["in.mkv"]


def test_a_file_that_cannot_be_written_fails_before_the_first_frame(rich):
    with VideoReader(rich) as reader, pytest.raises(VideoError, match=r"/proc/out\.mp4: cannot be written"):
        VideoWriter("/proc/out.mp4", reader)


def test_an_encoder_that_drops_frames_is_noticed(tmp_path):
    source = Clip("ffv1", times=list(range(0, 60000, 1000))).write(tmp_path / "in.mkv")
    drops = EncoderOptions("libvpx", options={"b": "1000", "drop-threshold": "100", "deadline": "realtime", "bufsize": "1000"})
    with pytest.raises(VideoError, match=r"libvpx made \d+ frames of 60: take another codec"):
        rewrite(source, tmp_path / "out.mkv", drops)
    assert names(tmp_path) == ["in.mkv"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_midway_leaves_nothing_behind(error, rich, tmp_path):
    calls = count()

    def fail_at_frame_7(luma, bits):
        if next(calls) == 7:
            assert len(names(tmp_path)) == 2  # it is being written, under another name
            raise error
        return luma

    (tmp_path / "out.mp4").write_text("the one before")
    with pytest.raises(error):
        rewrite(rich, tmp_path / "out.mp4", change=fail_at_frame_7)
    assert names(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_text() == "the one before"


def test_closing_twice_does_nothing(rich, tmp_path):
    with VideoReader(rich) as reader, VideoWriter(tmp_path / "out.mp4", reader, LOSSLESS) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    writer.close()
    writer.finish()
    reader.close()
    assert len(read(tmp_path / "out.mp4").times) == 12


def test_luma_of_another_shape_is_refused(rich, tmp_path):
    with pytest.raises(InputError, match=r"got luma \(24, 64\) uint8, expected \(48, 64\) uint8"):
        rewrite(rich, tmp_path / "out.mp4", change=lambda luma, bits: luma[::2])


@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_nvidias_encoders_have_the_options_that_they_are_given(codec):
    offered = av.CodecContext.create(codec, "w").supported_options
    assert EncoderOptions(codec).resolved().keys() <= {option.name for option in [*offered.private, *offered.generic]}


def test_default_quality_gives_way_to_the_users():
    assert EncoderOptions().resolved() == {"crf": "18"}
    assert EncoderOptions(crf=23.5).resolved() == {"crf": "23.5"}
    assert EncoderOptions(options={"qp": "0"}).resolved() == {"qp": "0"}
    assert EncoderOptions("ffv1").resolved() == {}
    assert EncoderOptions("hevc_nvenc").resolved() == {"rc": "vbr", "b": "0", "cq": "21"}
    assert EncoderOptions("h264_nvenc", crf=25).resolved() == {"rc": "vbr", "b": "0", "cq": "25"}
    assert EncoderOptions("h264_nvenc", options={"b": "8M"}).resolved() == {"b": "8M"}
    with pytest.raises(InputError, match="got --crf 20 and -e qp, expected one of them"):
        EncoderOptions(crf=20, options={"qp": "0"})
