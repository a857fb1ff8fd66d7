"""`plan_video`: a video's segments, such that each is deblurred for itself and all together are the single run's frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from runtime import Engine
from runtime.errors import InputError
from runtime.files.contract import Contract
from runtime.files.differences import differences
from runtime.run.frames_in_step import Plane, sharpen
from runtime.run.tiling import grid_for
from runtime.streaming import StreamDeblurrer
from runtime.video import Frame, VideoReader, VideoWriter
from runtime.video.scene_cuts import mark_scenes
from runtime.video.segments import describe_source
from serving.library.frame_digest import FrameDigest, facts_of
from serving.library.plan import JOINED, PLAN, Entry, Library, SegmentPlan, VideoPlan, load_if_there, save

FrameProgress = Callable[[int], None]  # frames looked at


def plan_video(library: Library, entry: Entry, engine: Engine, progress: FrameProgress | None = None) -> VideoPlan:
    """Decodes the video once, without the network; nothing is done when it is planned already.

    The plan is in the video's folder afterwards. Raises InputError when the source was changed since, or its output is there and
    is not ours; the VideoErrors of a source that cannot be read, and of an output that cannot be written.
    """
    folder, options = library.folder(entry), library.options(entry)
    known = load_if_there(VideoPlan, folder / PLAN)
    if known is None and options.output.exists():
        raise InputError(f"{options.output} exists already: delete it, or choose another output folder")
    with VideoReader(options.source) as reader:
        source = describe_source(options.source, reader.info)
        if known is not None:
            return _checked(known, library, source, folder)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        VideoWriter(options.output, reader, options.encoder).close()  # refused now, not at the join
        grid = grid_for(options, reader.info, engine)
        frames = mark_scenes(reader, reader.info, options.scene_threshold)
        segments = tuple(cut(frames, engine.contract, options.stride, library.settings.segment, progress))
        plan = VideoPlan(
            file=entry.file,
            fingerprint=library.fingerprint,
            source=source,
            frames=reader.frames,
            tile_height=grid.tile[0],
            tile_width=grid.tile[1],
            segments=segments,
            notes=tuple(reader.notes),
        )
    save(plan, folder / PLAN)
    return plan


def cut(
    frames: Iterable[Frame], contract: Contract, stride: int | None, segment: int, progress: FrameProgress | None = None
) -> Iterator[SegmentPlan]:
    """The segments that a resumable run has, found by the code that cuts them there, with the network left out."""
    stream = _CornersOnly(_Unchanged(contract), stride)
    overlapping = (stride or contract.frames) < contract.frames
    before: deque[_Seen] = deque(maxlen=contract.frames)
    part: list[_Seen] = []
    lead: list[_Seen] = []
    key: int | None = None
    for frame, _ in sharpen(frames, stream, segment):
        if frame.starts_segment:
            yield _segment(lead, part)
            part = []
        if not part:
            lead = [] if frame.starts_scene or overlapping else list(before)
        if frame.decoded.key_frame:
            key = frame.decoded.pts
        seen = _Seen(frame.number, frame.decoded.pts, key, frame.duration, frame.starts_scene, facts_of(frame))
        part.append(seen)
        before.append(seen)
        if progress:
            progress(frame.number + 1)
    yield _segment(lead, part)


@dataclass(frozen=True)
class _Seen:
    """What is kept of a frame."""

    number: int
    pts: int | None
    key: int | None  # pts of the last keyframe up to it
    duration: int
    starts_scene: bool
    facts: bytes


def _segment(lead: list[_Seen], part: list[_Seen]) -> SegmentPlan:
    begin = (lead or part)[0]
    sought = begin.number > 0 and begin.key is not None
    return SegmentPlan(
        first=part[0].number,
        frames=len(part),
        before=len(lead),
        pts=begin.pts if sought else None,
        key=begin.key if sought else None,
        scenes=tuple(seen.number for seen in part if seen.starts_scene),
        last_duration=part[-1].duration,
        digest=FrameDigest(seen.facts for seen in (*lead, *part)).text(),
    )


class _CornersOnly(StreamDeblurrer):
    """Sees one sample of each frame: where windows lie does not depend on more."""

    def push(self, frame: Plane) -> list[Plane]:
        return super().push(frame[:1, :1])


class _Unchanged:
    """In the network's place."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def run(self, window: Plane, bits: int | None = None, color_range: str | None = None) -> Plane:
        return window

    def submit(self, window: Plane, bits: int | None = None, color_range: str | None = None) -> Future[Plane]:
        done: Future[Plane] = Future()
        done.set_result(window)
        return done


def _checked(plan: VideoPlan, library: Library, source: dict[str, object], folder: Path) -> VideoPlan:
    if plan.fingerprint != library.fingerprint:
        raise InputError(f"{folder} was planned with other settings: delete it to begin again")
    check_source(plan, source, folder)
    return plan


def check_source(plan: VideoPlan, source: dict[str, object], folder: Path) -> None:
    """Raises InputError when the source is not what was planned."""
    other = differences(plan.source, source)
    if other:
        what = f"delete {folder} and the output to begin again" if (folder / JOINED).exists() else f"delete {folder} to begin again"
        raise InputError(f"{plan.file} was changed after it was planned ({'; '.join(other)}): {what}")
