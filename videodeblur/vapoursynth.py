"""`deblur`: the network as a filter of VapourSynth scripts; see docs/vapoursynth.md."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engine import Engine
from runtime.errors import InputError, MissingPackageError
from runtime.machine.requirements import requirement
from runtime.pixels import scene_score
from runtime.run.frames_on_demand import FramesOnDemand
from runtime.run.options import DEFAULT_SCENE_THRESHOLD, engine_named
from runtime.run.tiling import TiledEngine, chosen_grid

try:
    import vapoursynth as vs
except ImportError as missing:
    raise MissingPackageError(requirement("vapoursynth"), "the filter for VapourSynth") from missing

Plane = npt.NDArray[Any]

DEPTHS = range(8, 17)  # bits of a code
FLOAT_BITS = 32
FRAMES_KEPT = 25  # of the source: several windows, so that each frame is asked for once where frames come in order
RANGES = {"_Range": ("limited", "full"), "_ColorRange": ("full", "limited")}  # the second before VapourSynth R74

log = logging.getLogger("videodeblur.vapoursynth")
log.addHandler(logging.NullHandler())


def deblur(
    clip: vs.VideoNode,
    model: str | Path | Engine | None = None,
    strength: float = 1.0,
    stride: int | None = None,
    scene_change: float | None = None,
    tile: int | None = None,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    device: int = 0,
) -> vs.VideoNode:
    """The clip with its luma sharpened, every sample as `videodeblur run` makes it; its length, chroma and properties are kept.

    `clip` is YUV or GRAY of 8 to 16 bits, or of 32-bit float, whose luma is in [0, 1]; progressive. `model` is what `Engine` takes,
    or an engine that is open already, or the name of a shipped size; None is the default size, as `run` takes it. `strength`
    is 0 (blurry) to 1 (sharp), `stride` the frames between the starts of two windows, None = the window's length. `scene_change` is
    the score above which a scene starts, 0 = never; None takes `_SceneChangePrev` where a frame has it, and 0.3 elsewhere. `tile`
    is the side in pixels that a tile adds, 0 = the whole picture, None = what memory allows. The others are those of `Engine`.

    Codes are in the range that `_Range` or `_ColorRange` says, limited where neither does. No frame is asked for before the first
    is due. Raises InputError where the clip or an option does not fit, and what `Engine` raises; a frame that does not fit (of
    another range than the first, interlaced, float samples out of range) fails when it is asked for.
    """
    _check(clip)
    if scene_change is not None and not 0 <= scene_change <= 1:
        raise InputError(f"scene_change is {scene_change!r}, expected 0 (off) to 1, or None")
    engine = model if isinstance(model, Engine) else _opened(model, (backend, precision, threads, device), clip)
    log.info("%s", engine.reason)
    tiled = TiledEngine(engine, chosen_grid(clip.height, clip.width, engine, tile))
    source = _ClipSource(clip, scene_change)
    frames = FramesOnDemand(tiled, source, stride, strength, source.bits or None)

    def sharpened(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        sharp = f.copy()
        np.copyto(np.asarray(sharp[0]), frames.frame(n))
        return sharp

    return clip.std.ModifyFrame(clips=clip, selector=sharpened)


def _check(clip: vs.VideoNode) -> None:
    if not isinstance(clip, vs.VideoNode):
        raise InputError(f"got {type(clip).__name__}, expected a clip of video")
    if clip.format is None or clip.format.color_family == vs.UNDEFINED or not clip.width:
        raise InputError("got a clip whose format or size varies, expected one of each: convert it with core.resize, or cut it")
    kind = clip.format
    if kind.color_family not in (vs.YUV, vs.GRAY):
        to_yuv = "core.resize.Bicubic(clip, format=vs.YUV444P16, matrix_s='709')"
        raise InputError(f"got {kind.name}, expected YUV or GRAY: clip = {to_yuv}, and back afterwards")
    if kind.bits_per_sample not in (DEPTHS if kind.sample_type == vs.INTEGER else (FLOAT_BITS,)):
        raise InputError(f"got {kind.name}, expected 8 to 16 bits or 32-bit float: convert it with core.resize")


def _opened(model: str | Path | None, how: tuple[str, str, int | None, int], clip: vs.VideoNode) -> Engine:
    if isinstance(model, str) and "://" in model:
        return Engine(model, *how)
    return engine_named(None if model is None else Path(model), how, (clip.height, clip.width))


class _ClipSource:
    """The luma of a clip, its range and its scenes. Keeps the last few frames."""

    def __init__(self, clip: vs.VideoNode, scene_change: float | None) -> None:
        self.count = clip.num_frames
        self.bits = clip.format.bits_per_sample if clip.format.sample_type == vs.INTEGER else 0
        self.color_range: str | None = None  # of the first frame that was asked for
        self._clip, self._scene_change = clip, scene_change
        self._frame = lru_cache(FRAMES_KEPT)(self._checked_frame)
        self._change = lru_cache(FRAMES_KEPT)(self._change_at)

    def luma(self, number: int) -> Plane:
        return np.asarray(self._frame(number)[0])

    def starts_scene(self, number: int) -> bool:
        if self._scene_change is None:
            marked = self._frame(number).props.get("_SceneChangePrev")
            if marked is not None:
                return bool(marked)
        threshold = DEFAULT_SCENE_THRESHOLD if self._scene_change is None else self._scene_change
        return bool(threshold) and scene_score.score(self._change(number), self._change(number - 1)) > threshold

    def _change_at(self, number: int) -> float:
        return scene_score.change(self.luma(number), self.luma(number - 1), self.bits) if number else 0.0

    def _checked_frame(self, number: int) -> vs.VideoFrame:
        frame = self._clip.get_frame(number)
        if frame.props.get("_FieldBased", 0):
            raise InputError(f"frame {number} is interlaced, expected progressive video: deinterlace it, or std.SetFieldBased(0)")
        color_range = _color_range(frame) if self.bits else None
        if self.color_range not in (None, color_range):
            remedy = "convert it with core.resize, or set one _Range with std.SetFrameProps"
            raise InputError(f"frame {number} is in {color_range} range, the first was in {self.color_range}: {remedy}")
        self.color_range = color_range
        return frame


def _color_range(frame: vs.VideoFrame) -> str:
    for name, meanings in RANGES.items():
        if name in frame.props:
            return meanings[int(frame.props[name])]
    return "limited"  # as VapourSynth's own filters take it
