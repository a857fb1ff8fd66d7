"""Where scenes start, by FFmpeg's scene score of the luma, so that no window of frames mixes two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from runtime.errors import InputError
from runtime.pixels import scene_score
from runtime.video.format import Frame, Plane, VideoInfo


def mark_scenes(frames: Iterable[Frame], info: VideoInfo, threshold: float) -> Iterator[Frame]:
    """The same frames, with `starts_scene` set where the score, see `runtime.pixels.scene_score`, is above `threshold` (0 to 1).

    The score is how much more the luma changes than one frame before, so a single frame between two cuts is not told from the
    scene after it. A threshold of 0 marks nothing. Raises InputError outside
    0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"the threshold of scene cuts is {threshold}, expected 0 (off) to 1")
    return _marked(frames, info.bits, threshold) if threshold else iter(frames)


def _marked(frames: Iterable[Frame], bits: int, threshold: float) -> Iterator[Frame]:
    before: Plane | None = None
    change_before = 0.0
    for frame in frames:
        change = 0.0 if before is None else scene_score.change(frame.luma, before, bits)
        yield replace(frame, starts_scene=True) if scene_score.score(change, change_before) > threshold else frame
        before, change_before = frame.luma, change
