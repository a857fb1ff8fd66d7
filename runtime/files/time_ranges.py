"""Times and ranges of a video as users write them: FFmpeg's time syntax, and files of named ranges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from runtime.errors import InputError

UNITS = {"": Fraction(1), "s": Fraction(1), "ms": Fraction(1, 1000), "us": Fraction(1, 1_000_000)}
SECONDS = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(s|ms|us)?", re.ASCII)
CLOCK = re.compile(r"(?:(\d{1,9}):)?([0-5]?\d):([0-5]?\d(?:\.\d{0,15})?)", re.ASCII)
SYNTAX = "seconds (83.5), [HH:]MM:SS.mmm (1:23.5), or a number of ms or us (83500ms)"
MOST_RANGES = 10_000  # of a file
COMMENTS = "#\\"  # what a line begins with that is no range


@dataclass(frozen=True)
class TimeRange:
    """A part of a video: the frames that are shown at `start` or later and before `end`."""

    start: Fraction = Fraction(0)  # seconds from the start of the file
    end: Fraction | None = None  # the same; None = its end
    name: str = ""

    def __post_init__(self) -> None:
        """Raises InputError where there is nothing between the two."""
        if self.end is not None and self.end <= self.start:
            raise InputError(f"{self.called} ends at {clock(self.end)} and begins at {clock(self.start)}, expected a later end")

    def __contains__(self, time: Fraction) -> bool:
        """Whether a frame that is shown `time` seconds after the start of the file belongs to it."""
        return self.start <= time and (self.end is None or time < self.end)

    @property
    def called(self) -> str:
        """Its name in a message."""
        return f"the range {self.name!r}" if self.name else "the part"

    def __str__(self) -> str:
        return f"{clock(self.start)} to {'the end' if self.end is None else clock(self.end)}"


def parse_time(text: str) -> Fraction:
    """Seconds, exactly, from FFmpeg's syntax of a duration: HH:MM:SS.mmm, MM:SS, 83.5, 83.5s, 500ms or 200us.

    Source: ffmpeg-utils(1), "Time duration". Raises InputError on anything else, negative times too.
    """
    if match := SECONDS.fullmatch(text):
        return Fraction(match[1]) * UNITS[match[2] or ""]
    if match := CLOCK.fullmatch(text):
        hours, minutes, seconds = (Fraction(each or 0) for each in match.groups())
        return (hours * 60 + minutes) * 60 + seconds
    raise InputError(f"got the time {text!r}, expected {SYNTAX}")


def time_range(start: str | None, end: str | None, length: str | None) -> TimeRange | None:
    """The part that --ss, --to and -t name; None where none is given. Raises InputError where they contradict each other."""
    if start is None and end is None and length is None:
        return None
    if end is not None and length is not None:
        raise InputError(f"got --to {end} and -t {length}, expected one of them: the end of the part, or its length")
    first = parse_time(start) if start is not None else Fraction(0)
    last = None if end is None else parse_time(end)
    if length is not None:
        last = first + parse_time(length)
    return TimeRange(first, last)


def read_ranges(path: Path) -> tuple[TimeRange, ...]:
    """Named ranges from a text file, in order, a line each: START END NAME, with blanks or tabs between, as Audacity's labels.

    The name may have blanks, or be left out; lines that are empty or begin with # do not count, nor those with a backslash, which
    are frequencies in Audacity's labels. Raises InputError, with the line,
    where the file cannot be read, a line is none, or two ranges overlap.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: {reason}, expected a text file with a line for each range: START END NAME") from error
    found = [_range(path, number, line) for number, line in enumerate(lines, 1) if line.strip() and line.strip()[0] not in COMMENTS]
    if not 1 <= len(found) <= MOST_RANGES:
        raise InputError(f"{path}: has {len(found)} ranges, expected 1 to {MOST_RANGES}, a line each: START END NAME")
    return in_order(found)


def in_order(ranges: Sequence[TimeRange]) -> tuple[TimeRange, ...]:
    """The ranges by their start. Raises InputError where two overlap."""
    ordered = tuple(sorted(ranges, key=lambda each: each.start))
    for earlier, later in zip(ordered, ordered[1:]):
        if earlier.end is None or later.start < earlier.end:
            raise InputError(
                f"{later.called} ({later}) begins within {earlier.called} ({earlier}): let one end where the next begins"
            )
    return ordered


def clock(seconds: Fraction) -> str:
    """A time as text, to the microsecond."""
    return f"{round(float(seconds), 6):.6f}".rstrip("0").rstrip(".") + " s"


def _range(path: Path, number: int, line: str) -> TimeRange:
    start, *rest = line.split(None, 2)
    try:
        if not rest:
            raise InputError(f"got {line.strip()!r}, expected START END NAME")
        return TimeRange(parse_time(start), parse_time(rest[0]), rest[1].strip() if len(rest) > 1 else "")
    except InputError as error:
        raise InputError(f"{path}: line {number}: {error}") from error
