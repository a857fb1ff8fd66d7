"""Compares NVEncC's graph of RGB with the luma path around the float graph, on windows of a real clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.compare.parity import LONGEST, ParityError, fit
from runtime.backends.onnxruntime_runner import OnnxRuntimeRunner
from runtime.engine import Engine
from runtime.errors import InputError

PEAK = 255  # of the codes that are compared, NVEncC's 8 bits
MOST_OFF = 1  # code: what rounding may do

Samples = npt.NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """How far 8-bit RGB made by the one lies from that made by the other."""

    windows: tuple[int, ...]  # shape of what was compared, (N, F, 3, H, W)
    samples: int  # of the middle frames
    differing: int
    most: int  # codes


def rgb_windows(clip: Path, frames: int, count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """(count, frames, 3, height, width): windows spread over a clip, from the middle of the picture, as `parity.clip_windows`."""
    from runtime.video import VideoReader  # here, so that comparing needs no PyAV

    with VideoReader(clip, LONGEST) as reader:
        pictures = [fit(frame.decoded.to_ndarray(format="rgb24").transpose(2, 0, 1), (height, width)) for frame in reader]
    if len(pictures) < frames:
        raise InputError(f"{clip} has {len(pictures)} frames, expected at least {frames}: verify on a longer one")
    starts = np.linspace(0, len(pictures) - frames, count).astype(int)
    return np.stack([pictures[start : start + frames] for start in starts])


def by_the_luma_path(model: Path, window: npt.NDArray[np.uint8], weights: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """(F, 3, H, W) -> the middle frame (3, H, W), its luma sharpened by a float model on ONNX Runtime, its colour kept."""
    rgb = window.astype(np.float32) / PEAK
    luma = np.einsum("fchw,c->fhw", rgb, np.array(weights, np.float32))
    with Engine(model, "onnxruntime", "fp32") as engine:
        sharp = engine.run(luma[None])[0]
    middle = len(window) // 2
    return _codes(rgb[middle] + (sharp[middle] - luma[middle]))


def compare_centre_frame(
    graph: Path, model: Path, windows: npt.NDArray[np.uint8], weights: tuple[float, float, float]
) -> Agreement:
    """Raises ParityError where the graph is more than one code away from the luma path around the model it was made of."""
    runner = OnnxRuntimeRunner(graph, "fp32")
    try:
        found = np.stack([_codes(runner.run(_planes(window))[0]) for window in windows])
    finally:
        runner.close()
    off = np.abs(found.astype(int) - np.stack([by_the_luma_path(model, window, weights) for window in windows]))
    if off.max() > MOST_OFF:
        raise ParityError(f"the graph of RGB is up to {off.max()} codes of 8 bits off the luma path, expected at most {MOST_OFF}")
    return Agreement(windows.shape, off.size, int(np.count_nonzero(off)), int(off.max()))


def _planes(window: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return (window.astype(np.float32) / PEAK).reshape(1, -1, *window.shape[-2:])


def _codes(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(unit * PEAK), 0, PEAK).astype(np.uint8)
