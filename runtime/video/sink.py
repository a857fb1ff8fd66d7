"""`Sink`: a file that PyAV writes to from its first byte on; of what goes down a pipe it keeps the start, to be read again."""

from __future__ import annotations

import select
from fractions import Fraction
from typing import BinaryIO, cast


class Sink:
    """Writes to an open `file` without a buffer, and keeps the first bytes, `kept` or fewer.

    Into the first line of y4m it puts the sample `aspect` ratio, which PyAV has no way to tell the muxer.
    """

    def __init__(self, file: BinaryIO, aspect: Fraction | None = None, kept: int = 0) -> None:
        self.start = bytearray()
        self._file, self._aspect, self._kept = file, aspect, kept

    def write(self, data: bytes) -> int:
        """All of it, however little a pipe takes at a time; returns the length of `data`."""
        given = bytes(data)
        if self._aspect and given.startswith(b"YUV4MPEG2"):
            known = f" A{self._aspect.numerator}:{self._aspect.denominator}".encode()
            line, end, rest = given.partition(b"\n")
            given, self._aspect = line.replace(b" A0:0", known) + end + rest, None
        self.start += given[: max(0, self._kept - len(self.start))]
        left = memoryview(given)
        while left:
            written = cast("int | None", self._file.write(left))
            if written is None:  # a pipe that is full, and that whoever made it does not let wait
                select.select([], [self._file], [])
            left = left[written or 0 :]
        return len(data)
