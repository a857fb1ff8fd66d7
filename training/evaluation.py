"""Measures a network on paired videos: windows, protocols, and a score for every video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.streaming import StreamDeblurrer
from training.datasets import PairedVideo, read_frames
from training.media import luma, read_image
from training.protocols import FrameScore, chosen_frames, mean_score, score_frame

WINDOWS = ("five-by-five", "overlapping")

Run = Callable[[np.ndarray], np.ndarray]  # (1, frames, H, W) float32 luma in [0, 1] -> the same shape


@dataclass(frozen=True)
class VideoScore:
    """The mean over a video's frames that the protocol looks at, before and after."""

    name: str
    frames: int
    input: FrameScore
    outputs: dict[str, FrameScore]  # by the name of the windows
    frame_psnr: dict[str, tuple[float, ...]]  # dB, RGB, by the frame's file: of the input, then of each output


def score_videos(
    videos: Sequence[PairedVideo], run: Run, frames: int, protocol: str, windows: Sequence[str] = WINDOWS
) -> Iterator[VideoScore]:
    """One score a video, as soon as it is known. `frames` is the length of the window that `run` takes."""
    for video in videos:
        yield score_video(video, run, frames, protocol, windows)


def score_video(video: PairedVideo, run: Run, frames: int, protocol: str, windows: Sequence[str] = WINDOWS) -> VideoScore:
    """Raises InputError when a frame cannot be read, sizes differ, or the protocol finds no frame with ground truth."""
    chosen = [i for i in chosen_frames(protocol, len(video.frames)) if video.frames[i].sharp]
    if not chosen:
        raise InputError(f"{video.name} has no frame with ground truth among its {len(video.frames)} that {protocol} looks at")
    blurry = read_frames([pair.blurry for pair in video.frames])
    truth = {i: _truth(video, i, blurry.shape[1:]) for i in chosen}
    scores = {"input": [score_frame(protocol, blurry[i], truth[i]) for i in chosen]}
    for name in windows:
        sharp = deblur_frames(blurry, run, frames, stride=frames if name == "five-by-five" else 1)
        scores[name] = [score_frame(protocol, sharp[i], truth[i]) for i in chosen]
    files = [video.frames[i].blurry.name for i in chosen]
    frame_psnr = {file: tuple(score.psnr for score in each) for file, each in zip(files, zip(*scores.values()))}
    means = {name: mean_score(each) for name, each in scores.items()}
    return VideoScore(video.name, len(chosen), means.pop("input"), means, frame_psnr)


def deblur_frames(blurry: np.ndarray, run: Run, frames: int, stride: int) -> np.ndarray:
    """(T, H, W, 3) uint8 sRGB -> the same, with sharp luma and the chroma of the input.

    Windows start every `stride` frames; below `frames` they overlap, and a frame is the mean of its estimates.
    """
    before = [luma(frame) / np.float32(255) for frame in blurry]
    stream = StreamDeblurrer(_Windows(run, frames), stride)
    after = [sharp for frame in before for sharp in stream.push(frame)] + stream.flush()
    return np.stack([_with_luma(rgb, old, new) for rgb, old, new in zip(blurry, before, after)])


def mean_of_videos(scores: Sequence[VideoScore]) -> VideoScore:
    """The mean over videos, each counting the same."""
    outputs = {name: mean_score([score.outputs[name] for score in scores]) for name in scores[0].outputs}
    return VideoScore("average", sum(score.frames for score in scores), mean_score([score.input for score in scores]), outputs, {})


class _Windows:
    """What StreamDeblurrer asks of an engine, around a function."""

    def __init__(self, run: Run, frames: int) -> None:
        self.contract = SimpleNamespace(frames=frames)
        self._run = run

    def run(self, window: np.ndarray, *_: Any) -> np.ndarray:
        return self._run(window)


def _with_luma(rgb: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    moved = rgb + (new - old)[..., None] * np.float32(255)  # at constant Cb and Cr, R, G and B move by what Y moves
    return np.rint(moved).clip(0, 255).astype(np.uint8)


def _truth(video: PairedVideo, index: int, shape: tuple[int, ...]) -> np.ndarray:
    path = video.frames[index].sharp
    frame = read_image(path)
    if frame.shape != shape:
        sizes = [f"{size[1]}x{size[0]}" for size in (frame.shape, shape)]
        raise InputError(f"{path} has {sizes[0]} pixels, its blurry frame {sizes[1]}: they must be of one size")
    return frame
