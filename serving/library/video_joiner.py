"""`join_video`: a video's finished segments into its output, without encoding anything again."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.errors import DeployError, InputError, VideoError
from runtime.files.on_disk import file_sha256
from runtime.video import VideoReader, VideoWriter
from runtime.video.segments import Segment, describe_source, join
from serving.library.plan import JOINED, PLAN, Entry, JoinRecord, Library, SegmentRecord, VideoPlan, save
from serving.library.segment_maker import finished_output, finished_segment, load_video, segment_path
from serving.library.video_planner import check_source

MISSING_NAMED = 8  # segments that an error lists


def join_video(library: Library, entry: Entry) -> JoinRecord:
    """Joins all segments, copies all the rest of the source, and deletes the segments; nothing is done when that was done.

    Raises InputError when a segment is missing or was computed with another arithmetic, or the source was changed; VideoError
    when the segments were not encoded alike, or a frame is missing; OSError when the disk is full.
    """
    try:
        return finished_output(library, entry) or _joined(library, entry)
    except (DeployError, OSError):  # another process may have joined them meanwhile, and deleted all that this one was reading
        if done := finished_output(library, entry):
            return done
        raise


def missing_segments(library: Library, entry: Entry, plan: VideoPlan) -> list[int]:
    """Numbers of those that are to be done."""
    folder = library.folder(entry)
    return [number for number in range(len(plan.segments)) if finished_segment(folder, number) is None]


def _joined(library: Library, entry: Entry) -> JoinRecord:
    folder, plan, options = library.folder(entry), load_video(library, entry), library.options(entry)
    records = _records(library, entry, plan)
    parts = [
        (segment_path(folder, number), Segment(segment_path(folder, number).name, each.frames, record.bytes, each.last_duration))
        for number, (each, record) in enumerate(zip(plan.segments, records))
    ]
    with VideoReader(options.source) as reader:
        check_source(plan, describe_source(options.source, reader.info), folder)
        with VideoWriter(options.output, reader, options.encoder, coded=True) as joined:
            join(parts, reader, joined)
            if joined.frames != plan.frames:
                raise VideoError(f"{joined.frames} frames were joined of {plan.frames}: delete {folder}, and begin again")
        notes = (*plan.notes, *joined.notes)
    with options.output.open("rb") as file:
        os.fsync(file.fileno())
    record = JoinRecord(plan.frames, options.output.stat().st_size, notes)
    save(record, folder / JOINED)
    _delete_segments(folder)
    return record


def _records(library: Library, entry: Entry, plan: VideoPlan) -> list[SegmentRecord]:
    folder = library.folder(entry)
    found = [_checked(folder, number) for number in range(len(plan.segments))]
    records = [record for record in found if record]
    if len(records) < len(found):
        missing = [str(number) for number, record in enumerate(found) if record is None]
        listed = ", ".join(missing[:MISSING_NAMED]) + (
            f" and {len(missing) - MISSING_NAMED} more" if missing[MISSING_NAMED:] else ""
        )
        raise InputError(f"segments {listed} of {len(found)} are not finished: do them with run-segment first")
    other = sorted({record.arithmetic for record in records} - {library.settings.arithmetic})
    if other:
        raise InputError(f"some segments are {', '.join(other)}, not {library.settings.arithmetic}: delete {folder}")
    return records


def _checked(folder: Path, number: int) -> SegmentRecord | None:
    """The record of a segment whose file is what was written; otherwise it is done again, since its record goes."""
    record, path = finished_segment(folder, number), segment_path(folder, number)
    if record and record.sha256 and file_sha256(path) != record.sha256:
        path.with_suffix(".json").unlink(missing_ok=True)
        return None
    return record


def _delete_segments(folder: Path) -> None:
    """What killed processes left behind too."""
    for path in folder.iterdir():
        if path.name not in (PLAN, JOINED):
            path.unlink(missing_ok=True)
