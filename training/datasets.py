"""The VideoDeblurring data set (Su et al., CVPR 2017) in its official layout, and plain folders of frames.

ROOT/quantitative_datasets/<video>/{input,GT}/00000.jpg      with ground truth: 61 videos to train on, 10 to test
ROOT/qualitative_datasets/<video>/input/                     without
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from training.media import IMAGE_SUFFIXES, read_image

TEST_VIDEOS = (  # in the order of the paper's Table 4
    "IMG_0030",
    "IMG_0049",
    "IMG_0021",
    "720p_240fps_2",
    "IMG_0032",
    "IMG_0033",
    "IMG_0031",
    "IMG_0003",
    "IMG_0039",
    "IMG_0037",
)
SPLITS = ("train", "test", "all")
PAIRED, INPUT, TRUTH = "quantitative_datasets", "input", "GT"


@dataclass(frozen=True)
class FramePair:
    """A blurry frame, and its ground truth where there is one."""

    blurry: Path
    sharp: Path | None


@dataclass(frozen=True)
class PairedVideo:
    """Consecutive frames of one video."""

    name: str
    frames: tuple[FramePair, ...]


@dataclass(frozen=True)
class Dataset:
    """The videos that can be used, and why others cannot."""

    videos: tuple[PairedVideo, ...]
    skipped: tuple[str, ...]  # "name: reason"


def find_dataset(root: Path, split: str = "all") -> Dataset:
    """The paired videos of a split: "test" in the order of Table 4, "train" all others by name, "all" both.

    Raises InputError when `root` is not the folder that holds quantitative_datasets, or nothing usable is in it.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    folder = _paired_folder(root)
    present = sorted(path.name for path in folder.iterdir() if path.is_dir())
    test = [name for name in TEST_VIDEOS if name in present]
    names = {"test": test, "train": [name for name in present if name not in test], "all": present}[split]
    if not names:
        raise InputError(f"{folder} holds no video of the {split} split, only {', '.join(present) or 'nothing'}: use another split")
    videos, skipped = [], []
    for name in names:
        try:
            videos.append(_paired_video(folder / name))
        except InputError as error:
            skipped.append(f"{name}: {error}")
    if not videos:
        raise InputError(f"{folder} holds no usable video; {skipped[0]}")
    return Dataset(tuple(videos), tuple(skipped))


def video_from_folders(blurry: Path, sharp: Path) -> PairedVideo:
    """A plain folder of frames, with the ground truth of some or all of them under the same names in another."""
    truth = {path.stem: path for path in frame_files(sharp)}
    frames = tuple(FramePair(path, truth.pop(path.stem, None)) for path in frame_files(blurry))
    if truth:
        raise InputError(f"{sharp} has {', '.join(sorted(truth)[:3])}, which {blurry} lacks: give the frames the same names")
    return PairedVideo(blurry.parent.name, frames)


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names. Raises InputError when there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no picture ({' '.join(IMAGE_SUFFIXES)})")
    return files


def read_frames(files: Sequence[Path]) -> np.ndarray:
    """(T, H, W, 3) uint8 sRGB. Raises InputError for a file that cannot be decoded, or sizes that differ."""
    frames = [read_image(path) for path in files]
    for path, frame in zip(files, frames):
        if frame.shape != frames[0].shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (frame.shape, frames[0].shape)]
            raise InputError(f"{path} has {sizes[0]} pixels, {files[0].name} has {sizes[1]}: one video has one size")
    return np.stack(frames)


def _paired_folder(root: Path) -> Path:
    if root.name == PAIRED and root.is_dir():
        return root
    if (root / PAIRED).is_dir():
        return root / PAIRED
    below = sorted(root.glob(f"*/{PAIRED}")) if root.is_dir() else []
    if below:
        raise InputError(f"{root} is one level too high: name {below[0].parent}")
    if (root / INPUT).is_dir() or (root.parent / INPUT).is_dir():
        raise InputError(f"{root} is inside one video: name the folder that holds {PAIRED}")
    raise InputError(f"{root} does not hold {PAIRED}/<video>/{{{INPUT},{TRUTH}}}/00000.jpg: name the data set's folder")


def _paired_video(folder: Path) -> PairedVideo:
    if not (folder / TRUTH).is_dir():
        raise InputError(f"no ground truth, {folder / TRUTH} is missing")
    blurry, sharp = frame_files(folder / INPUT), frame_files(folder / TRUTH)
    unmatched = sorted({path.stem for path in blurry} ^ {path.stem for path in sharp})
    if unmatched:
        raise InputError(f"{len(unmatched)} frames are in only one of {INPUT} and {TRUTH}, the first is {unmatched[0]}")
    return PairedVideo(folder.name, tuple(FramePair(*pair) for pair in zip(blurry, sharp)))
