"""Windows of consecutive frames for calibration and, from other parts of the same clips, for verification.

Rules: 1. Calibration takes windows from the first 60 % of every clip, verification from the rest, so that they share no frame.
2. Windows do not overlap, unless there would be fewer than asked for. 3. Of the candidates, the sharpest comes first, then always
the one most unlike those taken so far, by a sketch of its middle frame: brightness on a coarse grid, and sharpness. 4. A window
whose sketch, or whose every sample, was there before is left out. The same files give the same windows in the same order.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.frames import Clip, Luma, find_clips
from runtime.errors import InputError

PARTS = ("calibration", "verification")
CALIBRATION_PERCENT = 60  # of a clip's frames, but at least one window

GRID = (6, 8)  # cells of a sketch, rows and columns
SHARPNESS_WEIGHT = 0.1  # twice the gradients (0.3 in log10) count as much as 0.03 in brightness everywhere
LEAST_GRADIENT = 1e-4  # in luma per pixel; frames below are equally flat
NEAR = 0.002  # half a code of 8 bits: windows whose sketches differ by less are the same scene at rest

Sketch = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive frames of a clip."""

    clip: str  # name, as the path below the one asked for
    first: int  # number of its first frame in the clip, from 0
    luma: npt.NDArray[np.float32]  # (frames, H, W), BT.601 in [0, 1]
    sha256: str  # of the shape and the samples

    def __str__(self) -> str:
        return f"{self.clip}, frames {self.first} to {self.first + len(self.luma) - 1}"


def windows(path: Path, frames: int, part: str = "calibration", limit: int | None = None) -> Iterator[Window]:
    """At most `limit` windows of `frames` frames from the clips at `path`, one in memory at a time, by the rules above.

    `path` is a video, a folder of numbered pictures, or a folder above such, like the VideoDeblurring data set; see `find_clips`.
    Raises InputError when there is no window, or on pictures of several sizes in one; VideoError on files that are broken.
    """
    if part not in PARTS:
        raise InputError(f"part is {part!r}, expected one of {', '.join(PARTS)}")
    if limit is not None and limit < 1:
        raise InputError(f"the limit is {limit} windows, expected 1 or more")
    clips = find_clips(path)
    chosen = _chosen(clips, _spans(clips, frames, part, path), frames, limit)
    return _without_duplicates(window for clip, firsts in zip(clips, chosen) for window in _read(clip, firsts, frames))


def _spans(clips: tuple[Clip, ...], frames: int, part: str, path: Path) -> list[range]:
    """The first frames of all windows of every clip that lie within the part."""
    counts = [clip.count() for clip in clips]
    bounds = [max(frames, count * CALIBRATION_PERCENT // 100) for count in counts]
    if part == "calibration":
        spans = [range(min(count, bound) - frames + 1) for count, bound in zip(counts, bounds)]
    else:
        spans = [range(bound, count - frames + 1) for count, bound in zip(counts, bounds)]
    if not any(spans):
        raise InputError(
            f"{path} has no window of {frames} frames for {part}: the longest of its {len(clips)} clips has {max(counts)} frames,"
            f" {CALIBRATION_PERCENT} % are for calibration and the rest for verification: name longer clips"
        )
    return spans


def _chosen(clips: tuple[Clip, ...], spans: list[range], frames: int, limit: int | None) -> list[list[int]]:
    """The first frames of the chosen windows of every clip, ascending."""
    step = _step(spans, frames, limit or 1)
    places = [(number, first) for number, span in enumerate(spans) for first in span[::step]]
    sketches = [sketch for clip, span in zip(clips, spans) for sketch in _sketches(clip, span[::step], frames)]
    taken = sorted(places[index] for index in _farthest_first(np.stack(sketches), limit))
    return [[first for number, first in taken if number == clip] for clip in range(len(clips))]


def _step(spans: list[range], frames: int, limit: int) -> int:
    """The largest step up to a whole window that leaves `limit` candidates, or else 1."""
    return next((step for step in range(frames, 1, -1) if sum(len(span[::step]) for span in spans) >= limit), 1)


def _sketches(clip: Clip, firsts: range, frames: int) -> Iterator[Sketch]:
    if firsts:
        yield from map(_sketch, clip.frames([first + frames // 2 for first in firsts]))


def _sketch(luma: Luma) -> Sketch:
    """Euclidean distances of sketches are root mean squares of brightness, plus differences of sharpness."""
    cells = [cell.mean(dtype=np.float64) for row in np.array_split(luma, GRID[0]) for cell in np.array_split(row, GRID[1], axis=1)]
    gradient = np.hypot(*(np.sqrt(np.square(np.diff(luma, axis=axis)).mean(dtype=np.float64)) for axis in (0, 1)))
    sharpness = np.log10(max(gradient, LEAST_GRADIENT))
    return np.array([*(np.array(cells) / np.sqrt(len(cells))), SHARPNESS_WEIGHT * sharpness])


def _farthest_first(sketches: Sketch, limit: int | None) -> Iterator[int]:
    """Indices of sketches (count, values), the sharpest first, then always the one farthest from all before."""
    index = int(np.argmax(sketches[:, -1]))
    distance = np.full(len(sketches), np.inf)
    for _ in range(limit or len(sketches)):
        yield index
        distance = np.minimum(distance, np.linalg.norm(sketches - sketches[index], axis=1))
        index = int(np.argmax(distance))
        if distance[index] < NEAR:
            return


def _read(clip: Clip, firsts: list[int], frames: int) -> Iterator[Window]:
    if not firsts:
        return
    numbers = sorted({first + offset for first in firsts for offset in range(frames)})
    held: deque[Luma] = deque(maxlen=frames)
    for number, luma in zip(numbers, clip.frames(numbers)):
        held.append(luma)
        first = number - frames + 1
        if first in firsts:
            yield _window(clip, first, held)


def _window(clip: Clip, first: int, held: deque[Luma]) -> Window:
    shapes = sorted({frame.shape for frame in held})
    if len(shapes) > 1:
        sizes = ", ".join(f"{width}x{height}" for height, width in shapes)
        raise InputError(f"{clip.name}: frames {first} on have sizes {sizes}, expected one: give each clip a folder of its own")
    luma = np.stack(held)
    return Window(clip.name, first, luma, hashlib.sha256(str(luma.shape).encode() + luma.tobytes()).hexdigest())


def _without_duplicates(found: Iterator[Window]) -> Iterator[Window]:
    seen: set[str] = set()
    for window in found:
        if window.sha256 not in seen:
            seen.add(window.sha256)
            yield window
