"""`units_of`: the units of a coded picture of H.264 or HEVC, which have their size in front or a start code (ITU-T H.264, annex B).

A unit's first bytes say what it is: `kind_of` (H.264, 7.3.1; H.265, 7.3.1.2).
"""

from __future__ import annotations

from collections.abc import Iterator

SIZED = b"\1"  # how settings begin where units have their size before them
SIZE_AT = {"hevc": 21, "h264": 4}  # the place in them that says of how many bytes it is, less one
START = b"\x00\x00\x01"  # before every unit of a stream in Annex B's form


def size_of_sizes(codec: str, settings: bytes | None) -> int:
    """Bytes of the size in front of a unit, as the settings (extradata) of a stream say; 0 where there are start codes instead."""
    at = SIZE_AT[codec]
    return (settings[at] & 3) + 1 if settings and settings.startswith(SIZED) and len(settings) > at else 0


def units_of(data: bytes, size: int) -> Iterator[memoryview]:
    """Those of a packet; `size` as `size_of_sizes` tells it."""
    view = memoryview(data)
    if size:
        at = 0
        while at + size < len(data):
            begin, length = at + size, int.from_bytes(data[at : at + size], "big")
            if length:
                yield view[begin : begin + length]
            at = begin + length
        return
    begin = data.find(START) + len(START)
    while begin >= len(START):
        end = data.find(START, begin)
        if unit := view[begin : end if end >= 0 else None]:
            yield unit
        begin = end + len(START)


def kind_of(codec: str, unit: memoryview) -> int:
    """nal_unit_type."""
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F
