"""`messages_of`: what coded pictures say beside their samples in places that FFmpeg reads over.

They are the messages (SEI) of H.264 and HEVC (ITU-T H.274, H.264 annex D, H.265 annex D), units and metadata of kinds that no
standard names, metadata of AV1 (AV1 specification, 5.8), and user data and extensions of MPEG-2 (ISO/IEC 13818-2, 6.3.4). What
FFmpeg hands on as side data, and what is of no concern once the pictures are decoded, is not among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import av

from runtime.video.units import SIZE_AT, START, kind_of, size_of_sizes, units_of

MESSAGES = {"h264": {6}, "hevc": {39, 40}}  # kinds of units, by the codec's name
HEADER = {"h264": 1, "hevc": 2}  # bytes of a unit
UNNAMED = {"h264": {*range(22, 32)}, "hevc": {*range(41, 64)} - {62}}  # kinds of units; 62 is Dolby Vision's, which FFmpeg reads
OF_CODING = {
    *{0, 1, 3, 16, 17, 18, 20, 22, 139, 143, 145, 146, 200},
    *(number for first, last in ((6, 12), (24, 44), (128, 134), (157, 161)) for number in range(first, last + 1)),
}
HANDED_ON = {"h264": {5, 19, 45, 47, 137, 144, 147, 148}, "hevc": {5, 19, 45, 47, 136, 137, 144, 147, 148, 176}}
REGISTERED = 4  # by a maker with ITU-T, which tells itself by its first bytes (T.35)
IN_WORDS = {
    **{2: "pan-scan", 13: "freeze", 14: "end of a freeze", 15: "snapshot", 21: "stereo", 23: "tone mapping", 46: "view position"},
    **{56: "green metadata", 138: "packed frames", 140: "chroma filter", 141: "knee function", 142: "colour remapping"},
    **{149: "content colour volume", 150: "equirectangular projection", 151: "cube map", 152: "fisheye", 154: "sphere rotation"},
    **{155: "regions of a sphere", 156: "view of a sphere", 165: "alpha", 177: "depth", 179: "depth", 181: "depth"},
    **{202: "marked regions", 205: "shutter interval"},
}
CAPTIONS, ASPECT = b"\xb5\x00\x31GA94\x03", b"\xb5\x00\x31DTG1"  # of ATSC A/53, which FFmpeg reads
LCEVC, DOLBY_VISION = b"\xb4\x00\x50", b"\xb5\x00\x3b\x00\x00\x08\x00"
BARS, HDR_PLUS, VIVID = b"\xb5\x00\x31GA94\x06", b"\xb5\x00\x3c\x00\x01\x04", b"\x26\x00\x04\x00\x05"
REGISTERED_READ = {
    "h264": (CAPTIONS, ASPECT, LCEVC),
    "hevc": (CAPTIONS, ASPECT, LCEVC, HDR_PLUS, VIVID),
    "av1": (CAPTIONS, ASPECT, HDR_PLUS, DOLBY_VISION),
}
REGISTERED_WORDS = {BARS: "bar data", HDR_PLUS: "HDR10+", VIVID: "HDR Vivid"}
SHOWN = 8  # bytes of others
EMULATION = b"\x00\x00\x03"  # with a byte that keeps a start code from appearing in a unit
OBU, OBU_METADATA = "av1", 5
OF_AV1 = {3: None, 5: "timecode"}  # kinds of its metadata beside registered ones and what FFmpeg hands on; the first is of coding
AV1_HANDED_ON, AV1_REGISTERED = {1, 2}, 4
MPEG2, USER_DATA, EXTENSION = "mpeg2video", b"\xb2", b"\xb5"
OF_MPEG2 = re.compile(rb"\x00\x00\x01([\xb2\xb5])(?=(.{1,8}))", re.DOTALL)
MPEG2_READ = (b"GA94\x03", b"DTG1", b"CC\x01", b"\x03\x01")  # user data: the last two of DVDs and of SCTE 20
EXTENSIONS = {4: "copyright"}  # by number; the others are of coding, or side data, or in the settings of the stream


def messages_of(packet: av.Packet[Any], decoder: av.VideoCodecContext) -> set[str]:
    """Names of what a packet of the picture says that the output of an encoder will not."""
    codec = decoder.codec.canonical_name
    if codec in SIZE_AT:
        return set(_of_units(codec, bytes(packet), size_of_sizes(codec, decoder.extradata)))
    if codec == OBU:
        return set(_of_av1(bytes(packet)))
    return set(_of_mpeg2(bytes(packet))) if codec == MPEG2 else set()


def _of_units(codec: str, data: bytes, size: int) -> Iterator[str]:
    for unit in units_of(data, size):
        kind = kind_of(codec, unit)
        if kind in UNNAMED[codec]:
            yield f"unit {kind}"
        if kind in MESSAGES[codec]:
            for number, content in _messages_in(bytes(unit[HEADER[codec] :]).replace(EMULATION, EMULATION[:2])):
                if number == REGISTERED:
                    yield from _registered(codec, content)
                elif number not in OF_CODING | HANDED_ON[codec]:
                    yield f"{number} ({IN_WORDS[number]})" if number in IN_WORDS else str(number)


def _messages_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(payloadType, content); ITU-T H.264, 7.3.2.3.1."""
    at = 0
    while at + 2 < len(data):  # the last byte ends the unit
        numbers = []
        for _ in range(2):
            number = 0
            while at < len(data) and data[at] == 0xFF:
                number, at = number + 0xFF, at + 1
            numbers.append(number + int.from_bytes(data[at : at + 1], "big"))
            at += 1
        if at + numbers[1] < len(data):
            yield numbers[0], data[at : at + numbers[1]]
        at += numbers[1]


def _registered(codec: str, content: bytes) -> Iterator[str]:
    if not content.startswith(REGISTERED_READ[codec]):
        known = next((word for start, word in REGISTERED_WORDS.items() if content.startswith(start)), content[:SHOWN].hex())
        yield f"T.35 ({known})"


def _of_av1(data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1  # extension
        size, at = _leb128(data, at) if head & 2 else (len(data) - at, at)
        if head >> 3 & 15 == OBU_METADATA:
            number, begin = _leb128(data, at)
            if number == AV1_REGISTERED:
                yield from _registered(OBU, data[begin : at + size])
            elif number not in AV1_HANDED_ON and (word := OF_AV1.get(number, "unnamed")):
                yield f"{number} ({word})"
        at += size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number, and the place behind it; AV1 specification, 4.10.5."""
    value = 0
    for place, byte in enumerate(data[at : at + 8]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    return value, len(data)


def _of_mpeg2(data: bytes) -> Iterator[str]:
    for kind, content in OF_MPEG2.findall(data):
        if kind == USER_DATA and not content.startswith(MPEG2_READ):
            yield f"user data {content.partition(START)[0].hex()}"
        elif kind == EXTENSION and (name := EXTENSIONS.get(content[0] >> 4)):
            yield f"extension {name}"
