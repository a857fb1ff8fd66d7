"""What pictures say beside their samples is noted when it is not in the output."""

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from test_pictures import copied
from video_clips import Clip

from runtime.video import VideoReader, VideoWriter
from runtime.video.picture_facts import facts_of

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF = Image.Exif()
EXIF[271] = "a maker"
TEXT = PngInfo()
TEXT.add_text("Comment", "of the picture")
GAMMA = PngInfo()
GAMMA.add(b"gAMA", (45455).to_bytes(4, "big"))
DESCRIBED = ImageFileDirectory_v2()
DESCRIBED[270] = "of the picture"

SAVED = [
    (".png", {"dpi": (300, 300)}, {"DPI"}),
    (".png", {"pnginfo": TEXT}, {"text"}),
    (".png", {"pnginfo": GAMMA}, {"gAMA"}),
    (".png", {"exif": EXIF, "icc_profile": PROFILE}, {"EXIF", "ICC_PROFILE"}),
    (".png", {}, set()),
    (".jpg", {"dpi": (300, 300), "comment": b"of the picture"}, {"DPI", "text"}),
    (".jpg", {"exif": EXIF, "icc_profile": PROFILE}, {"EXIF", "ICC_PROFILE"}),
    (".jpg", {}, set()),
    (".tif", {"dpi": (300, 300), "icc_profile": PROFILE}, {"DPI", "ICC_PROFILE"}),
    (".tif", {"tiffinfo": DESCRIBED}, {"text"}),
    (".webp", {"exif": EXIF, "icc_profile": PROFILE}, {"EXIF", "ICC_PROFILE"}),
]


@pytest.mark.parametrize(("suffix", "said", "facts"), SAVED)
def test_what_a_picture_says_is_found(suffix, said, facts, tmp_path):
    PICTURE.save(tmp_path / f"1{suffix}", **said)
    assert facts_of(tmp_path / f"1{suffix}") == facts


@pytest.mark.parametrize(("suffix", "said", "facts"), [each for each in SAVED if each[1].keys() & {"dpi", "pnginfo"}])
def test_what_pictures_to_pictures_lose_is_noted(suffix, said, facts, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        PICTURE.save(tmp_path / "in" / f"{number}{suffix}", **said)
    (note,) = copied(tmp_path / "in", tmp_path / "out").notes
    assert note.startswith("side data is not in the output: .png as it is written here lost ")
    assert facts <= set(note.rpartition("lost ")[2].split(", "))


@pytest.mark.parametrize(("suffix", "said", "facts"), [each for each in SAVED if each[0] == ".png"])
def test_what_pictures_to_a_video_lose_is_noted(suffix, said, facts, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        PICTURE.save(tmp_path / "in" / f"{number}{suffix}", **said)
    with VideoReader(tmp_path / "in") as reader, VideoWriter(tmp_path / "out.mkv", reader) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
        writer.finish()
        notes = writer.notes
    lost = [note.rpartition("lost ")[2].split(", ") for note in notes if note.startswith("side data is not in the output: ")]
    assert facts == set(*lost)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_half_a_picture_says_what_is_in_that_half(suffix, tmp_path):
    PICTURE.save(tmp_path / f"1{suffix}", exif=EXIF)
    whole = (tmp_path / f"1{suffix}").read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 50)):
        (tmp_path / "cut").write_bytes(whole[:size])
        assert facts_of(tmp_path / "cut") <= facts_of(tmp_path / f"1{suffix}")


def test_a_video_without_side_data_has_no_note(tmp_path):
    assert copied(Clip().write(tmp_path / "in.mkv"), tmp_path / "out").notes == []


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_inks_that_become_rgb_are_noted_and_no_container_is_blamed(suffix, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    PICTURE.convert("CMYK").save(folder / f"1{suffix}")
    assert facts_of(folder / f"1{suffix}") == {"CMYK"}
    with VideoReader(folder) as reader:
        assert reader.notes == []
    (note,) = copied(folder, tmp_path / "out").notes
    assert note.startswith("side data is not in the output: .png as it is written here lost CMYK")  # FFmpeg has more of a TIFF
