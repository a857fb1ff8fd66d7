"""Windows of clips: found in the data set's layout, diverse, without duplicates, held out, and the same every time."""

import hashlib

import av
import numpy as np
import pytest
from PIL import Image

from calibration import frames as frames_module
from calibration.clips import windows
from calibration.frames import find_clips
from runtime.errors import InputError, VideoError
from runtime.video import read_luma

FRAMES = 5


def picture(seed, height=24, width=40, blocks=4):
    """Random blocks of grey."""
    small = np.random.default_rng(seed).integers(0, 256, (height // blocks, width // blocks), np.uint8)
    return np.kron(small, np.ones((blocks, blocks), np.uint8))


def write_clip(folder, pictures, name="{:05d}.png", start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(pictures, start):
        Image.fromarray(pixels).save(folder / name.format(number))
    return folder


def write_video(path, pictures):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=pictures[0].shape[1], height=pictures[0].shape[0], pix_fmt="gray")
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode(None))
    return path


def found(path, **options):
    return [(window.clip, window.first) for window in windows(path, FRAMES, **options)]


@pytest.fixture
def data_set(tmp_path):
    """The VideoDeblurring layout: two videos with ground truth, one without."""
    root = tmp_path / "VideoDeblurring"
    for number, video in enumerate(("bicycle", "car")):
        write_clip(root / "quantitative_datasets" / video / "input", [picture(100 * number + i) for i in range(20)])
        write_clip(root / "quantitative_datasets" / video / "GT", [picture(100 * number + i, blocks=2) for i in range(20)])
    write_clip(root / "qualitative_datasets" / "street" / "input", [picture(900 + i) for i in range(20)], "{:04d}.png", start=1)
    return root


def test_the_data_set_at_any_level(data_set):
    names = [clip.name for clip in find_clips(data_set)]
    quantitative = ["quantitative_datasets/bicycle/input", "quantitative_datasets/car/input"]
    assert names == ["qualitative_datasets/street/input", *quantitative]
    assert [clip.name for clip in find_clips(data_set / "quantitative_datasets")] == ["bicycle/input", "car/input"]
    assert [clip.name for clip in find_clips(data_set / "quantitative_datasets" / "car" / "input")] == ["input"]


def test_ground_truth_when_it_is_asked_for(data_set):
    assert [clip.name for clip in find_clips(data_set / "quantitative_datasets" / "car" / "GT")] == ["GT"]


def test_links_are_followed_once(data_set, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    (links / "car").symlink_to(data_set / "quantitative_datasets" / "car")
    (links / "again").symlink_to(links)
    assert [clip.name for clip in find_clips(links)] == ["car/input"]


def test_windows_are_consecutive_frames(data_set):
    for window in windows(data_set, FRAMES):
        files = sorted((data_set / window.clip).iterdir())
        expected = np.stack([read_luma(file) for file in files[window.first : window.first + FRAMES]])
        np.testing.assert_array_equal(window.luma, expected)
        assert window.luma.dtype == np.float32
        assert window.sha256 == hashlib.sha256(str(expected.shape).encode() + expected.tobytes()).hexdigest()


def test_every_clip_gives_windows_that_do_not_overlap(data_set):
    street, bicycle, car = (clip.name for clip in find_clips(data_set))
    assert found(data_set) == [(clip, first) for clip in (street, bicycle, car) for first in (0, 5)]


def test_the_limit_spreads_over_scenes(tmp_path):
    dark, bright = ([(picture(i) // 8 + base).astype(np.uint8) for i in range(40)] for base in (0, 200))
    write_clip(tmp_path / "dark", dark)
    write_clip(tmp_path / "bright", bright)
    assert {clip for clip, _ in found(tmp_path, limit=2)} == {"dark", "bright"}


def test_the_limit_spreads_over_sharpness(tmp_path):
    crisp = [picture(i, blocks=2) for i in range(1, 20)]
    soft = np.asarray(Image.fromarray(picture(1, blocks=2)).resize((4, 3)).resize((40, 24), Image.Resampling.BICUBIC))
    write_clip(tmp_path / "crisp", crisp)
    write_clip(tmp_path / "soft", [np.roll(soft, i, axis=1) for i in range(20)])
    assert {clip for clip, _ in found(tmp_path, limit=2)} == {"crisp", "soft"}


def test_windows_overlap_only_where_there_are_too_few(data_set):
    clip = data_set / "quantitative_datasets" / "car" / "input"
    assert len(found(clip, limit=2)) == 2
    assert [first for _, first in found(clip, limit=8)] == list(range(8))
    assert len(found(clip, limit=1000)) == 8  # all that the first 12 frames hold


def test_calibration_and_verification_share_no_frame(data_set):
    used = {
        part: {(w.clip, w.first + i) for w in windows(data_set, FRAMES, part, limit=100) for i in range(FRAMES)}
        for part in ("calibration", "verification")
    }
    assert not used["calibration"] & used["verification"]
    assert len(used["calibration"]) == 3 * 12
    assert len(used["verification"]) == 3 * 8


def test_a_short_clip_is_for_calibration(tmp_path):
    write_clip(tmp_path, [picture(i) for i in range(FRAMES)])
    assert len(found(tmp_path)) == 1
    with pytest.raises(InputError, match=r"no window of 5 frames for verification: the longest of its 1 clips has 5 frames"):
        windows(tmp_path, FRAMES, "verification")


def test_the_same_every_time(data_set):
    first, second = ([(str(w), w.sha256) for w in windows(data_set, FRAMES, limit=4)] for _ in range(2))
    assert first == second


def test_a_scene_at_rest_gives_one_window(tmp_path):
    write_clip(tmp_path, [picture(3)] * 40)
    assert len(found(tmp_path, limit=8)) == 1


def test_the_same_clip_twice_gives_its_windows_once(tmp_path):
    clip = [picture(i) for i in range(10)]
    write_clip(tmp_path / "a", clip)
    write_clip(tmp_path / "b", clip)
    assert {clip for clip, _ in found(tmp_path)} == {"a"}


def test_black_clips_are_windows_too(tmp_path):
    write_clip(tmp_path, [np.zeros((24, 40), np.uint8)] * 10)
    (window,) = windows(tmp_path, FRAMES)
    assert not window.luma.any()


def test_gaps_in_the_numbers_end_a_clip(tmp_path):
    write_clip(tmp_path, [picture(i) for i in range(6)], "f{:03d}.png", start=1)
    write_clip(tmp_path, [picture(i) for i in range(6, 14)], "f{:03d}.png", start=20)
    write_clip(tmp_path, [picture(99)], "cover{:03d}.png")
    assert [(clip.name, len(clip.files)) for clip in find_clips(tmp_path)] == [
        (f"{tmp_path.name}/f001", 6),
        (f"{tmp_path.name}/f020", 8),
    ]


def test_numbers_are_ordered_as_numbers(tmp_path):
    write_clip(tmp_path, [picture(i) for i in range(12)], "{}.png")
    (clip,) = find_clips(tmp_path)
    assert [file.stem for file in clip.files] == [str(number) for number in range(12)]


def test_videos(tmp_path, monkeypatch):
    pictures = [picture(i) for i in range(20)]
    write_video(tmp_path / "clip.mkv", pictures)
    (window, *rest) = windows(tmp_path / "clip.mkv", FRAMES)
    assert [(w.clip, w.first) for w in (window, *rest)] == [("clip.mkv", 0), ("clip.mkv", 5)]
    np.testing.assert_allclose(window.luma, np.stack(pictures[:FRAMES]) / 255, atol=1e-6)
    assert found(tmp_path, part="verification") == [("clip.mkv", 12)]
    monkeypatch.setattr(frames_module, "LONGEST", 10)  # of a long video the beginning is taken
    assert found(tmp_path, limit=9) == [("clip.mkv", 0), ("clip.mkv", 1)]


def test_jpeg_gives_its_own_luma(tmp_path):
    colours = np.stack([picture(seed) for seed in range(3)], axis=-1)
    Image.fromarray(colours).save(tmp_path / "00000.jpg", quality=95)
    stored = Image.open(tmp_path / "00000.jpg")
    stored.draft("YCbCr", stored.size)  # without the way through RGB and back
    expected = np.asarray(stored)[..., 0] / 255
    np.testing.assert_allclose(read_luma(tmp_path / "00000.jpg"), expected, atol=1.01 / 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16"])
def test_png_of_every_kind(mode, tmp_path):
    path = tmp_path / "00000.png"
    colours = Image.fromarray(np.stack([picture(seed) for seed in range(3)], axis=-1))
    if mode in ("L", "I;16"):
        grey = picture(0)
        Image.fromarray(grey.astype(np.uint16) * 257 if mode == "I;16" else grey).save(path)
        expected = grey / 255
    else:
        (colours.quantize(64) if mode == "P" else colours.convert(mode)).save(path)
        expected = np.asarray(Image.open(path).convert("RGB")) @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(read_luma(path), expected, atol=1e-6)


def test_a_percent_sign_in_a_name_is_no_pattern(tmp_path):
    write_clip(tmp_path, [picture(5)], "100%03d_{}.png")
    np.testing.assert_allclose(read_luma(tmp_path / "100%03d_0.png"), picture(5) / 255, atol=1e-6)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="holds no clips, expected folders of numbered pictures"):
        windows(tmp_path, FRAMES)
    with pytest.raises(InputError, match="no such file or folder"):
        windows(tmp_path / "absent", FRAMES)


def test_clips_that_are_too_short(tmp_path):
    write_clip(tmp_path, [picture(i) for i in range(4)])
    with pytest.raises(InputError, match="no window of 5 frames for calibration"):
        windows(tmp_path, FRAMES)


def test_pictures_of_several_sizes(tmp_path):
    write_clip(tmp_path, [picture(i, width=40 + 8 * (i == 2)) for i in range(5)])
    with pytest.raises(InputError, match="have sizes 40x24, 48x24, expected one"):
        list(windows(tmp_path, FRAMES))


@pytest.mark.parametrize("broken", ["cut", "empty", "text"])
def test_broken_pictures_are_named(broken, tmp_path):
    folder = write_clip(tmp_path, [picture(i) for i in range(5)], "{:05d}.jpg")
    file = folder / "00002.jpg"
    content = {"cut": file.read_bytes()[:-150], "empty": b"", "text": b"not a picture" * 20}[broken]
    file.write_bytes(content)
    with pytest.raises(VideoError, match=r"00002\.jpg: not a picture that can be decoded"):
        list(windows(tmp_path, FRAMES))


@pytest.mark.parametrize("options", [{"part": "training"}, {"limit": 0}])
def test_options_out_of_range(options, data_set):
    with pytest.raises(InputError, match="expected"):
        windows(data_set, FRAMES, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("calib.cache", "TRT-8600-EntropyCalibration2\nblurry: 3c010a14\n", "calibration cache"), ("ranges.json", "{}", "is JSON")],
)
def test_what_people_hand_over_in_place_of_clips_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name} is .*{message.removeprefix('is ')}.*, expected clips"):
        find_clips(tmp_path / name)
