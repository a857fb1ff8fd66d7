"""`facts_of`: what a picture file says beside its samples, by name, from its own structure: FFmpeg hides some of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

EXIF, ICC, DPI, TEXT = "EXIF", "ICC_PROFILE", "DPI", "text"  # the first two as FFmpeg calls them
PNG, RIFF, JPEG = b"\x89PNG\r\n\x1a\n", b"RIFF", b"\xff\xd8"
HEAD, MOST = 12, 256 << 20  # bytes, of which the first tell the kind
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # with the order of bytes
COLOURS = "cICP"  # which FFmpeg reads as the video's colour tags
OF_CHUNKS = {
    **{b"iCCP": ICC, b"ICCP": ICC, b"eXIf": EXIF, b"EXIF": EXIF, b"XMP ": "XMP"},
    **{b"gAMA": "gAMA", b"cHRM": "cHRM", b"cICP": COLOURS, b"tEXt": TEXT, b"zTXt": TEXT, b"iTXt": TEXT},
}
OF_SEGMENTS = {
    **{(0xE1, b"Exif"): EXIF, (0xE1, b"http://ns.adobe.com/xap"): "XMP", (0xE2, b"ICC_PROFILE"): ICC},
    **{(0xED, b"Photoshop"): "IPTC", (0xFE, b""): TEXT},
}
OF_TAGS = {34665: EXIF, 34675: ICC, 700: "XMP", 33723: "IPTC", 270: TEXT, 315: TEXT, 33432: TEXT}
RESOLUTION, UNIT, NO_UNIT = 282, 296, 1  # tags of TIFF
METRES = b"\1"  # the last byte of a PNG's pHYs where it is a resolution, not a shape
START_OF_SCAN, JFIF, JFIF_UNIT = 0xDA, (0xE0, b"JFIF"), 7
CMYK = "CMYK"  # inks, of which decoders make RGB
START_OF_FRAME, COMPONENTS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, 5  # markers of JPEG; the place of their number there
PHOTOMETRIC, SEPARATED = 262, 5  # tag of TIFF, and its value for inks
SIGNATURE = b"Lavc"  # FFmpeg's own, as a comment


def facts_of(path: Path) -> set[str]:
    """Names such as "EXIF", "ICC_PROFILE", "gAMA", "DPI", "CMYK" of a PNG, JPEG, TIFF or WebP; none of others and broken ones."""
    with suppress(OSError, struct.error, IndexError):
        with path.open("rb") as file:
            head = file.read(HEAD)
            if not (head.startswith((PNG, JPEG)) or (head[:4], head[8:]) == (RIFF, b"WEBP") or head[:4] in TIFF):
                return set()
            data = head + file.read(MOST)
        if data.startswith(PNG):
            return set(_of_png(data))
        if data.startswith(JPEG):
            return set(_of_jpeg(data))
        if data.startswith(RIFF):
            return set(_of_webp(data))
        if data[:4] in TIFF:
            return set(_of_tiff(data, TIFF[data[:4]]))
    return set()


def _of_png(data: bytes) -> Iterator[str]:
    place = len(PNG)
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if name in OF_CHUNKS:
            yield OF_CHUNKS[name]
        if name == b"pHYs" and data[place + 16 : place + 17] == METRES:
            yield DPI
        place += size + 12


def _of_webp(data: bytes) -> Iterator[str]:
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        if name in OF_CHUNKS:
            yield OF_CHUNKS[name]
        place += 8 + size + size % 2


def _of_jpeg(data: bytes) -> Iterator[str]:
    place = len(JPEG)
    while place + 4 <= len(data) and data[place + 1] != START_OF_SCAN:
        marker, size = struct.unpack_from(">xBH", data, place)
        content = data[place + 4 : place + 2 + size]
        for (kind, start), name in OF_SEGMENTS.items():
            if kind == marker and content.startswith(start) and not content.startswith(SIGNATURE):
                yield name
        if marker == JFIF[0] and content.startswith(JFIF[1]) and content[JFIF_UNIT]:
            yield DPI
        if marker in START_OF_FRAME and content[COMPONENTS] == len(CMYK):
            yield CMYK
        place += 2 + size


def _of_tiff(data: bytes, order: str) -> Iterator[str]:
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    tags = {}
    for number in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHI2s", data, place + 2 + 12 * number)
        tags[tag] = struct.unpack(f"{order}H", value)[0]
    for tag in tags:
        if tag in OF_TAGS:
            yield OF_TAGS[tag]
    if RESOLUTION in tags and tags.get(UNIT) != NO_UNIT:
        yield DPI
    if tags.get(PHOTOMETRIC) == SEPARATED:
        yield CMYK
