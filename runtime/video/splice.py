"""`open_splicer`: a writer that leaves the coded pictures of the source as they are where nothing is deblurred.

What is copied are whole groups of pictures that no range touches and that stand alone: nothing decoded before such a group is shown
within it, and the other way round. What lies between a range and the next such group is encoded anew, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from runtime.encoder_options import EncoderOptions
from runtime.errors import VideoError
from runtime.files.time_ranges import TimeRange
from runtime.video.format import MP4_LIKE, Frame, Plane, is_format, packets_from_here
from runtime.video.muxer import encoded_format
from runtime.video.output_writer import OutputWriter, own_part
from runtime.video.reader import OTHER_LAYERS, VideoReader
from runtime.video.segments import EncodedPiece, Piece, Segment, check_encoder, join_pieces
from runtime.video.sources import STANDARD, open_source
from runtime.video.units import SIZED, START, kind_of, size_of_sizes, units_of
from runtime.video.writer import VideoWriter

ODD_PROFILE = 244  # of H.264, High 4:4:4 Predictive, which lossless encoding needs
SIZE = 4  # bytes of a unit's size, as all write it
IN_BAND = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}  # codecs whose settings may stand beside their pictures
FRESH = {"h264": {5}, "hevc": {16, 17, 18, 19, 20}}  # pictures that need nothing before them, kinds of units
CODED = {"h264": range(1, 6), "hevc": range(32)}  # units that are pictures


@dataclass(frozen=True)
class Span:
    """Pictures that are next to each other in the file, and can be copied."""

    first: int  # when the first is shown, in the source's time base
    end: int | None  # when the first behind them is shown; None = the end of the file
    frames: int

    def __contains__(self, pts: int) -> bool:
        return self.first <= pts and (self.end is None or pts < self.end)


@dataclass(frozen=True)
class CopiedPiece:
    """A span of the source, for `join_pieces`."""

    span: Span
    pictures: _Pictures
    last_duration: int
    copied: bool = True

    def times(self, source: VideoReader, extradata: bytes | None) -> list[int]:
        """See `Piece`."""
        return [packet.pts for packet in self.pictures.within(self.span) if packet.pts is not None]

    def packets(self) -> Iterator[av.Packet[Any]]:
        """See `Piece`."""
        return self.pictures.prepared(self.span)


def open_splicer(
    path: Path,
    reader: VideoReader,
    encoder: EncoderOptions,
    ranges: Sequence[TimeRange],
    width: int | None = None,
    changed: bool = False,
) -> OutputWriter:
    """A writer that copies where no range is, or one that encodes all, with a note on why nothing can be copied.

    `changed` says that frames in no range are not as they were either. Raises what `VideoWriter` does.
    """
    reason = _no_copies(path, reader, encoder, changed)
    if reason is None:
        pictures = _Pictures(reader)
        trial = VideoWriter(path, reader, encoder, width, coded=True, spliced=pictures.codec in IN_BAND)
        extradata, fitting, replaces = trial.extradata, trial.encoder, trial.replaces
        trial.close()
        if pictures.codec == "h264" and (_profile(extradata) == ODD_PROFILE) != (_profile(settings_of(reader)) == ODD_PROFILE):
            reason = "FFmpeg mistakes lossless H.264 beside other H.264"
        elif pictures.codec not in IN_BAND and extradata != settings_of(reader):
            reason = f"{encoder.codec} is set up otherwise here than where the source was encoded"
        elif spans := pictures.spans(ranges):
            return SplicingWriter(path, reader, fitting, spans, pictures, extradata, replaces)
        else:
            reason = "no group of pictures stands alone outside the ranges"
    writer = VideoWriter(path, reader, encoder, width)
    writer.notes.append(f"the frames outside the ranges were encoded anew, their samples as they were: {reason}")
    return writer


class SplicingWriter(OutputWriter):
    """Encodes what is in no span into files of its own, and joins them with what is copied; a context manager."""

    def __init__(
        self,
        path: Path,
        reader: VideoReader,
        encoder: EncoderOptions,
        spans: Sequence[Span],
        pictures: _Pictures,
        extradata: bytes | None,
        replaces: bool,
    ) -> None:
        self.path, self.frames = path, 0
        self._source, self._place = reader.path.absolute(), path.absolute()  # whatever the working directory is by then
        self.notes: list[str] = []
        self._reader, self._encoder, self._spans = reader, encoder, spans
        self._pictures, self._extradata, self._replaces = pictures, extradata, replaces
        self._folder = own_part(path, self._place.with_name(f"{path.name}.pieces"), ".part", folder=True)
        self._pieces: list[Piece] = []
        self._current: VideoWriter | None = None
        self._span: Span | None = None  # that is being passed
        self._passed = self._copied = self._last_duration = 0
        self._open = True
        reader.set_aside(set())  # the packets of the other streams are copied at the join

    def write(self, frame: Frame, luma: Plane, chroma: tuple[Plane, ...] | None = None) -> None:
        """See `VideoWriter.write`."""
        span = next((each for each in self._spans if frame.pts in each), None)
        if span is not self._span:
            self._end_piece()
            self._span = span
        if span is None:
            if self._current is None:
                name = self._folder.path / f"{len(self._pieces):06d}.nut"
                self._current = VideoWriter(name, self._reader, self._encoder, segment=True)
            self._current.write(frame, luma, chroma)
        else:
            self._passed += 1
        self.frames, self._last_duration = self.frames + 1, frame.duration

    def finish(self) -> None:
        """See `VideoWriter.finish`."""
        if not self._open:
            return
        self._end_piece()
        with VideoReader(self._source, part=self._reader.asked) as source:
            spliced = self._pictures.codec in IN_BAND
            with VideoWriter(self._place, source, self._encoder, coded=True, spliced=spliced, replaces=self._replaces) as joined:
                join_pieces(self._pieces, source, joined)
            self.notes += joined.notes
        if lost := sorted(self._lacking()):
            self.notes.append(f"{', '.join(lost)}: in the pictures alone that were copied")
        anew = self.frames - self._copied
        self.notes.append(
            f"{self._copied} frames were copied as they are coded, {anew} were encoded: the ranges, and what is next to them"
        )
        self.close()

    def close(self) -> None:
        """See `VideoWriter.close`."""
        if self._open:
            self._open = False
            if self._current is not None:
                self._current.close()
            self._folder.drop()

    def _lacking(self) -> set[str]:
        """What the source's pictures say and no picture that was encoded does."""
        encoded = [piece.path for piece in self._pieces if isinstance(piece, EncodedPiece)]
        told: set[str] = set()
        for path in encoded:
            with VideoReader(path) as piece:
                told.update(piece.side_data)
        return {*self._reader.side_data, *self._reader.messages} - told if encoded else set()

    def _end_piece(self) -> None:
        written, self._current = self._current, None
        if written is not None:
            written.finish()
            check_encoder(written.path, self._extradata)
            segment = Segment(written.path.name, written.frames, written.path.stat().st_size, self._last_duration)
            self._pieces.append(EncodedPiece(written.path, segment))
        if self._span is not None:
            if self._passed != self._span.frames:
                raise VideoError(
                    f"{self._reader.path}: {self._passed} frames were decoded of {self._span.frames} that would be copied: run with"
                    " --resume, which encodes all"
                )
            self._pieces.append(CopiedPiece(self._span, self._pictures, self._last_duration))
            self._copied, self._passed, self._span = self._copied + self._passed, 0, None


class _Pictures:
    """The coded pictures of a file."""

    def __init__(self, reader: VideoReader) -> None:
        self._path, self._index = reader.path.absolute(), reader.stream.index
        self._reader = reader
        self.codec = str(av.Codec(reader.info.codec, "r").canonical_name)
        self._size = size_of_sizes(self.codec, settings_of(reader)) if self.codec in IN_BAND else 0
        self._seeks = is_format(reader.container, {*MP4_LIKE, "matroska"})  # straight to a keyframe

    def spans(self, ranges: Sequence[TimeRange]) -> list[Span]:
        """What can be copied: groups of pictures outside the ranges and inside the part, one after the other where they touch."""
        seen = [(packet.pts, packet.is_keyframe and not packet.is_discard, self._fresh(packet)) for packet in self._packets()]
        times = [pts for pts, _, _ in seen if pts is not None]
        if self._size not in (0, SIZE) or len(times) < len(seen) or len(set(times)) < len(times):
            return []
        before = [-1, *accumulate(times, max)]
        after = [*reversed([*accumulate(reversed(times), min)]), 0]
        starts = [n for n, (_, key, _) in enumerate(seen) if key and (n == 0 or before[n] < times[n]) and after[n] == times[n]]
        spans: list[Span] = []
        for first, behind in zip(starts, [*starts[1:], len(times)]):
            if not all(self._is_outside(time, ranges) for time in times[first:behind]):
                continue
            end = times[behind] if behind < len(times) else None
            if spans and spans[-1].end == times[first]:
                spans[-1] = Span(spans[-1].first, end, spans[-1].frames + behind - first)
            elif seen[first][2]:
                spans.append(Span(times[first], end, behind - first))
        return spans

    def within(self, span: Span) -> Iterator[av.Packet[Any]]:
        """The packets of a span, in order of decoding, as they are in the file."""
        found = (packet for packet in self._packets(span.first) if packet.pts is not None and packet.pts in span)
        return islice(found, span.frames)

    def prepared(self, span: Span) -> Iterator[av.Packet[Any]]:
        """The same, with what a decoder must know at their beginning."""
        if not self._size:
            yield from self.within(span)
            return
        with open_source(self._path).container as container:
            headers = BitStreamFilterContext(IN_BAND[self.codec], container.streams[self._index])
            for packet in self.within(span):
                yield from headers.filter(packet)

    def _packets(self, first: int | None = None) -> Iterator[av.Packet[Any]]:
        """All, or those from the keyframe that is shown at `first` on and maybe some before it."""
        with open_source(self._path).container as container:
            stream = container.streams[self._index]
            if first is not None and self._seeks:
                container.seek(first, stream=stream)
            for packet in packets_from_here(container, stream):
                if packet.size:
                    yield packet

    def _is_outside(self, pts: int, ranges: Sequence[TimeRange]) -> bool:
        time, part = pts * self._reader.info.time_base, self._reader.part
        inside = part is None or (not part.is_over(time) and time >= min(part.start, self._first))
        return inside and not any(time - self._reader.origin in each for each in ranges)

    @property
    def _first(self) -> Fraction:
        """When the first frame that is read is shown."""
        return self._reader.info.first_pts * self._reader.info.time_base

    def _fresh(self, packet: av.Packet[Any]) -> bool:
        """Whether a decoder may begin here in the middle of a stream that had other settings."""
        return self.codec not in IN_BAND or (
            packet.is_keyframe and first_picture(self.codec, bytes(packet), self._size) in FRESH[self.codec]
        )


def first_picture(codec: str, data: bytes, size: int) -> int | None:
    """The kind of the first unit with a picture in a packet of H.264 or HEVC; `size` as `units_of` has it."""
    return next((kind for unit in units_of(data, size) if (kind := kind_of(codec, unit)) in CODED[codec]), None)


def settings_of(reader: VideoReader) -> bytes | None:
    """What the file says of all its pictures."""
    return reader.stream.codec_context.extradata


def _profile(settings: bytes | None) -> int | None:
    """The profile of H.264, from what is said of all pictures, in either form."""
    if not settings or len(settings) < SIZE:
        return None
    at = 0 if settings.startswith(SIZED) else settings.find(START) + len(START)
    return settings[at + 1]


def _no_copies(path: Path, reader: VideoReader, encoder: EncoderOptions, changed: bool) -> str | None:
    """Why the pictures of the source cannot be in the output as they are; None where they may."""
    info = reader.info
    if path == STANDARD or not reader.path.is_file() or reader.pictures or reader.playlist:
        return "only from a video file to another pictures are copied"
    if reader.limit or reader.salvage or changed:
        return "with --frames, --salvage or --compare no pictures are copied"
    known = str(av.Codec(info.codec, "r").canonical_name)
    if av.Codec(encoder.codec, "w").canonical_name != known:
        return f"the source is {known}, and {encoder.codec} is not"
    if OTHER_LAYERS in reader.notes:
        return "its pictures have others beside them, which encoded ones have not"
    if info.rgb_bits or encoded_format(encoder.codec, info) != info.pixel_format:
        return f"{encoder.codec} does not take {info.pixel_format}"
    return None
