"""`make_segment`: one segment of one video, decoded, deblurred and encoded into a file of its own."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from runtime import Engine
from runtime.errors import DeployError, InputError, VideoError
from runtime.files.on_disk import file_sha256
from runtime.run.frames_in_step import sharpen, take_up
from runtime.run.pipeline import overlap
from runtime.run.tiling import TiledEngine, whole_grid
from runtime.streaming import StreamDeblurrer
from runtime.video import Frame, VideoReader, VideoWriter
from runtime.video.segments import describe_source
from serving.library.frame_digest import FrameDigest
from serving.library.plan import (
    JOINED,
    PLAN,
    Entry,
    JoinRecord,
    Library,
    SegmentPlan,
    SegmentRecord,
    VideoPlan,
    load,
    load_if_there,
    part_name,
    save,
)
from serving.library.video_planner import check_source

log = logging.getLogger("videodeblur.library")
log.addHandler(logging.NullHandler())


def load_video(library: Library, entry: Entry) -> VideoPlan:
    """The plan of a video. Raises InputError when there is none."""
    return load(VideoPlan, library.folder(entry) / PLAN, "plan the library again")


def segment_path(folder: Path, number: int) -> Path:
    """Where a segment is when it is finished."""
    return folder / f"{number:06d}.nut"


def finished_segment(folder: Path, number: int) -> SegmentRecord | None:
    """The record of a segment; None unless its file is whole."""
    path = segment_path(folder, number)
    record = load_if_there(SegmentRecord, path.with_suffix(".json"))
    return record if record and path.is_file() and path.stat().st_size == record.bytes else None


def finished_output(library: Library, entry: Entry) -> JoinRecord | None:
    """The record of a video that is done; None when it is not, or the output is not what it was then."""
    record = load_if_there(JoinRecord, library.folder(entry) / JOINED)
    path = Path(library.output) / entry.output
    return record if record and path.is_file() and path.stat().st_size == record.bytes else None


def make_segment(library: Library, entry: Entry, number: int, engine: Engine) -> SegmentRecord | None:
    """Does segment `number` of a video, unless it is done; None when the whole video is.

    Decoding begins at a keyframe, and once more at the start where the frames are then not those that were planned. Raises
    InputError when the source was changed, VideoError when it does not decode here as it did when it was planned, OSError when the
    disk is full.
    """
    try:
        return None if finished_output(library, entry) else _made(library, entry, number, engine)
    except (DeployError, OSError):  # the video may have been joined meanwhile, with what another worker made of this segment
        if finished_output(library, entry):
            return None
        raise


def _made(library: Library, entry: Entry, number: int, engine: Engine) -> SegmentRecord:
    folder, plan = library.folder(entry), load_video(library, entry)
    if not 0 <= number < len(plan.segments):
        raise InputError(f"got segment {number} of {entry.file}, which has {len(plan.segments)}: count from 0")
    if done := finished_segment(folder, number):
        return done
    segment, path, started = plan.segments[number], segment_path(folder, number), time.perf_counter()
    sought = segment.key is not None and _sought(library, entry, plan, segment, path, engine)
    if not sought:
        _write(library, entry, plan, segment, path, engine, seek=False)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    seconds, size = time.perf_counter() - started, path.stat().st_size
    arithmetic = f"{engine.backend} {engine.precision}"
    record = SegmentRecord(segment.frames, size, arithmetic, platform.node(), seconds, sought, file_sha256(path))
    save(record, path.with_suffix(".json"))
    return record


def _sought(library: Library, entry: Entry, plan: VideoPlan, segment: SegmentPlan, path: Path, engine: Engine) -> bool:
    """Whether decoding from the keyframe gave the planned frames; the file is there then."""
    try:
        _write(library, entry, plan, segment, path, engine, seek=True)
    except VideoError as error:  # a keyframe that needs what is before it
        log.warning("%s: decoding from the start: %s", entry.file, error)
        return False
    return True


def _write(library: Library, entry: Entry, plan: VideoPlan, segment: SegmentPlan, path: Path, engine: Engine, seek: bool) -> None:
    options, count, digest = library.options(entry), segment.before + segment.frames, FrameDigest()
    with VideoReader(options.source) as reader:
        info, size = reader.info, engine.contract.frames
        check_source(plan, describe_source(options.source, info), library.folder(entry))
        begin = 0 if seek else segment.first - segment.before
        if seek:
            _go_to(segment, reader)
        frames = _marked(islice(reader, begin, begin + count), segment, digest)
        grid = replace(whole_grid(info.height, info.width, engine.contract), tile=(plan.tile_height, plan.tile_width))
        stream = StreamDeblurrer(
            TiledEngine(engine, grid), options.stride, info.bits, info.color_range, ahead=1, strength=options.strength
        )
        left = take_up(frames, stream, segment.before, size)
        with VideoWriter(path, reader, options.encoder, part=part_name(path), segment=True) as writer:
            overlap(left, lambda each: sharpen(each, stream), lambda pair: writer.write(*pair), size)
            if digest.text() != segment.digest:
                raise _other_frames(segment, reader, library.folder(entry))


def _go_to(segment: SegmentPlan, reader: VideoReader) -> None:
    assert segment.pts is not None
    assert segment.key is not None
    if not reader.seek(segment.first - segment.before, segment.pts, segment.key):
        raise VideoError(f"{reader.path}: there is no way to frame {segment.first - segment.before} but from the start")


def _marked(frames: Iterable[Frame], segment: SegmentPlan, digest: FrameDigest) -> Iterator[Frame]:
    for frame in frames:
        digest.add(frame)
        yield replace(frame, starts_scene=True) if frame.number in segment.scenes else frame


def _other_frames(segment: SegmentPlan, reader: VideoReader, folder: Path) -> VideoError:
    last = segment.first + segment.frames - 1
    return VideoError(
        f"{reader.path}: frames {segment.first} to {last} are not decoded here as they were when they were planned: install the"
        f" same PyAV everywhere, or delete {folder} and plan again"
    )
