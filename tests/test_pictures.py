"""Pictures in and out: numbered sequences and folders, 8 and 16 bits, gray and RGB."""

import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_clips import Clip, read, same

from runtime import Engine, InputError, StreamDeblurrer, VideoError
from runtime.deblur_video import deblur_video, main
from runtime.encoder_options import EncoderOptions
from runtime.pixels import rgb
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader
from runtime.video.picture_writer import PictureWriter

ROOT = Path(__file__).resolve().parents[1]
SIZE = (64, 48)


def save(path, pixels, pixel_format):
    frame = av.VideoFrame.from_ndarray(pixels, pixel_format)
    codec = {".png": "png", ".dpx": "dpx", ".jpg": "mjpeg", ".jpeg": "mjpeg"}[path.suffix]
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = frame.width, frame.height, pixel_format, Fraction(1, 25)
    path.write_bytes(b"".join(bytes(packet) for packet in context.encode(frame) + context.encode(None)))


def load(path):
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    return frame.format.name, frame.to_ndarray()


def noise(count, pixel_format, seed=0):
    shape = (SIZE[1], SIZE[0], 3) if pixel_format.startswith("rgb") else (SIZE[1], SIZE[0])
    deep = "48" in pixel_format or "16" in pixel_format
    lot = np.random.default_rng(seed)
    return [lot.integers(0, 2**16 if deep else 256, shape).astype(np.uint16 if deep else np.uint8) for _ in range(count)]


def copied(source, target):
    with VideoReader(source) as reader, PictureWriter(target, reader) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    return writer


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("pixel_format", ["gray", "gray16be", "rgb24", "rgb48be"])
def test_pictures_come_back_as_they_were(pixel_format, tmp_path):
    pictures = noise(3, pixel_format)
    for number, pixels in enumerate(pictures):
        save(tmp_path / f"{number + 7:05d}.png", pixels, pixel_format)
    (tmp_path / "out").mkdir()
    copied(tmp_path / "%05d.png", tmp_path / "out" / "%03d.png")
    assert names(tmp_path / "out") == ["007.png", "008.png", "009.png"]
    for number, pixels in enumerate(pictures):
        name, found = load(tmp_path / "out" / f"{number + 7:03d}.png")
        assert name == pixel_format
        assert np.abs(found.astype(np.int64) - pixels).max() <= (1 if pixel_format == "rgb48be" else 0)


def test_every_colour_of_8_bits_comes_back():
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(52, -1, 3)
    assert same(rgb.to_rgb(*rgb.to_ycc(cube), np.uint8), cube)


def test_luma_of_rgb_is_bt601():
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert rgb.to_ycc(pixels)[0].tolist() == [[round(65535 * weight) for weight in (0.299, 0.587, 0.114, 1)]]


def test_info_and_times_of_pictures(tmp_path):
    for number, pixels in enumerate(noise(3, "rgb24")):
        save(tmp_path / f"{number}.png", pixels, "rgb24")
    with VideoReader(tmp_path, rate=Fraction(30)) as reader:
        info, frames = reader.info, list(reader)
    assert (info.frames, info.bits, info.rgb_bits, info.color_range, info.pixel_format) == (3, 16, 8, "full", "yuv444p16le")
    assert [(frame.pts * info.time_base, frame.duration) for frame in frames] == [(Fraction(n, 30), 1) for n in range(3)]


def test_a_folder_is_in_the_order_of_its_numbers(tmp_path):
    source = tmp_path / "it's in"
    source.mkdir()
    pictures = noise(3, "gray")
    for name, pixels in zip(("f2.png", "f10.png", "f100.png"), pictures):
        save(source / name, pixels, "gray")
    (source / "notes.txt").write_text("not a picture")
    copied(source, tmp_path / "out")
    assert names(tmp_path / "out") == ["f10.png", "f100.png", "f2.png"]
    with VideoReader(source) as reader:
        assert same([frame.luma for frame in reader], pictures)


def test_a_colour_profile_with_a_name_does_not_end_the_process(tmp_path):
    """PyAV frees the name once more than there is of it, when the frame goes."""
    Image.new("RGB", SIZE).save(tmp_path / "0.png", icc_profile=bytes(200))
    read_it = (
        "import gc, sys; from runtime.video import VideoReader\n"
        "with VideoReader(sys.argv[1]) as reader: print(sorted(reader.info.side_data), len(list(reader)))\n"
        "gc.collect(); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", read_it, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['ICC_PROFILE'] 1\nalive\n"), done.stderr


def test_jpeg_in_png_out(tmp_path):
    for number, suffix in enumerate((".jpg", ".jpeg")):
        luma, frame = noise(1, "gray", number)[0], av.VideoFrame(*SIZE, "yuvj420p")
        frame = av.VideoFrame.from_ndarray(luma, "gray").reformat(format="yuvj420p")
        save(tmp_path / f"{number}{suffix}", frame.to_ndarray(), "yuvj420p")
    copied(tmp_path, tmp_path / "out")
    with VideoReader(tmp_path) as reader:
        expected = [frame.luma for frame in reader]
    for number in range(2):
        name, found = load(tmp_path / "out" / f"{number}.png")
        assert name == "rgb24"
        gray = np.repeat(expected[number][..., None], 3, -1).astype(int)
        assert np.abs(found - gray).mean() < 2  # colour differences of a gray JPEG are zero but for its compression


def test_the_network_sees_pictures_as_a_video(tiny_model, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    pictures = noise(7, "gray16be")
    for number, pixels in enumerate(pictures):
        save(source / f"{number:05d}.png", pixels, "gray16be")
    arguments = ["--model", str(tiny_model), "--precision", "fp32", "--threads", "1", "--scene-thresh", "0", "--no-progress"]
    assert main([str(source), str(tmp_path / "out"), *arguments]) == 0
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        stream = StreamDeblurrer(engine, None, 16, "full")
        sharp = [luma for pixels in pictures for luma in stream.push(pixels)] + stream.flush()
    assert same([load(tmp_path / "out" / f"{number:05d}.png")[1] for number in range(7)], sharp)
    assert names(tmp_path) == ["in", "out"]


@pytest.mark.parametrize(("source", "output"), [("video", "%05d.png"), ("pictures", "video"), ("video", "folder")])
def test_videos_and_pictures_become_each_other(source, output, tiny_model, tmp_path):
    video = Clip(pixel_format="yuv420p10le", times=list(range(0, 6000, 1000)), audio=["aac"]).write(tmp_path / "in.mp4")
    for number, pixels in enumerate(noise(6, "rgb24")):
        save(tmp_path / f"{number:03d}.png", pixels, "rgb24")
    (tmp_path / "folder").mkdir()
    outputs = {"%05d.png": tmp_path / "new" / "%05d.png", "video": tmp_path / "out.mkv", "folder": tmp_path / "folder"}
    sources = {"video": video, "pictures": tmp_path / "%03d.png"}
    encoder = EncoderOptions("ffv1" if output == "video" else "libx264")
    options = DeblurOptions(sources[source], outputs[output], scene_threshold=0, encoder=encoder)
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        summary = deblur_video(options, engine=engine)
    assert summary.frames == 6
    if output == "video":
        with VideoReader(tmp_path / "out.mkv") as reader:
            assert (len(list(reader)), reader.info.pixel_format) == (6, "yuv444p16le")
        return
    folder, first = {"%05d.png": (tmp_path / "new", "00001.png"), "folder": (tmp_path / "folder", "00000001.png")}[output]
    assert names(folder)[0] == first
    assert len(names(folder)) == 6
    assert load(folder / first)[0] == "rgb48be"
    assert summary.notes == ("all but the picture is left out: pictures have no sound",)


def fail_after_one(reader, writer, folder):
    frame = next(iter(reader))
    writer.write(frame, frame.luma)
    assert len(names(folder)) == 4  # it is being written
    raise InputError


def test_an_error_midway_leaves_no_pictures(tmp_path):
    for number, pixels in enumerate(noise(3, "gray")):
        save(tmp_path / f"{number}.png", pixels, "gray")
    with VideoReader(tmp_path) as reader, pytest.raises(InputError), PictureWriter(tmp_path / "out", reader) as writer:
        fail_after_one(reader, writer, tmp_path)
    assert names(tmp_path) == ["0.png", "1.png", "2.png"]


@pytest.fixture
def three(tmp_path):
    for number, pixels in enumerate(noise(3, "gray")):
        save(tmp_path / f"{number}.png", pixels, "gray")
    return tmp_path


@pytest.mark.parametrize(
    ("spoil", "path", "message"),
    [
        (lambda folder: (folder / "1.png").unlink(), "%d.png", r"1\.png is missing in a sequence that goes to 2\.png"),
        (lambda folder: None, "%05d.png", r"there is no such picture, expected files such as 00001\.png"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "", "is a folder without pictures"),
        (
            lambda folder: save(folder / "1.png", noise(1, "gray")[0][:24], "gray"),
            "",
            "changes from 64x48 to 64x24 at frame 1",
        ),
        (lambda folder: (folder / "1.png").write_bytes(b"no picture"), "", r"broken or cut off at frame 1"),
        (
            lambda folder: (folder / "1.png").rename(folder / "1.bmp"),
            "",
            r"has pictures of several kinds \(\.bmp, \.png\), expected all of one: move the others",
        ),
        (lambda folder: None, "%d_%d.png", r"%d_%d\.png: no such file"),
        (lambda folder: shutil.copy(__file__, folder / "0.png"), "", r"broken or cut off|not a video|no frame"),
    ],
)
def test_pictures_that_are_no_video_are_refused(spoil, path, message, three):
    spoil(three)
    with pytest.raises(VideoError, match=message), VideoReader(three / path) as reader:
        list(reader)


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("", "", "is the input"),
        ("%d.png", "%03d.png", "is the input's folder too"),
        ("", "full", "full has pictures already: add -y"),
        ("", "full/%d.png", "full has pictures already: add -y"),
    ],
)
def test_pictures_are_never_replaced_unasked(source, output, message, three):
    (three / "full").mkdir()
    shutil.copy(three / "0.png", three / "full")
    with pytest.raises(InputError, match=message):
        DeblurOptions(three / source, three / output)


@pytest.mark.parametrize("source", ["", "%d.png", "%03d.png"])
def test_a_run_from_pictures_is_not_resumed(source, three):
    with pytest.raises(InputError, match="resumed from a video file to a video file only: leave out --resume"):
        DeblurOptions(three / source, three / "out.mkv", resume=True, rate=30)


@pytest.mark.parametrize("rate", [0, -1, 0.0001, 1001, float("inf"), float("nan")])
def test_a_rate_that_no_video_has_is_refused(rate, three):
    with pytest.raises(InputError, match=r"the rate is .* frames per second, expected 0\.001 to 1000"):
        DeblurOptions(three, three / "out.mkv", rate=rate)


@pytest.mark.parametrize("rate", [0.001, 23.976, 1000])
def test_pictures_are_shown_at_the_rate(rate, three, tiny_model, tmp_path):
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        deblur_video(DeblurOptions(three, tmp_path / "out.mp4", rate=rate), engine=engine)
    times = read(tmp_path / "out.mp4").times
    assert [float(time) for time in times] == pytest.approx([0, 1 / rate, 2 / rate], rel=1e-4)


def test_a_percent_sign_alone_is_a_letter(tiny_model, tmp_path):
    source = Clip(times=[0, 1000, 2000]).write(tmp_path / "50%discount.mp4")
    options = DeblurOptions(source, tmp_path / "50% off.mp4", scene_threshold=0)
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        deblur_video(options, engine=engine)
    assert names(tmp_path) == ["50% off.mp4", "50%discount.mp4"]
    assert len(read(tmp_path / "50% off.mp4").times) == 3


def test_numbered_names_with_a_percent_sign(three):
    copied(three / "%d.png", three / "out" / "100%_%03d.png")
    assert names(three / "out") == ["100%_000.png", "100%_001.png", "100%_002.png"]
    with VideoReader(three / "out" / "100%_%03d.png") as reader:
        assert len(list(reader)) == 3


def test_a_number_has_as_many_digits_as_its_place(three):
    for name in ("01.png", "x.png", "1.png.png"):
        shutil.copy(three / "1.png", three / name)
    with VideoReader(three / "%d.png") as reader:
        assert [path.name for path in reader.pictures] == ["0.png", "1.png", "2.png"]
    with VideoReader(three / "%02d.png") as reader:
        assert [path.name for path in reader.pictures] == ["01.png"]


@pytest.mark.parametrize(
    ("output", "message"), [("out/%d.jpg", "pictures are written as .png, not .jpg"), ("a/b/%d.png", "there is no folder")]
)
def test_outputs_that_cannot_be(output, message, three):
    with VideoReader(three) as reader, pytest.raises(InputError, match=message):
        PictureWriter(three / output, reader)


def test_a_folder_of_dpx_is_read_as_its_pattern_is(tmp_path):
    for number, pixels in enumerate(noise(2, "rgb48be")):
        save(tmp_path / f"s.{number + 86400:07d}.dpx", pixels, "rgb48be")
    with VideoReader(tmp_path) as reader, VideoReader(tmp_path / "s.%07d.dpx") as pattern:
        assert (reader.info.rgb_bits, len(reader.pictures)) == (16, 2)
        assert same([frame.luma for frame in reader], [frame.luma for frame in pattern])


def test_linear_light_is_refused_with_the_reason(tmp_path):
    frame = av.VideoFrame(*SIZE, "gbrpf32le")
    for plane in frame.planes:
        plane.update(np.full(SIZE[::-1], 0.5, np.float32).tobytes())
    context = av.CodecContext.create("exr", "w")
    context.width, context.height, context.pix_fmt, context.time_base = *SIZE, "gbrpf32le", Fraction(1, 25)
    (tmp_path / "1.exr").write_bytes(b"".join(bytes(packet) for packet in context.encode(frame) + context.encode(None)))
    with pytest.raises(VideoError, match=r"floats of linear light as in EXR, expected codes .*: apply a transfer curve first"):
        VideoReader(tmp_path)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (
            ["f_001", "f_002", "f_003", "f_007", "f_008", "f_010"],
            r"numbers are missing .* \(4 in all\), .*: the first where f_007.png follows f_003.png",
        ),
        (["9", "10", "11"], None),
        (["0010", "0020", "0030"], None),
        (["IMG_20260101_120000", "IMG_20260101_120001", "IMG_20260102_120009"], None),
        (["a", "b"], None),
    ],
)
def test_numbers_that_are_missing_in_a_folder_are_noted(names, note, tmp_path):
    for name in names:
        save(tmp_path / f"{name}.png", np.full((16, 16), 9, np.uint8), "gray")
    with VideoReader(tmp_path) as reader:
        assert len(list(reader)) == len(names)
        assert [bool(re.match(note or "$", line)) for line in reader.notes] == ([True] if note else [])
