"""A PNG of frames before, after, and as they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from runtime import Engine, StreamDeblurrer
from runtime.pixels.metrics import psnr
from runtime.pixels.rgb import LUMA
from runtime.pixels.sample_codes import to_unit
from runtime.video import VideoReader

matplotlib.use("agg")

ROWS = 3
DPI = 100
TITLES = ("blurry", "deblurred", "truth")

Picture = npt.NDArray[np.float32]  # (H, W, 3) in [0, 1]


def save_sheet(path: Path, blurry: Path, sharp: Path, model: Path) -> None:
    """Writes `ROWS` frames, spread over the clip, with their luma PSNR."""
    with VideoReader(blurry) as reader, VideoReader(sharp) as truth, Engine(model) as engine:
        info = reader.info
        frames, wanted = [_copied(frame) for frame in reader], [_copied(frame) for frame in truth]
        stream = StreamDeblurrer(engine, bits=info.bits, color_range=info.color_range)
        deblurred = [out for luma, _ in frames for out in stream.push(luma)] + stream.flush()

    def unit(plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return to_unit(plane, info.bits, info.color_range)

    numbers = [(2 * row + 1) * len(frames) // (2 * ROWS) for row in range(ROWS)]
    height, width = frames[0][0].shape
    figure = Figure(figsize=(3 * width / DPI, ROWS * (height + 24) / DPI), dpi=DPI, layout="constrained")
    for axes, (number, column) in zip(figure.subplots(ROWS, 3).flat, [(n, c) for n in numbers for c in range(3)]):
        luma = (frames[number][0], deblurred[number], wanted[number][0])[column]
        chroma = wanted[number][1] if column == 2 else frames[number][1]
        quality = "" if column == 2 else f", {psnr(unit(luma), unit(wanted[number][0]), 1.0):.2f} dB"
        axes.imshow(to_rgb(unit(luma), chroma, info.bits), interpolation="none")
        axes.set_title(f"frame {number}: {TITLES[column]}{quality}", fontsize=9)
        axes.set_axis_off()
    figure.savefig(path)


def to_rgb(luma: npt.NDArray[np.float32], chroma: tuple[npt.NDArray[Any], ...], bits: int) -> Picture:
    """Luma in [0, 1] and limited-range Cb, Cr codes, nearest-neighbour upsampled -> RGB, by ITU-R BT.601."""
    if not chroma:
        return np.repeat(np.clip(luma, 0, 1)[..., None], 3, axis=2)
    rows, columns = (np.arange(size) * sub // size for size, sub in zip(luma.shape, chroma[0].shape))
    blue, red = ((plane[rows][:, columns].astype(np.float32) / 2 ** (bits - 8) - 128) / 224 for plane in chroma)
    of_red, of_green, of_blue = LUMA
    green = luma - (of_red * 1.402 * red + of_blue * 1.772 * blue) / of_green
    return np.clip(np.stack([luma + 1.402 * red, green, luma + 1.772 * blue], axis=2), 0, 1)


def _copied(frame: Any) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...]]:
    return frame.luma.copy(), tuple(plane.copy() for plane in frame.chroma)
