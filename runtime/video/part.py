"""`Part`: the range of a video that is read, on the clock of its file; `Ranges`: what of it is deblurred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from runtime.errors import VideoError
from runtime.files.time_ranges import TimeRange, clock
from runtime.video.format import Frame, VideoInfo

CONTAINER_CLOCK = 1_000_000  # ticks per second of a container's start and duration
TIMECODE = "timecode"


@dataclass(frozen=True)
class Part:
    """From `start`, which is in it, to `end`, which is not.

    Users count from the start of the file, which is that of its first stream, as FFmpeg does: the first frame of a transport stream
    whose clock begins at 1.4 s is at 0. What comes before 0 on a file's clock, as the first packet of AAC, is no start.
    """

    origin: Fraction  # seconds on the file's clock, where users begin to count
    start: Fraction  # seconds on the file's clock
    end: Fraction | None  # None = the end of the file

    @classmethod
    def of(cls, asked: TimeRange, origin: Fraction) -> Part:
        """The part that was asked for, of a file that begins at `origin` on its clock."""
        return cls(origin, origin + asked.start, None if asked.end is None else origin + asked.end)

    @property
    def is_cut(self) -> bool:
        """Whether it begins later than the file."""
        return self.start > self.origin

    def is_before(self, time: Fraction) -> bool:
        """Whether what ends then is over when the part begins."""
        return self.is_cut and time <= self.start

    def begins_after(self, time: Fraction) -> bool:
        """Whether what begins then, and is not cut, is left out before the part."""
        return self.is_cut and time < self.start

    def is_over(self, time: Fraction) -> bool:
        """Whether what begins then is behind the part."""
        return self.end is not None and time >= self.end

    def length(self, file_end: Fraction | None) -> float | None:
        """Seconds, where the file tells when it ends or the part does."""
        ends = [end for end in (self.end, file_end) if end is not None]
        return max(0.0, float(min(ends) - self.start)) or None if ends else None

    def takes(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet of another stream begins in it; subtitles that are shown across its ends are cut there."""
        stream = packet.stream
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or stream.disposition & Disposition.attached_pic:
            return True
        start, length = time * packet.time_base, (packet.duration or 0) * packet.time_base
        if stream.type == "subtitle" and length:
            first = max(start, self.start) if self.is_cut else start
            last = start + length if self.end is None else min(start + length, self.end)
            packet.pts = packet.dts = round(first / packet.time_base)
            packet.duration = round(last / packet.time_base) - packet.pts
            return packet.duration > 0
        return not self.begins_after(start) and not self.is_over(start)

    def chapters(self, chapters: Iterable[Any]) -> list[Any]:
        """Those that lie in it, cut at its ends."""
        return list(self._chapters(chapters))

    def _chapters(self, chapters: Iterable[Any]) -> Iterator[Any]:
        for chapter in chapters:
            tick = Fraction(chapter["time_base"])
            first, last = (chapter[name] * tick for name in ("start", "end"))
            if self.is_cut:
                first = max(first, self.start)
            if self.end is not None:
                last = min(last, self.end)
            if first < last:
                yield {**chapter, "start": round(first / tick), "end": round(last / tick)}

    def told_at_the_end(self, time: Fraction) -> list[str]:
        """A note where the file ends, at `time`, before the part does."""
        if self.end is None or time >= self.end:
            return []
        return [f"the video ends at {self.text(time)}, before the {self.text(self.end)} that were asked for"]

    def lost_timecode(self, container: InputContainer) -> str | None:
        """The timecode that the file has for its first frame, where that is not the part's."""
        if not self.is_cut:
            return None
        told = [container.metadata, *(stream.metadata for stream in container.streams)]
        return next((metadata[TIMECODE] for metadata in told if metadata.get(TIMECODE)), None)

    def text(self, time: Fraction) -> str:
        """A time on the file's clock as users count."""
        return clock(time - self.origin)


class Ranges:
    """What of a video is deblurred, where not all of it is: named ranges, which count from `origin` on the file's clock."""

    def __init__(self, ranges: Sequence[TimeRange], path: Path, info: VideoInfo, origin: Fraction) -> None:
        """Raises VideoError where a range begins after the video, as far as the file tells when it ends."""
        self._ranges, self._time_base, self._origin = ranges, info.time_base, origin
        self._seen: set[TimeRange] = set()
        if info.duration:
            end = info.first_pts * info.time_base + Fraction(info.duration) - origin
            for each in ranges:
                if each.start >= end:
                    raise VideoError(f"{path}: ends at {clock(end)}, {each.called} is {each}: mend its line in --segments")

    def mark(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, with `passed` set on those in none of the ranges; all are deblurred where there are none."""
        for frame in frames:
            time = frame.pts * self._time_base - self._origin
            found = next((each for each in self._ranges if time in each), None)
            if found:
                self._seen.add(found)
            yield frame if found or not self._ranges else replace(frame, passed=True)

    def notes(self) -> list[str]:
        """A line for each range that no frame was in; after the last frame."""
        return [f"no frame is shown in {each.called}, {each}" for each in self._ranges if each not in self._seen]
