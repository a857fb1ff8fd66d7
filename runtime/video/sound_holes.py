"""`Holes` of a stream of sound: where it pauses or overlaps itself. `misplaced_sound` tells where an output has what is behind one
at another time, as containers do that only count samples: AVI, and MP4 and QuickTime with PCM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Discard

from runtime.files.time_ranges import clock
from runtime.video.format import MP4_LIKE, codec_name, is_format
from runtime.video.packet_times import ALL_AT_ONCE, MATROSKA
from runtime.video.reader import VideoReader
from runtime.video.sync import NOTICED

ROUNDED = 2  # ticks between the end of a packet and the start of the next, which are no hole


@dataclass(frozen=True)
class Place:
    """The start of a packet among those of its stream."""

    number: int  # packets before it
    bytes: int  # of those
    time: Fraction  # seconds


class Holes:
    """Of the packets of one stream, which come in order."""

    def __init__(self) -> None:
        self.packets = 0
        self.first = self.last = Place(0, 0, Fraction(0))
        self.behind: list[Place] = []  # each of them
        self.bytes = 0  # of all packets
        self._end = self._longest = Fraction(0)  # seconds: that of the last one, and of any

    def take(self, packet: av.Packet[Any], later: Fraction) -> None:
        """The next packet, so many seconds `later`."""
        start = packet.dts if packet.pts is None else packet.pts
        place = Place(self.packets, self.bytes, (start or 0) * packet.time_base + later)
        if self.packets and abs(place.time - self._end) > max(NOTICED, ROUNDED * packet.time_base):
            self.behind.append(place)
        self.first, self.last = self.first if self.packets else place, place
        self.packets, self.bytes = self.packets + 1, self.bytes + packet.size
        length = (packet.duration or 0) * packet.time_base
        if not self._longest or length <= self._longest + NOTICED:  # else MP4 has the hole behind it in its duration
            self._longest = max(self._longest, length)
        self._end = place.time + min(length, self._longest)


def misplaced_sound(reader: VideoReader, copied: Mapping[int, Holes], written: Path, where: str) -> Iterator[str]:
    """A line for each stream of sound that is early or late in part; `copied` by its indices in the source, times of the source.

    `where` is the container as users know it. The output is read only where a hole was met, or it is one that counts samples.
    """
    if not copied:
        return
    with av.open(str(written.absolute()), metadata_errors="surrogateescape") as output:
        counts = is_format(output, ALL_AT_ONCE) or (is_format(output, MP4_LIKE) and _has_pcm(reader, copied))
        if not counts and not any(holes.behind for holes in copied.values()):
            return
        other = "" if is_format(output, MATROSKA) else ", an .mkv has times"
        sounds = dict(zip((stream.index for stream in output.streams if stream.type == "audio"), sorted(copied)))
        for index, offs in _offs(output, {there: copied[index] for there, index in sounds.items()}).items():
            if told := _told(offs, reader.origin):
                yield f"audio stream {sounds[index]} {told}: {where} only counts samples{other}"


def _told(offs: list[tuple[Fraction, Fraction]], origin: Fraction) -> str:
    """Of (seconds of the source, by how many the output is early then) behind each hole and at the end; nothing of little."""
    worst = max((early for _, early in offs), key=abs, default=Fraction(0))
    if abs(worst) < NOTICED:
        return ""
    first = next(time for time, early in offs if abs(early) >= NOTICED)
    way = "early" if worst > 0 else "late"
    return f"is up to {float(abs(worst)):.2g} s {way} from {clock(round(first - origin, 2))} on"


def _offs(output: InputContainer, copied: Mapping[int, Holes]) -> dict[int, list[tuple[Fraction, Fraction]]]:
    """As above, by the stream's index in the output, and so is `copied`."""
    searches = {index: _Search(holes) for index, holes in copied.items()}
    for stream in output.streams:
        if stream.index not in searches:
            stream.discard = Discard.all
    for packet in output.demux([output.streams[index] for index in searches]):
        if packet.size:
            searches[packet.stream_index].take(packet)
    return {index: search.offs() for index, search in searches.items()}


class _Search:
    """The places of a stream of the source in that of the output: by number, or by bytes where packets are others, as of PCM."""

    def __init__(self, source: Holes) -> None:
        self._source, self._there = source, Holes()
        self._wanted = [*source.behind, *([source.last] if source.last not in source.behind else [])]
        self._numbers = {place.number for place in self._wanted}
        self._by_number: dict[int, Fraction] = {}
        self._by_bytes: dict[int, Fraction] = {}

    def take(self, packet: av.Packet[Any]) -> None:
        """The next packet of the output."""
        self._there.take(packet, Fraction(0))
        place, length = self._there.last, (packet.duration or 0) * packet.time_base
        if place.number in self._numbers:
            self._by_number[place.number] = place.time
        while (rest := self._wanted[len(self._by_bytes) :]) and rest[0].bytes < self._there.bytes:
            self._by_bytes[rest[0].bytes] = place.time + length * (rest[0].bytes - place.bytes) / packet.size

    def offs(self) -> list[tuple[Fraction, Fraction]]:
        """As above; none where the output has other packets."""
        source, there = self._source, self._there
        if source.packets == there.packets:
            found = [self._by_number[wanted.number] for wanted in self._wanted]
        elif there.last.bytes < source.bytes <= there.bytes:  # MXF fills its last one up
            found = [self._by_bytes[wanted.bytes] for wanted in self._wanted]
        else:
            return []
        begins = source.first.time - there.first.time
        return [(wanted.time, wanted.time - begins - time) for wanted, time in zip(self._wanted, found)]


def _has_pcm(reader: VideoReader, copied: Mapping[int, Holes]) -> bool:
    return any(codec_name(reader.container.streams[index]).startswith("pcm") for index in copied)
