"""`moved_sound`: whether sound begins as long before or behind the picture in an output as in its source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

from runtime.errors import VideoError
from runtime.video.reader import VideoReader

HEARD = Fraction(1, 10)  # seconds; less is the decoders' delay, of which containers tell in their own ways
LOOKED_THROUGH = 1000  # pictures of the output, for the first packets of all sound


def moved_sound(reader: VideoReader, copied: tuple[int, ...], starts: Mapping[int, Fraction], written: Path) -> Iterator[str]:
    """A line for each stream of sound that was; of those `copied`, by their indices in the source, and when each `starts` there."""
    shown = reader.info.first_pts * reader.info.time_base
    sounds = [index for index in copied if reader.container.streams[index].type == "audio"]
    if not starts.keys() & set(sounds):
        return
    there, shown_there = _starts_in(written)
    for index, start in zip(sounds, there):
        if start is None or index not in starts:
            continue
        later = (start - shown_there) - (starts[index] - shown)
        if abs(later) > HEARD:
            way = "later" if later > 0 else "earlier"
            yield f"audio stream {index} begins {float(abs(later)):.1f} s {way} beside the picture than it did"


def _starts_in(written: Path) -> tuple[list[Fraction | None], Fraction]:
    """When the sounds of a file begin, in seconds, and its picture."""
    with VideoReader(written) as output:
        output.set_aside(set())
        with suppress(VideoError):
            deque(islice(output.skim(), LOOKED_THROUGH), maxlen=0)
        sounds = [stream.index for stream in output.container.streams if stream.type == "audio"]
        return [output.starts.get(index) for index in sounds], output.info.first_pts * output.info.time_base
