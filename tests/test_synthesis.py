import io
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from runtime.errors import InputError
from runtime.pixels.metrics import psnr
from training import preview, synthesize
from training.datasets import find_dataset
from training.jpeg import jpeg_luma
from training.media import luma, write_video
from training.synthesis import REACH, BlurOptions, CameraPath, camera_path
from training.synthesis import synthesize as make_samples
from training.textures import Textures, load_textures

CAMERA_ONLY = BlurOptions(32, 48, layers=(1.0,), noise=0.0, jpeg=None)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_picture(height, width, channels=1, seed=0):
    coarse = torch.rand(1, channels, height // 6, width // 6, generator=generator(seed))
    return (torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1) * 255).byte()


@pytest.fixture(scope="module")
def textures():
    return Textures((smooth_picture(220, 260), smooth_picture(100, 300, seed=1)))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(smooth_picture(120, 160, 3).permute(1, 2, 0).numpy()).save(path)
    return path


def test_samples_are_a_function_of_the_seed(textures):
    first, again, other = (make_samples(textures, BlurOptions(32, 48), 3, seed) for seed in (1, 1, 2))
    assert first.blurry.shape == first.sharp.shape == (3, 5, 32, 48)
    assert torch.equal(first.blurry, again.blurry)
    assert torch.equal(first.sharp, again.sharp)
    assert not torch.equal(first.sharp, other.sharp)
    for frames in (first.blurry, first.sharp):
        assert frames.min() >= 0
        assert frames.max() <= 1
        assert torch.allclose(frames * 255, (frames * 255).round(), atol=1e-4)


def test_without_motion_the_sharp_frame_is_the_picture_and_blurry_is_sharp():
    picture = smooth_picture(32 + 2 * REACH, 48 + 2 * REACH)
    still = replace(CAMERA_ONLY, speed=0.0, rotation=0.0, zoom=0.0)
    made = make_samples(Textures((picture,), mirrored=False), still, 1, 0)
    expected = picture[0, REACH : REACH + 32, REACH : REACH + 48]
    assert ((made.sharp[0] * 255).round() - expected).abs().max() <= 2  # bicubic enlargement, then sampling between its pixels
    assert (made.blurry - made.sharp).abs().max() <= 1.01 / 255


def test_more_speed_makes_more_blur(textures):
    means = [
        float((made.blurry - made.sharp).square().mean())
        for made in (make_samples(textures, replace(CAMERA_ONLY, speed=speed), 16, 0) for speed in (1.0, 4.0, 16.0))
    ]
    assert means[0] < means[1] < means[2]


def test_constant_velocity_moves_by_whole_frames():
    path = CameraPath(torch.tensor([3.0, -1.0, 0.0, 0.0]).expand(1, 11, 4))
    times = torch.tensor([-2.0, -0.25, 0.0, 1.0, 2.25])
    assert torch.allclose(path.at(times)[0, :, :2], times[:, None] * torch.tensor([3.0, -1.0]), atol=1e-5)


def test_paths_pause_during_still_frames():
    always = camera_path(50, replace(CAMERA_ONLY, still=1.0, speed_spread=0.0), generator())
    never = camera_path(50, replace(CAMERA_ONLY, still=0.0, speed_spread=0.0), generator())
    assert always.velocity.abs().mean() < 0.1 * never.velocity.abs().mean()


def test_foregrounds_move_on_their_own(textures):
    camera = make_samples(textures, CAMERA_ONLY, 6, 3)
    layered = make_samples(textures, replace(CAMERA_ONLY, layers=(0.0, 0.0, 1.0)), 6, 3)
    assert not torch.equal(camera.sharp, layered.sharp)


@pytest.mark.parametrize(
    "changes", [{"height": 30}, {"frames": 0}, {"exposure": 1.5}, {"speed": -1.0}, {"layers": (0.5, 0.2)}, {"still": 2.0}]
)
def test_options_are_checked(changes):
    with pytest.raises(ValueError):
        replace(CAMERA_ONLY, **changes)


@pytest.mark.parametrize("quality", [50, 85, 95])
def test_jpeg_loses_what_libjpeg_loses(quality):
    image = smooth_picture(64, 80)[0].numpy()
    image = np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        expected = np.asarray(decoded)
    planes = torch.from_numpy(image).float().view(1, 1, 64, 80) / 255
    found = (jpeg_luma(planes, torch.tensor([quality]))[0, 0] * 255).round().byte().numpy()
    assert psnr(found, expected, 255) > psnr(image, expected, 255) + 5
    assert (
        np.abs(found.astype(int) - expected) <= 2
    ).mean() > 0.97  # libjpeg transforms in integers, so a few coefficients round apart
    shifted = jpeg_luma(planes, torch.tensor([quality]), (3, 5))
    assert shifted.shape == planes.shape
    assert psnr(shifted.numpy(), planes.numpy(), 1.0) > 25


def test_textures_come_from_pictures_folders_and_videos(tmp_path, photo):
    frames = [np.full((48, 64, 3), 4 * i, np.uint8) for i in range(40)]
    write_video(tmp_path / "clip.mp4", frames, rate=25, crf=10)
    found = load_textures([tmp_path], torch.device("cpu"), scales=(1.0,))
    assert [tuple(picture.shape) for picture in found.pictures] == [(1, 48, 64), (1, 48, 64), (1, 120, 160)]
    assert abs(float(found.pictures[1].float().mean()) - 120) < 3
    assert len(load_textures([photo], torch.device("cpu")).pictures) == 2
    assert found.draw(3, (200, 100), generator()).shape == (3, 1, 200, 100)  # larger than the picture: reflected


def test_bad_sources_are_named(tmp_path):
    cpu = torch.device("cpu")
    with pytest.raises(InputError, match="no such picture"):
        load_textures([tmp_path / "nowhere"], cpu)
    with pytest.raises(InputError, match="holds no picture"):
        load_textures([tmp_path], cpu)
    with pytest.raises(InputError, match="no sharp pictures"):
        load_textures([], cpu)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing more")
    with pytest.raises(InputError, match=r"broken.jpg cannot be decoded"):
        load_textures([tmp_path], cpu)
    (tmp_path / "broken.jpg").unlink()
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken.mp4: not a video"):
        load_textures([tmp_path], cpu)


def test_videos_of_a_clip_are_limited_range_bt601(tmp_path, photo, capsys):
    arguments = ["--pictures", str(photo), "--out", str(tmp_path), "--name", "demo", "--frames", "4", "--size", "64x48"]
    assert synthesize.main([*arguments, "--speed", "4"]) == 0
    assert "photo: input" in capsys.readouterr().out
    for kind in ("blurry", "sharp"):
        with av.open(str(tmp_path / f"demo_{kind}.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height, stream.frames) == (64, 48, 4)
            context = stream.codec_context
            assert (context.pix_fmt, context.color_range, context.colorspace) == ("yuv420p", 1, 6)


def test_a_tree_of_clips_is_a_data_set(tmp_path, photo):
    arguments = ["--pictures", str(photo), "--out", str(tmp_path / "tree"), "--format", "tree", "--frames", "6", "--size", "64x48"]
    assert synthesize.main(arguments) == 0
    video = find_dataset(tmp_path / "tree").videos[0]
    assert (video.name, len(video.frames), video.frames[5].blurry.name) == ("photo", 6, "00005.png")
    assert synthesize.main([*arguments, "--jpeg", "90", "--out", str(tmp_path / "jpeg")]) == 0
    assert find_dataset(tmp_path / "jpeg").videos[0].frames[0].sharp.suffix == ".jpg"


def test_a_clip_larger_than_its_picture_is_refused(tmp_path, photo, capsys):
    assert synthesize.main(["--pictures", str(photo), "--out", str(tmp_path), "--size", "320x240"]) == 1
    assert "160x120 pixels, too few" in capsys.readouterr().err


def test_preview_shows_the_law_beside_real_pairs(tmp_path, photo, capsys):
    for kind, change in (("blur", 10), ("sharp", 0)):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.asarray(Image.open(photo)) // 2 + change).save(tmp_path / kind / "1.png")
    sheet = tmp_path / "sheet.png"
    arguments = ["--textures", str(photo), "--samples", "8", "--crop", "32", "--sheet", str(sheet)]
    assert preview.main([*arguments, "--blurry", str(tmp_path / "blur"), "--sharp", str(tmp_path / "sharp")]) == 0
    shown = capsys.readouterr().out
    assert "dB, frames" in shown
    assert "real 1.png: 28.1 dB" in shown
    with Image.open(sheet) as shown:
        assert shown.size == (6 * 32, 8 * 32)


def test_luma_is_bt601():
    assert luma(np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)) == pytest.approx(np.array([76.245, 149.685, 29.07]))
