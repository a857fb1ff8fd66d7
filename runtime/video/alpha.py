"""Pictures beside the coded one, of its alpha or another eye: which decoder sees those of WebM; none does in H.264 and HEVC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import av

from runtime.errors import VideoError
from runtime.video.format import ffmpeg_line

SEEING = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # decoders that do, by the name of the usual one
BESIDE: Literal["matroska_block_additional"] = "matroska_block_additional"  # the number of the addition, and its bytes
ALPHA = 1  # its number
SIZED = b"\1"  # how settings begin where units have their size before them
SIZE_AT = {"hevc": 21, "h264": 4}  # the place in them that says of how many bytes it is
BESIDE_OF_H264 = {19, 20}  # units of an auxiliary picture, as alpha, and of another view (ITU-T H.264, table 7-1)
START_CODE = re.compile(rb"\x00\x00\x01(..)", re.DOTALL)  # and the two bytes of a unit's header, ITU-T H.265, 7.3.1.2


def decoder_for(stream: av.VideoStream) -> av.VideoCodecContext:
    """The stream's own, or one that sees the alpha that the container speaks of."""
    codec = stream.codec_context
    with suppress(KeyError, av.codec.codec.UnknownCodecError):
        if "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE")):
            seeing = av.CodecContext.create(SEEING[codec.name], "r")
            seeing.extradata = codec.extradata
            return cast("av.VideoCodecContext", seeing)
    return codec


def check_alpha(path: Path, packet: av.Packet[Any], decoder: av.VideoCodecContext) -> None:
    """Raises VideoError when the packet has alpha beside it that the decoder passes over."""
    if decoder.name in SEEING.values() or not packet.has_sidedata(BESIDE):
        return
    if int.from_bytes(bytes(packet.get_sidedata(BESIDE))[:8], "big") == ALPHA:
        raise VideoError(
            f"{path}: has transparency, which the decoder {decoder.name} does not see, expected one that does: leave it out first,"
            f" for example {ffmpeg_line(path, '-c:v ffv1', 'opaque.mkv')}"
        )


def layers_of(packet: av.Packet[Any], decoder: av.VideoCodecContext) -> set[int]:
    """What a packet holds beside the picture that is decoded: layers of HEVC (nuh_layer_id), kinds of units of H.264."""
    codec = decoder.codec.canonical_name
    if codec not in SIZE_AT:
        return set()
    heads = _unit_heads(bytes(packet), decoder.extradata or b"", SIZE_AT[codec])
    if codec == "h264":
        return {head[0] & 0x1F for head in heads} & BESIDE_OF_H264
    return {(head[0] & 1) << 5 | head[1] >> 3 for head in heads} - {0}


def _unit_heads(data: bytes, settings: bytes, size_at: int) -> Iterator[bytes]:
    if not settings.startswith(SIZED) or len(settings) <= size_at:
        yield from START_CODE.findall(data)
        return
    size, at = (settings[size_at] & 3) + 1, 0
    while at + size + 2 <= len(data):
        yield data[at + size : at + size + 2]
        at += size + int.from_bytes(data[at : at + size], "big")
