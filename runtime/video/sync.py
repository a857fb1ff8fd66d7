"""Sound of an output beside that of its source: `moved_sound` tells whether it begins as long before or behind the picture;
`changed_sound` that, and whether what nobody is to hear at its ends stays so."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

from runtime.errors import VideoError
from runtime.video.format import MP4_LIKE, codec_name, is_format
from runtime.video.packet_times import ALL_AT_ONCE, MATROSKA, common_start
from runtime.video.reader import VideoReader

NOTICED = Fraction(6, 1000)  # seconds; less is the ticks of two clocks, or AC-3's delay
IN_A_TRIAL = Fraction(1, 10)  # seconds, where what is hidden in front was not written
LOOKED_THROUGH = 1000  # pictures of the output, for the first packets of all sound
OPUS = {"opus", "libopus"}  # names of its decoders


@dataclass(frozen=True)
class _Sounds:
    """Of an output, in seconds."""

    begins: tuple[Fraction | None, ...]  # when the first packet of each sound does
    hidden: tuple[Fraction, ...]  # how much at the beginning of each nobody hears
    shown: Fraction  # when the first picture is
    early: Fraction  # by how much that is before its time, where the second one is not
    hides_ends: bool  # whether all sound can end before its last packet does
    ends_of_opus: bool  # the same of Opus


def moved_sound(reader: VideoReader, copied: tuple[int, ...], begins: Mapping[int, Fraction], written: Path) -> Iterator[str]:
    """A line for each stream of sound that was, in a trial.

    Of those `copied`, by their indices in the source, and when the first packet of each `begins` there that was copied.
    """
    if indices := _sounds(reader, copied, begins):
        yield from _moved(reader, indices, begins, _sounds_of(reader, written), IN_A_TRIAL)


def changed_sound(
    reader: VideoReader, copied: tuple[int, ...], begins: Mapping[int, Fraction], written: Path, where: str
) -> Iterator[str]:
    """A line for each stream of sound that was moved, and for each end of one where the output, `where` users know its container
    by, has more to be heard, as a decoder's delay; the other arguments as above."""
    if indices := _sounds(reader, copied, begins):
        there = _sounds_of(reader, written)
        yield from _moved(reader, indices, begins, there, NOTICED)
        yield from _unhidden(reader, indices, begins, there, where)


def _moved(
    reader: VideoReader, indices: list[int], begins: Mapping[int, Fraction], there: _Sounds, least: Fraction
) -> Iterator[str]:
    shown = reader.info.first_pts * reader.info.time_base
    for index, begin in zip(indices, there.begins):
        if begin is None or index not in begins:
            continue
        later = (begin - there.shown - there.early) - (begins[index] - shown)
        if abs(later) >= least:
            way = "later" if later > 0 else "earlier"
            yield f"audio stream {index} begins {_told(abs(later))} {way} beside the picture than it did"
    if there.early >= least:
        yield f"the first picture begins with the sound, {_told(there.early)} earlier than it did, and lasts until the second"


def _unhidden(reader: VideoReader, indices: list[int], begins: Mapping[int, Fraction], there: _Sounds, where: str) -> Iterator[str]:
    for index, begin, hidden in zip(indices, there.begins, there.hidden):
        start = Fraction(0) if begin is None else _hidden_before(reader, index, begins.get(index)) - hidden
        opus = codec_name(reader.container.streams[index]) in OPUS
        kept = there.hides_ends or (opus and there.ends_of_opus)
        end = Fraction(0) if kept else reader.hidden_at_end.get(index, Fraction(0))
        for verb, more in (("begins", start), ("ends", end)):
            if more >= NOTICED:
                yield f"audio stream {index} {verb} with {_told(more)} that are not to be heard, which {where} does not say"


def _sounds(reader: VideoReader, copied: tuple[int, ...], begins: Mapping[int, Fraction]) -> list[int]:
    """None where the packets of none were come by."""
    found = [index for index in copied if reader.container.streams[index].type == "audio"]
    return found if begins.keys() & set(found) else []


def _hidden_before(reader: VideoReader, index: int, begin: Fraction | None) -> Fraction:
    """Seconds of a stream that has packets from `begin` on before it is heard; 0 where FFmpeg looked at too little to know."""
    stream = reader.container.streams[index]
    heard = (stream.start_time or 0) * (stream.time_base or Fraction(0))
    return Fraction(0) if begin is None else max(Fraction(0), heard - begin)


def _sounds_of(reader: VideoReader, written: Path) -> _Sounds:
    with VideoReader(written) as output:
        output.set_aside(set())
        with suppress(VideoError):
            deque(islice(output.skim(), LOOKED_THROUGH), maxlen=0)
        sounds = [stream.index for stream in output.container.streams if stream.type == "audio"]
        begins = tuple(output.begins.get(index) for index in sounds)
        early = Fraction(0)
        if is_format(output.container, ALL_AT_ONCE):
            early = reader.info.first_pts * reader.info.time_base - common_start(reader, output.container)
        return _Sounds(
            begins=begins,
            hidden=tuple(_hidden_before(output, index, begin) for index, begin in zip(sounds, begins)),
            shown=output.info.first_pts * output.info.time_base,
            early=early,
            hides_ends=is_format(output.container, MATROSKA),
            ends_of_opus=is_format(output.container, MP4_LIKE),  # by the length of the last packet
        )


def _told(seconds: Fraction) -> str:
    return f"{float(seconds):.1f} s" if seconds >= 1 else f"{round(seconds * 1000)} ms"
