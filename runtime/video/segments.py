"""`ResumableWriter`: a long run in segments that outlive the process, and their join.

Beside OUTPUT lies the folder OUTPUT.resume while the run lasts: finished segments, which are NUT files of the picture alone with
absolute times, and journal.jsonl, whose first line says what the run is and whose others name a finished segment each, with the
SHA-256 of its file. A line is written when its file is whole and on the disk, so whatever is in the journal is done, and
everything else is done again. What only concerns the join (container, streams that are copied, tags) may be another each time.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import av

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.files.differences import differences
from runtime.files.on_disk import file_sha256
from runtime.files.records import parse_object, read_record
from runtime.video.format import Frame, Plane, VideoInfo
from runtime.video.muxer import TAG, explained, segment_shift
from runtime.video.output_writer import OutputWriter
from runtime.video.reader import VideoReader
from runtime.video.writer import VideoWriter

log = logging.getLogger("videodeblur.run")
log.addHandler(logging.NullHandler())

JOURNAL = "journal.jsonl"
TILE = "tile_size"  # in its first line: height and width in pixels


@dataclass(frozen=True)
class Segment:
    """A line of the journal."""

    file: str  # in the same folder
    frames: int
    bytes: int  # of the file
    last_duration: int  # of its last frame, in the time base of the source
    sha256: str = ""  # of the file; none in journals of earlier versions, which its size must do for


class ResumableWriter(OutputWriter):
    """A `VideoWriter` whose work is not lost when the process is killed; a context manager.

    `begin` says how many frames are done already; those after them are to be written. A new segment begins with a frame that says
    so (`Frame.starts_segment`). `finish` joins the segments into the output and deletes the folder; leaving the `with` block by an
    exception keeps it, if there is a segment in it.
    """

    def __init__(self, path: Path, reader: VideoReader, encoder: EncoderOptions | None = None, width: int | None = None) -> None:
        self.path, self.frames = path, 0  # frames written so far, earlier processes' included
        self.notes: list[str] = []
        self._reader, self._encoder, self._width = reader, encoder, width
        self._folder = path.absolute().with_name(f"{path.name}.resume")
        self._segments: list[Segment] = []
        self._current: VideoWriter | None = None
        self._journal: TextIO | None = None
        self._last_duration = 0
        trial = VideoWriter(path, reader, encoder, width, coded=True)  # what it refuses is refused now, not at the join
        self._extradata, self._encoder, self._replaces = trial.extradata, trial.encoder, trial.replaces
        trial.close()
        self._source, self._place = reader.path.absolute(), path.absolute()  # whatever the working directory is by then
        reader.set_aside(set())  # the packets that it would have copied are copied at the join

    def begin(self, job: Mapping[str, Any], tile: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Takes up the run that `job` (JSON values) describes: (frames that are done, height and width of its tiles).

        The tiles are the given ones, or those that the run was begun with, since other tiles round differently.

        Raises InputError when another process is at it, or the folder holds a run that was described differently; VideoError when
        its segments were made by another encoder.
        """
        with explained(self._folder, "the run cannot be kept there"):
            self._folder.mkdir(exist_ok=True)
            journal = (self._folder / JOURNAL).open("a+", encoding="utf-8")
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            job = json.loads(json.dumps(job))  # as it is read back: tuples are lists
            before, self._segments, whole = self._read()
            if before is not None:
                self._check_same(before, job)
        except BlockingIOError as error:
            journal.close()
            raise InputError(f"{self._folder}: another process is at this run: wait for it, or choose another output") from error
        except BaseException:
            journal.close()
            raise
        self._journal = journal  # from here on the folder is ours to delete
        self.frames = sum(segment.frames for segment in self._segments)
        for segment in self._segments:
            check_encoder(self._folder / segment.file, self._extradata)
        self._clean()
        journal.truncate(whole)  # lines after a broken one would be misread
        if before is None:
            before = {**job, TILE: tile}
            self._append(before)
        height, width = before.get(TILE, tile)
        return self.frames, (int(height), int(width))

    def write(self, frame: Frame, luma: Plane, chroma: tuple[Plane, ...] | None = None) -> None:
        """See `VideoWriter.write`."""
        if frame.starts_segment:
            self._end_segment()
        if self._current is None:
            name = self._folder / _name_of(len(self._segments))
            self._current = VideoWriter(name, self._reader, self._encoder, self._width, segment=True)
        self._current.write(frame, luma, chroma)
        self.frames, self._last_duration = self.frames + 1, frame.duration

    def finish(self) -> None:
        """Joins all segments; the output has its name afterwards, and the folder is gone. Calling it again does nothing."""
        if self._journal is None:
            return
        self._end_segment()
        salvaged = self._reader.broke_off
        with VideoReader(
            self._source,
            self.frames if salvaged else self._reader.limit,
            salvage=salvaged,
            playlist=self._reader.playlist,
            part=self._reader.asked,
        ) as source:
            with VideoWriter(self._place, source, self._encoder, self._width, coded=True, replaces=self._replaces) as joined:
                join([(self._folder / segment.file, segment) for segment in self._segments], source, joined)
            self.notes += joined.notes
        self._segments = []
        self.close()

    def close(self) -> None:
        """Deletes the segment at work, keeps those that are finished; calling it again does nothing."""
        if self._current is not None:
            self._current.close()
            self._current = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None
            if not self._segments:
                shutil.rmtree(self._folder)

    def _read(self) -> tuple[dict[str, Any] | None, list[Segment], int]:
        """The run in the journal, its segments up to the first whose line or file is not whole, and the bytes of these lines."""
        job: dict[str, Any] | None = None
        segments: list[Segment] = []
        size = 0
        for line in (self._folder / JOURNAL).read_bytes().splitlines(keepends=True):
            try:
                values = _parsed(line)
                if job is None:
                    job = values
                else:
                    segments.append(self._whole(values, len(segments)))
            except ValueError as error:
                if segments or job:
                    self.notes.append(f"{self._folder} was damaged ({error}): all from segment {len(segments)} on was done again")
                break
            size += len(line)
        return job, segments, size

    def _whole(self, values: Mapping[str, Any], number: int) -> Segment:
        """Segment `number`, from its line. Raises ValueError unless its file is there, as it was written."""
        segment = read_record(Segment, values)
        path = self._folder / segment.file
        if segment.file != _name_of(number):
            raise ValueError(f"the journal names {segment.file} where {_name_of(number)} is due")
        if not path.is_file() or path.stat().st_size != segment.bytes:
            raise ValueError(f"{segment.file} is not whole")
        if segment.sha256 and file_sha256(path) != segment.sha256:
            raise ValueError(f"{segment.file} is not what was written")
        return segment

    def _check_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        encoder = before.get("encoder")  # as earlier versions grouped it
        other = differences({**before, **(encoder if isinstance(encoder, dict) else {})}, now)
        if other:
            raise InputError(
                f"{self._folder} holds a run that was begun differently ({'; '.join(other)}): go on as it was, or delete the folder"
            )

    def _clean(self) -> None:
        """Deletes what a killed process left unfinished."""
        known = {segment.file for segment in self._segments} | {JOURNAL}
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()

    def _end_segment(self) -> None:
        if self._current is None:
            return
        written, self._current = self._current, None
        written.finish()
        path = written.path
        with path.open("rb") as file:
            os.fsync(file.fileno())
        check_encoder(path, self._extradata)  # now, not at the join
        segment = Segment(path.name, written.frames, path.stat().st_size, self._last_duration, file_sha256(path))
        self._segments.append(segment)
        self._append(asdict(segment))
        log.info("%s: %d frames are done", self.path, self.frames)

    def _append(self, record: Mapping[str, Any]) -> None:
        assert self._journal is not None
        with explained(self._folder, "the run cannot be kept there"):
            self._journal.write(json.dumps(record) + "\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())


class Piece(Protocol):
    """Coded pictures that are next to each other, of a file of ours or of the source."""

    @property
    def last_duration(self) -> int:
        """Of the last frame, in the source's time base."""
        ...

    @property
    def copied(self) -> bool:
        """Whether they are the source's, and hold what their decoder must know."""
        ...

    def times(self, source: VideoReader, extradata: bytes | None) -> list[int]:
        """When they are shown, in order of decoding. Raises VideoError where one is missing, or another encoder made them."""
        ...

    def packets(self) -> Iterator[av.Packet[Any]]:
        """The pictures, in order of decoding."""
        ...


@dataclass(frozen=True)
class EncodedPiece:
    """A segment and its file."""

    path: Path
    segment: Segment
    copied: bool = False

    @property
    def last_duration(self) -> int:
        """See `Piece`."""
        return self.segment.last_duration

    def times(self, source: VideoReader, extradata: bytes | None) -> list[int]:
        """See `Piece`."""
        return _times(self.path, self.segment, source, extradata)

    def packets(self) -> Iterator[av.Packet[Any]]:
        """See `Piece`."""
        return _packets(self.path)


def join(segments: list[tuple[Path, Segment]], source: VideoReader, joined: VideoWriter) -> None:
    """`join_pieces` of segments."""
    join_pieces([EncodedPiece(path, segment) for path, segment in segments], source, joined)


def join_pieces(pieces: Sequence[Piece], source: VideoReader, joined: VideoWriter) -> None:
    """Muxes the coded pictures of all pieces, and with them all the rest of the source.

    Times of decoding are made anew, since segments overlap there: with D the most places that a picture is coded before its turn
    to be shown, the picture coded at i is decoded when the one shown at i - D is. Raises VideoError where the segments' encoders
    differ or a picture is missing.
    """
    shown = [time for piece in pieces for time in piece.times(source, joined.extradata)]
    times = _decoding_times(shown)
    ends = dict(zip(sorted(shown), [*sorted(shown)[1:], max(shown) + pieces[-1].last_duration]))
    pace = source.skim()
    pictures = ((packet, piece.copied) for piece in pieces for packet in piece.packets())
    for (packet, copied), pts, dts in zip(pictures, shown, times):
        next(pace, None)
        joined.write_coded(packet, pts, dts, ends[pts] - pts, copied)
    for _ in pace:
        pass


def _times(path: Path, segment: Segment, source: VideoReader, extradata: bytes | None) -> list[int]:
    """When the pictures of a segment are shown, in order of decoding."""
    check_encoder(path, extradata)
    times = [round(packet.pts * packet.time_base / source.info.time_base) for packet in _packets(path) if packet.pts is not None]
    if len(times) != segment.frames:
        raise VideoError(f"{path}: has {len(times)} pictures of {segment.frames}: delete the folder {path.parent}, and begin again")
    return [time - segment_shift(source) for time in times]


def check_encoder(path: Path, extradata: bytes | None) -> None:
    """Raises VideoError unless the encoder of a segment is the one that says this of all its pictures, if it says anything."""
    with av.open(str(path)) as container:
        if extradata is not None and container.streams.video[0].codec_context.extradata != extradata:
            raise VideoError(f"{path}: was encoded by another encoder: delete the folder {path.parent}, and begin again")


def _packets(path: Path) -> Iterator[av.Packet[Any]]:
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet


def _decoding_times(shown: list[int]) -> list[int]:
    """For pictures in order of decoding; strictly rising, and never after a picture is shown."""
    in_order = sorted(shown)
    rank = {time: place for place, time in enumerate(in_order)}
    delay = max(number - rank[time] for number, time in enumerate(shown))
    step = in_order[1] - in_order[0] if len(in_order) > 1 else 1
    before = [in_order[0] - step * early for early in range(delay, 0, -1)]
    return [*before, *in_order][: len(shown)]


def _parsed(line: bytes) -> dict[str, Any]:
    """Raises ValueError when it is not whole."""
    if not line.endswith(b"\n"):
        raise ValueError("it has no end")
    return parse_object(line.decode())


def _name_of(number: int) -> str:
    return f"{number:06d}.nut"


def describe_encoder(encoder: EncoderOptions) -> dict[str, Any]:
    """What makes the coded pictures; the container, the streams beside them and the tag are the join's matter."""
    options = {name: value for name, value in encoder.options.items() if name != TAG}
    return {"codec": encoder.codec, "crf": encoder.crf, "options": options}


def describe_source(path: Path, info: VideoInfo) -> dict[str, Any]:
    """What tells a video file from another, or from what it was before it was changed."""
    facts = path.stat()
    return {"source": path.name, "bytes": facts.st_size, "changed": facts.st_mtime_ns, "size": f"{info.width}x{info.height}"}
