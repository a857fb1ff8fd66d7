"""`time_jump`: where the clock of a transport or program stream jumps, as recorders and joiners leave it.

It is found before the work, from the times at a few places of the file and a search between two of them; what jumps there and back
between two places is met when its frame comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer

from runtime.video.format import WITH_A_CLOCK, is_format, packets_from_here
from runtime.video.frame_times import HICCUP
from runtime.video.reader import VideoReader
from runtime.video.sources import open_source

PLACES = 9  # evenly over the file, the first at its start
NEAR = 1 << 20  # bytes that are read through


@dataclass(frozen=True)
class Jump:
    """Seconds, when the last coded picture in front of it is decoded, and the first one behind it."""

    before: Fraction
    after: Fraction


def time_jump(reader: VideoReader, longest: Fraction | None) -> Jump | None:
    """The first jump back that ends a run, or forward by more than `longest` seconds, as far as the reader goes."""
    if not is_format(reader.container, WITH_A_CLOCK) or not reader.path.is_file() or (reader.part and reader.part.is_cut):
        return None

    def matters(before: Fraction, after: Fraction) -> bool:
        return after < before - HICCUP or (longest is not None and after > before + longest)

    with suppress(av.FFmpegError), open_source(reader.path).container as container:
        found = _first(_Places(container, reader.stream.index), reader.path.stat().st_size, matters)
        return found if found and not _is_behind(reader, found.before) else None
    return None


def _is_behind(reader: VideoReader, time: Fraction) -> bool:
    """Whether the reader ends before."""
    info = reader.info
    limit = reader.limit and info.frame_rate and info.first_pts * info.time_base + reader.limit / info.frame_rate < time
    return bool(limit or (reader.part and reader.part.is_over(time)))


def _first(places: _Places, size: int, matters: Callable[[Fraction, Fraction], bool]) -> Jump | None:
    looked = [(place, time) for place in (size * number // PLACES for number in range(PLACES)) if (time := places.time(place))]
    looked += [(size, time) for time in list(places.times(max(0, size - NEAR)))[-1:]]
    for (low, early), (high, late) in zip(looked, looked[1:]):
        while matters(early, late) and high - low > NEAR:
            middle = (low + high) // 2
            time = places.time(middle)
            if time is None:
                return None
            if matters(early, time) and not (matters(time, late) and late - time > time - early):
                high, late = middle, time
            else:
                low, early = middle, time
        if matters(early, late):
            times = list(places.times(low, high + NEAR))
            return next((Jump(before, after) for before, after in zip(times, times[1:]) if matters(before, after)), None)
    return None


class _Places:
    """The times of a video's packets from a place in its file on."""

    def __init__(self, container: InputContainer, index: int) -> None:
        self._container, self._stream = container, container.streams[index]

    def time(self, place: int) -> Fraction | None:
        """That of the first one; None where there is none."""
        return next(self.times(place), None)

    def times(self, start: int, end: int | None = None) -> Iterator[Fraction]:
        self._container.seek(start, unsupported_byte_offset=True)
        for packet in packets_from_here(self._container, self._stream):
            if end is not None and packet.pos is not None and packet.pos > end:
                return
            if packet.dts is not None:
                yield packet.dts * packet.time_base
