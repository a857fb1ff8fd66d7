"""Times of packets: `common_start` of a source, `RisingTimes` that muxers insist on, `FrameTimes` for encoders that only count,
`lost_times` of copies, and `displaced_pictures`, of which a container keeps the times of some."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.stream import Discard

from runtime.errors import VideoError
from runtime.video.format import MP4_LIKE, WITH_A_CLOCK, codec_name, is_format, packets_from_here
from runtime.video.reader import VideoReader
from runtime.video.sources import open_source

ANY_START = {"mpegts", "mpeg", "vob", "dvd", "svcd", "vcd", "nut"}  # containers whose clock may begin anywhere
BOXES, MOST_INDEX = 16, 1 << 20  # of an MP4 in fragments, at its start; bytes of its index, which is short
MATROSKA = {"matroska", "webm"}
TURN = Fraction(1 << 33, 90000)  # seconds after which the clock of a transport stream starts anew
LOOKED_THROUGH = 100  # pictures
COUNTED, NOTICED = {"mpeg"}, Fraction(6, 1000)  # formats in which readers make up times; seconds
KEEPING = "an .mkv or .ts keeps them"
ENOUGH = 8  # packets without a time, after which none is expected
ALL_AT_ONCE = {"avi"}  # containers in which every stream begins at 0, whatever it is told


def common_start(reader: VideoReader, output: OutputContainer | InputContainer) -> Fraction:
    """Seconds, in whole ticks of the picture, that are subtracted from all times of the source: when its first stream begins.

    Of a part of a file that begins later, it is when the part does. Negative where the picture begins before 0, as in a
    transport stream whose clock started anew: by one turn of the clock where the output has one too, which then turns there as
    well. 0 otherwise where the output's clock may begin anywhere, and where the source's late start is meant and the output can
    have one: an MP4 that is not cut out of a stream has it from an edit list, and a Matroska file in another shows the same.
    """
    info = reader.info
    if reader.part and reader.part.is_cut:
        return reader.part.start // info.time_base * info.time_base
    if info.first_pts < 0 and is_format(reader.container, WITH_A_CLOCK) and is_format(output, WITH_A_CLOCK):
        return -TURN
    same = is_format(reader.container, MATROSKA) and is_format(output, MATROSKA)
    meant = is_format(reader.container, MP4_LIKE) and not is_format(output, ALL_AT_ONCE) and not _is_part_of_a_stream(reader.path)
    if info.first_pts >= 0 and (reader.pictures or same or meant or is_format(output, ANY_START)):
        return Fraction(0)
    starts = [info.first_pts * info.time_base]
    for stream in reader.container.streams:
        if stream.type in ("video", "audio") and stream.start_time is not None and stream.time_base:
            starts.append(stream.start_time * stream.time_base)
    first = min(starts) // info.time_base * info.time_base
    return first if info.first_pts < 0 else max(Fraction(0), first)


def _is_part_of_a_stream(path: Path) -> bool:
    """Whether an MP4 is in fragments, as of DASH and HLS, whose clock is the stream's: no edit list says that it begins late."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        for _ in range(BOXES):
            header = file.read(8)
            size, kind = int.from_bytes(header[:4], "big"), header[4:]
            if kind == b"moov":
                index = file.read(min(size, MOST_INDEX))
                return b"mvex" in index and b"elst" not in index
            if size < len(header) or kind == b"moof":
                return False
            file.seek(size - len(header), io.SEEK_CUR)
    return False


def lost_times(reader: VideoReader, copied: tuple[int, ...], timed: Collection[int], written: Path, where: str) -> Iterator[str]:
    """A line for each stream without times in what was `written`, a container that users know as `where`.

    Of those `copied`, by their indices in the source, `timed` had some. Streams of one type are there in the same order.
    """
    untimed: Counter[int] = Counter()
    with suppress(av.FFmpegError, VideoError), open_source(written).container as output:
        left = dict(_pairs(reader, copied, timed, output))
        for stream in output.streams:
            if stream.index not in left:
                stream.discard = Discard.all
        for packet in packets_from_here(output) if left else ():
            if packet.size and packet.stream_index in left:
                if packet.pts is None and packet.dts is None:
                    untimed[packet.stream_index] += 1
                else:
                    del left[packet.stream_index]
            if all(untimed[index] >= ENOUGH for index in left):
                break
        for index, source in left.items():
            if untimed[index]:
                its = reader.container.streams[source]
                yield f"the times of {its.type} stream {source} ({codec_name(its)}) are not in the output: {where} drops them"


def displaced_pictures(written: Path, where: str, meant: Sequence[Fraction]) -> Iterator[str]:
    """Lines where pictures have no times, or others than were `meant` for the first in the order of decoding, in seconds.

    FFmpeg gives a program stream those of some alone where a packet has several; readers count between them.
    """
    with suppress(av.FFmpegError, VideoError), open_source(written).container as output:
        pictures = (packet for packet in packets_from_here(output, output.streams.video[0]) if packet.size)
        packets = list(islice(pictures, LOOKED_THROUGH))
        times = [packet.pts if packet.dts is None else packet.dts for packet in packets]
        shown = sorted(meant)
        steps = {round((later - earlier) / NOTICED) for earlier, later in pairwise(shown)}
        remedy = "add -c mpeg2video, whose pictures have theirs" if max(steps, default=0) - min(steps, default=0) <= 1 else KEEPING
        if untimed := times.count(None):
            yield f"{untimed} of the first {len(times)} pictures have no time in {where}: players count there, or {remedy}"
        if is_format(output, COUNTED) and len(meant) == len(packets):
            offsets = [time - packet.pts * packet.time_base for time, packet in zip(meant, packets) if packet.pts is not None]
            off = max((abs(offset - offsets[0]) for offset in offsets), default=Fraction(0))
            if off > NOTICED:
                told = f"pictures are shown up to {round(off * 1000)} ms off their times in {where}"
                yield f"{told}, which has those of some: {KEEPING}"


def _pairs(
    reader: VideoReader, copied: tuple[int, ...], timed: Collection[int], output: InputContainer
) -> Iterator[tuple[int, int]]:
    """(index in the output, index in the source) of each copied stream that had times, without pictures."""
    for kind in ("audio", "subtitle", "data"):
        there = (stream.index for stream in output.streams if stream.type == kind)
        sources = (index for index in copied if reader.container.streams[index].type == kind)
        yield from ((index, source) for index, source in zip(there, sources) if source in timed)


class RisingTimes:
    """A stream's packets, moved as FFmpeg does where one is to be decoded before the last one, or shown before it is decoded."""

    def __init__(self, strict: bool) -> None:
        self._least_step = int(strict)  # ticks
        self._last: int | None = None
        self._moved, self._most = 0, Fraction(0)  # packets, and seconds

    def settle(self, packet: av.Packet[Any], time_base: Fraction) -> None:
        """Gives a packet times in the output's time base."""
        scale = packet.time_base / time_base
        pts, dts = (None if time is None else round(time * scale) for time in (packet.pts, packet.dts))
        given = dts = pts if dts is None else dts
        if dts is not None:
            if pts is not None and pts < dts:
                dts = pts
            if self._last is not None:
                dts = max(dts, self._last + self._least_step)
            pts = None if pts is None else max(pts, dts)
            self._last = dts
            self._count(abs(dts - given) * time_base if given is not None else Fraction(0))
        packet.duration = round((packet.duration or 0) * scale)
        packet.pts, packet.dts, packet.time_base = pts, dts, time_base

    def told(self) -> str:
        """A sentence on what was moved; nothing when nothing was."""
        what = "1 packet was" if self._moved == 1 else f"{self._moved} packets were"
        return f"{what} out of order, and moved by up to {float(self._most) * 1000:.3g} ms" if self._moved else ""

    def _count(self, by: Fraction) -> None:
        if by:
            self._moved, self._most = self._moved + 1, max(self._most, by)


class FrameTimes:
    """The times of frames for an encoder whose clock counts them, put on the packets that come out of it."""

    def __init__(self, rate: Fraction) -> None:
        self.rate = rate  # frames per second, as the encoder states it
        self._times: dict[int, tuple[int, int]] = {}  # by number, of those that may come out yet
        self._first: tuple[int, int] | None = None
        self._count = 0

    def add(self, pts: int, duration: int) -> None:
        """Notes when the next frame is shown."""
        self._first = self._first or (pts, duration)
        self._times[self._count] = pts, duration
        self._count += 1

    def put(self, packet: av.Packet[Any], time_base: Fraction) -> None:
        """Gives a packet the time of its frame, and of its turn to be decoded that of the frame of this number."""
        assert packet.pts is not None
        assert self._first is not None
        number = packet.pts if packet.dts is None else packet.dts
        packet.pts, packet.duration = self._times[packet.pts]
        early = self._first[0] + min(number, 0) * self._first[1]
        packet.dts = early if number < 0 else self._times[number][0]
        packet.time_base = time_base
        for old in [each for each in self._times if each < number]:
            del self._times[old]
