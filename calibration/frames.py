"""Clips on disk: folders of numbered pictures and video files, found under a path and read frame by frame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError
from runtime.pixels.sample_codes import to_unit
from runtime.video import VideoReader, read_luma

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
VIDEOS = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".y4m", ".ts"}
GROUND_TRUTH = {"gt", "sharp", "groundtruth", "ground_truth", "target"}  # names of folders, in lower case, without blurry frames
CACHE = b"TRT-"  # how a calibration cache begins
LONGEST = 3000  # frames of a video that are looked at, two minutes: more scenes come from more clips

Luma = npt.NDArray[np.float32]  # (H, W), BT.601 in [0, 1]


@dataclass(frozen=True)
class Clip:
    """Consecutive frames: pictures with successive numbers, or a video."""

    name: str  # path below the one asked for, with the first frame's number where a folder has gaps
    files: tuple[Path, ...]  # the pictures in order, or the video alone
    is_video: bool

    def count(self) -> int:
        """How many frames there are, at most LONGEST of a video; it is decoded for that where its container does not count them.

        Raises VideoError where a video is broken.
        """
        if not self.is_video:
            return len(self.files)
        with VideoReader(self.files[0], limit=LONGEST) as reader:
            return min(LONGEST, reader.info.frames or sum(1 for _ in reader))

    def frames(self, numbers: Sequence[int]) -> Iterator[Luma]:
        """The frames with these numbers, ascending from 0, in new memory each. A video is decoded from its start.

        Raises VideoError where a file is broken.
        """
        return _video_frames(self.files[0], numbers) if self.is_video else (read_luma(self.files[number]) for number in numbers)


def find_clips(path: Path) -> tuple[Clip, ...]:
    """The clips at a path, in order of their names: a video, a folder of pictures, or any folder above such.

    The VideoDeblurring data set is taken at any level. Folders of ground truth (GT, sharp, ...) below `path` are left out, and
    so are single pictures. Raises InputError when there is nothing.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder, expected clips: name a video or a folder of frames")
    if path.is_file():
        check_video(path)
        return (Clip(path.name, (path,), is_video=True),)
    clips = tuple(clip for folder in _folders(path) for clip in _clips_in(folder, path))
    if not clips:
        kinds = f"folders of numbered pictures ({_listed(PICTURES)}) or videos ({_listed(VIDEOS)})"
        raise InputError(f"{path} holds no clips, expected {kinds}: name the data set, a folder of frames or a video")
    return clips


def check_video(path: Path) -> None:
    """Raises InputError on files that people hand over in place of clips; another that is no video is told when it is read."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == CACHE:
        raise InputError(f"{path} is a calibration cache of TensorRT, expected clips: name a video or a folder of frames")
    if path.suffix == ".json":
        raise InputError(f"{path} is JSON, expected clips: ranges that were measured before are given with --ranges")


def _folders(path: Path) -> Iterator[Path]:
    """The folder and those below it, links followed, each once and in order of their names."""
    seen: set[Path] = set()
    for name, below, _ in os.walk(path, followlinks=True):
        folder = Path(name)
        if folder.resolve() in seen:
            below.clear()
            continue
        seen.add(folder.resolve())
        below[:] = sorted(other for other in below if other.lower() not in GROUND_TRUTH and not other.startswith("."))
        yield folder


def _clips_in(folder: Path, above: Path) -> Iterator[Clip]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    name = folder.resolve().name if folder == above else folder.relative_to(above).as_posix()
    runs = _runs([file for file in files if file.suffix.lower() in PICTURES])
    for run in runs:
        yield Clip(name if len(runs) == 1 else f"{name}/{run[0].stem}", tuple(run), is_video=False)
    for file in files:
        if file.suffix.lower() in VIDEOS:
            yield Clip(file.relative_to(above).as_posix(), (file,), is_video=True)


def _runs(pictures: list[Path]) -> list[list[Path]]:
    """Splits pictures where their numbers are not successive; single ones are no clip."""
    numbered = sorted((prefix, number, file) for file in pictures for prefix, number in [_prefix_and_number(file)])
    runs: list[list[Path]] = []
    before: tuple[str, int] | None = None
    for prefix, number, file in numbered:
        if before == (prefix, number - 1):
            runs[-1].append(file)
        else:
            runs.append([file])
        before = (prefix, number)
    return [run for run in runs if len(run) > 1]


def _prefix_and_number(file: Path) -> tuple[str, int]:
    """("frame_", 12) of frame_0012.png; a name without a number is a clip of its own."""
    found = re.fullmatch(r"(.*?)(\d+)", file.stem)
    return (f"{found[1]}{file.suffix.lower()}", int(found[2])) if found else (file.name, 0)


def _video_frames(path: Path, numbers: Sequence[int]) -> Iterator[Luma]:
    wanted = set(numbers)
    with VideoReader(path, limit=max(wanted) + 1) as reader:
        for frame in reader:
            if frame.number in wanted:
                yield to_unit(frame.luma, reader.info.bits, reader.info.color_range)


def _listed(suffixes: set[str]) -> str:
    return ", ".join(sorted(suffix[1:] for suffix in suffixes))
