"""Pictures beside the coded one, of its alpha or another eye: which decoder sees those of WebM; none does in H.264 and HEVC."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import av

from runtime.errors import VideoError
from runtime.video.format import ffmpeg_line
from runtime.video.units import SIZE_AT, kind_of, size_of_sizes, units_of

SEEING = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # decoders that do, by the name of the usual one
BESIDE: Literal["matroska_block_additional"] = "matroska_block_additional"  # the number of the addition, and its bytes
ALPHA = 1  # its number
BESIDE_OF_H264 = {19, 20}  # units of an auxiliary picture, as alpha, and of another view (ITU-T H.264, table 7-1)


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
    units = units_of(bytes(packet), size_of_sizes(codec, decoder.extradata))
    if codec == "h264":
        return {kind_of(codec, unit) for unit in units} & BESIDE_OF_H264
    return {(unit[0] & 1) << 5 | unit[1] >> 3 for unit in units if len(unit) > 1} - {0}
