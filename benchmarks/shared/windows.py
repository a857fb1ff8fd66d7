"""Windows of a blurry clip with the same of its sharp one, at any size: what every benchmark runs and judges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.bundle import mirrored
from runtime.errors import InputError
from runtime.pixels.sample_codes import to_unit
from runtime.video import VideoReader

CLIPS = Path(__file__).resolve().parents[2] / "export" / "clips"
BLURRY, SHARP = CLIPS / "kodak_blurry.mp4", CLIPS / "kodak_sharp.mp4"
VIDEO = CLIPS / "bunny.mp4"

Windows = npt.NDArray[np.float32]  # (n, N, F, H, W), luma in [0, 1]


@dataclass(frozen=True)
class Material:
    """What is run, and what should come out."""

    blurry: Windows
    sharp: Windows | None  # None: the truth is not known


def read_material(blurry: Path, sharp: Path | None, count: int, shape: tuple[int, int, int, int]) -> Material:
    """`count` batches of windows from the clip's start, (N, F, H, W) each, the picture continued to the size by mirroring.

    A clip that is too short for all is begun again. Raises InputError when it has not even one window, or the two differ.
    """
    made = [_read(path, count, shape) for path in (blurry, sharp) if path]
    if len({len(each) for each in made}) > 1:
        raise InputError(f"{sharp} is shorter than {blurry}, expected as many frames: name the truth of this clip")
    return Material(made[0], made[1] if sharp else None)


def _read(path: Path, count: int, shape: tuple[int, int, int, int]) -> Windows:
    batch, frames, height, width = shape
    found = [window[0] for window in islice(windows(path, frames, (height, width)), count * batch)]
    if not found:
        raise InputError(f"{path} has fewer than {frames} frames, expected a window at least")
    return np.stack([np.stack([found[(at * batch + i) % len(found)] for i in range(batch)]) for at in range(count)])


def windows(clip: Path, frames: int, size: Sequence[int]) -> Iterator[np.ndarray]:
    """(1, frames, H, W) luma in [0, 1], one after the other, continued to the size by mirroring."""
    with VideoReader(clip) as reader:
        bits, color_range = reader.info.bits, reader.info.color_range
        codes: list[np.ndarray] = []
        for frame in reader:
            codes.append(frame.luma)
            if len(codes) == frames:
                yield to_unit(mirrored(np.stack(codes), *size), bits, color_range)[None]
                codes = []
