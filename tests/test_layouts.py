"""Samples that are not planar YUV: RGB, with and without alpha, GIFs, packed and semi-planar, as screens and cameras have them."""

from types import SimpleNamespace

import av
import numpy as np
import pytest
from test_field_streams import FFV1, LOSSLESS, copied
from test_pictures import load, names
from test_pictures import save as save_picture
from video_clips import planes_of, read, same

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.video import VideoReader
from runtime.video.layouts import finer, fitted
from runtime.video.picture_writer import PictureWriter

SIZE = (64, 48)


def video(path, codec, pixel_format, pictures):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        (stream.width, stream.height), stream.pix_fmt = SIZE, pixel_format
        for picture in pictures:
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def planar(pixel_format):
    frame = av.VideoFrame(*SIZE, pixel_format)
    for plane in planes_of(frame):
        plane[:] = np.random.default_rng(0).integers(0, 1 << frame.format.components[0].bits, plane.shape)
    return frame


@pytest.mark.parametrize(
    ("packed", "planes"),
    [("nv12", "yuv420p"), ("nv21", "yuv420p"), ("yuyv422", "yuv422p"), ("uyvy422", "yuv422p")],
)
def test_packed_yuv_is_the_same_in_planes(packed, planes, tmp_path):
    frame = planar(planes)
    source = video(tmp_path / "in.nut", "rawvideo", packed, [frame.reformat(format=packed)])
    with VideoReader(source) as reader:
        (found,) = list(reader)
        assert reader.info.pixel_format == planes
    assert same([found.luma, *found.chroma], planes_of(frame))


@pytest.mark.parametrize("pixel_format", ["bgr0", "rgb24"])
def test_rgb_video_keeps_its_colours(pixel_format, tmp_path):
    pixels = noise((SIZE[1], SIZE[0], 3))
    frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pixel_format)
    source = video(tmp_path / "in.nut", "rawvideo", pixel_format, [frame, frame])
    with VideoReader(source) as reader, PictureWriter(tmp_path / "%d.png", reader) as writer:
        assert (reader.info.rgb_bits, reader.info.pixel_format) == (8, "yuv444p16le")
        for each in reader:
            writer.write(each, each.luma)
    assert same(load(tmp_path / "2.png")[1], pixels)


@pytest.mark.parametrize("size", [(48, 64), (49, 65)])
def test_8_bit_pngs_make_an_mp4(size, tmp_path):
    (tmp_path / "in").mkdir()
    smooth = np.stack(np.broadcast_arrays(np.arange(size[1]), np.arange(size[0])[:, None], 128), -1).astype(np.uint8)
    for number in range(3):
        save_picture(tmp_path / "in" / f"{number}.png", smooth, "rgb24")
    notes = copied(tmp_path / "in", tmp_path / "out.mp4")
    assert [note.split(",")[0] for note in notes] == [f"RGB becomes {'yuv420p' if size[0] == 48 else 'yuv444p'}"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 3
    assert np.abs(frames[1].to_ndarray(format="rgb24").astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("deep", [False, True])
def test_alpha_of_pngs_is_kept_or_refused(deep, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = noise((SIZE[1], SIZE[0], 4)).astype(np.uint16 if deep else np.uint8) * (257 if deep else 1)
    pixel_format = "rgba64be" if deep else "rgba"
    save_picture(tmp_path / "in" / "1.png", pixels, pixel_format)
    with pytest.raises(InputError, match=r"libx264 does not take yuva444p16le.*-c ffv1"):
        copied(tmp_path / "in", tmp_path / "out.mp4")
    copied(tmp_path / "in", tmp_path / "out.mkv", FFV1)
    assert read(tmp_path / "out.mkv").pixel_format == "yuva444p16le"
    with VideoReader(tmp_path / "in") as reader, PictureWriter(tmp_path / "out", reader) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    name, found = load(tmp_path / "out" / "1.png")
    assert name == pixel_format
    assert np.abs(found.astype(int) - pixels).max() <= deep


def test_alpha_of_a_video_is_kept_in_pictures(tmp_path):
    source = video(tmp_path / "in.mkv", "ffv1", "yuva420p", [planar("yuva420p")])
    with VideoReader(source) as reader, PictureWriter(tmp_path / "%d.png", reader) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
            alpha = frame.chroma[2].copy()
    assert same(load(tmp_path / "1.png")[1][..., 3], alpha)


def test_opaque_alpha_is_none_and_holes_that_come_later_are_said(tmp_path):
    (tmp_path / "in").mkdir()
    for number, alpha in enumerate((255, 255, 254)):
        pixels = noise((SIZE[1], SIZE[0], 4))
        pixels[..., 3] = alpha
        save_picture(tmp_path / "in" / f"{number}.png", pixels, "rgba")
    with VideoReader(tmp_path / "in", limit=2) as reader:
        assert reader.info.pixel_format == "yuv444p16le"
        with pytest.raises(VideoError, match=r"in: frame 2 becomes transparent, expected .*: cut it there"):
            list(reader)


def test_a_gif_makes_an_mp4(tmp_path):
    pixels = [np.full((SIZE[1], SIZE[0]), 3 + number, np.uint8) for number in range(3)]
    frames = [av.VideoFrame.from_ndarray(each, "gray").reformat(format="rgb8") for each in pixels]
    source = video(tmp_path / "in.gif", "gif", "rgb8", frames)
    copied(source, tmp_path / "out.mp4", LOSSLESS)
    assert len(read(tmp_path / "out.mp4").times) == 3


def test_pictures_of_one_bit_are_gray(tmp_path):
    frame = av.VideoFrame(*SIZE, "monob")
    np.frombuffer(frame.planes[0], np.uint8)[:] = 0b10101010
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = *SIZE, "monob", 1
    (tmp_path / "1.png").write_bytes(b"".join(bytes(packet) for packet in context.encode(frame) + context.encode(None)))
    with VideoReader(tmp_path / "%d.png") as reader:
        (found,) = list(reader)
    assert np.unique(found.luma).tolist() == [0, 255]
    assert names(tmp_path) == ["1.png"]


@pytest.mark.parametrize(
    ("source", "codec", "suffix", "becomes"),
    [
        ("yuv420p", "prores_ks", ".mov", "yuv422p10le"),
        ("yuv422p", "prores_ks", ".mov", "yuv422p10le"),
        ("yuv444p", "prores_ks", ".mov", "yuv444p10le"),
        ("yuva420p", "prores_ks", ".mov", "yuva444p10le"),
        ("gray", "prores_ks", ".mov", "yuv422p10le"),
        ("yuv420p", "v210", ".mov", "yuv422p"),
        ("yuv420p10le", "v210", ".mov", "yuv422p10le"),
        ("gray", "libsvtav1", ".mp4", "yuv420p"),
    ],
)
def test_an_encoder_without_the_format_gets_the_closest_that_holds_it(source, codec, suffix, becomes, tmp_path):
    """Camera H.264 to ProRes is a post house's daily work."""
    frame = smooth(source)
    video(tmp_path / "in.mkv", "ffv1", source, [frame] * 3)
    notes = copied(tmp_path / "in.mkv", tmp_path / f"out{suffix}", EncoderOptions(codec))
    levels = ", the colour range limited" if source == "gray" else ""
    assert f"{source} becomes {becomes}{levels}: {codec} has nothing closer" in notes
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        frames = [frame.format.name for frame in container.decode(video=0)]
    assert len(frames) == 3
    assert frames[0].rstrip("12le0") == becomes.rstrip("12le0")  # ProRes with alpha is decoded to 12 bits


@pytest.mark.parametrize("before", [8, 10])
def test_luma_of_a_finer_format_is_the_same_codes_shifted(before):
    """In limited range; of full range white becomes white. Colour goes where swscale puts it."""
    source, target = f"yuv420p{'10le' if before == 10 else ''}", f"yuv422p{before + 2}le"
    frame = smooth(source)
    planes = planes_of(frame)
    info = SimpleNamespace(bits=before, rgb_bits=None, color_range="limited", pixel_format=source)
    luma, *colours = fitted(planes, info, target)
    assert same(luma, planes[0].astype(np.uint16) << 2)
    wider = frame.reformat(format=target, interpolation="BICUBIC")
    assert max(np.abs(made.astype(int) - known).max() for made, known in zip(colours, planes_of(wider)[1:])) <= 4
    white = np.full_like(planes[0], (1 << before) - 1)
    full = fitted([white, *planes[1:]], SimpleNamespace(**{**vars(info), "color_range": "full"}), target)
    assert (full[0] == 235 << before + 2 - 8).all()


@pytest.mark.parametrize(
    ("source", "codec"),
    [("yuv444p12le", "prores_ks"), ("yuv422p", "libsvtav1"), ("yuva420p", "libx264"), ("yuv420p10le", "mpeg2video")],
)
def test_what_no_format_of_an_encoder_holds_is_refused(source, codec, tmp_path):
    video(tmp_path / "in.mkv", "ffv1", source, [planar(source)])
    with pytest.raises(InputError, match=rf"{codec} does not take {source}, it takes .*-c ffv1"):
        copied(tmp_path / "in.mkv", tmp_path / "out.mkv", EncoderOptions(codec))


def test_samples_that_an_encoder_takes_in_another_layout_only_are_not_blown_up():
    info = SimpleNamespace(bits=10, rgb_bits=None, pixel_format="yuv420p10le")
    assert finer(info, ["yuv420p", "p010le", "yuv444p16le"]) == ()
    assert finer(info, ["yuv420p", "yuv444p16le", "yuv444p10msble"]) == ("yuv444p16le",)


def test_rgb_goes_to_prores_with_all_its_colour(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.stack(np.broadcast_arrays(np.arange(64), np.arange(48)[:, None], 128), -1).astype(np.uint8)
    for number in range(3):
        save_picture(tmp_path / "in" / f"{number}.png", pixels, "rgb24")
    notes = copied(tmp_path / "in", tmp_path / "out.mov", EncoderOptions("prores_ks"))
    assert notes == ["RGB becomes yuv444p10le, the colour range limited: prores_ks has nothing closer"]
    assert np.abs(shown(tmp_path / "out.mov").astype(int) - pixels).max() <= 4


@pytest.mark.parametrize(
    ("codec", "suffix", "becomes"),
    [("prores_ks", ".mov", "yuv444p10le"), ("libx265", ".mkv", "yuv444p12le"), ("libx264", ".mp4", "yuv444p10le")],
)
def test_deep_rgb_goes_to_encoders_of_fewer_bits(codec, suffix, becomes, tmp_path):
    """As a scan in DPX does to ProRes."""
    (tmp_path / "in").mkdir()
    pixels = np.stack(np.broadcast_arrays(np.arange(64), np.arange(48)[:, None], 128), -1).astype(np.uint8)
    for number in range(3):
        save_picture(tmp_path / "in" / f"{number}.png", pixels.astype(np.uint16) * 257, "rgb48be")
    notes = copied(tmp_path / "in", tmp_path / f"out{suffix}", EncoderOptions(codec))
    assert notes == [f"RGB becomes {becomes}, the colour range limited: -c ffv1 in an .mkv keeps it all"]
    assert np.abs(shown(tmp_path / f"out{suffix}").astype(int) - pixels).max() <= 4


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".mp4"])
def test_full_range_that_becomes_another_format_looks_the_same(suffix, tmp_path):
    """QuickTime files do not say the range, and players take ProRes for limited."""
    video(tmp_path / "in.mkv", "mjpeg", "yuvj420p", [smooth("yuvj420p") for _ in range(3)])
    codec = "libsvtav1" if suffix == ".mp4" else "prores_ks"
    notes = copied(tmp_path / "in.mkv", tmp_path / f"out{suffix}", EncoderOptions(codec))
    if codec == "prores_ks":
        assert notes == ["yuvj420p becomes yuv422p10le, the colour range limited: prores_ks has nothing closer"]
    assert np.abs(shown(tmp_path / f"out{suffix}").astype(int) - shown(tmp_path / "in.mkv")).max() <= 6


def shown(path):
    """The second picture as a player shows it."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))[1].to_ndarray(format="rgb24")


def smooth(pixel_format):
    """Ramps, which coders keep."""
    frame = av.VideoFrame(*SIZE, pixel_format)
    most = 1 << frame.format.components[0].bits
    for number, plane in enumerate(planes_of(frame)):
        height, width = plane.shape
        plane[:] = most // 4 + (np.arange(width) + number * np.arange(height)[:, None]) * (most // 512 or 1)
    return frame
