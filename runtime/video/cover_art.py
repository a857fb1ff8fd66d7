"""Cover pictures: streams of one picture in MP4, attachments in Matroska; and why a picture stream is left out."""

from __future__ import annotations

from typing import Any

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream

from runtime.video.format import codec_name

AS_STREAMS = {"mp4", "ipod", "psp", "f4v", "ismv"}  # muxers that write them into the metadata; mov and 3gp drop them in silence
AS_ATTACHMENTS = {"matroska"}  # webm holds none
KINDS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png"), "bmp": ("cover.bmp", "image/bmp")}


def is_cover(stream: Stream) -> bool:
    """Whether it is one picture beside the video."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def holds_as_stream(container: str) -> bool:
    """Whether a cover's packet may be copied like sound in a container that FFmpeg calls so."""
    return container in AS_STREAMS


def holds_as_attachment(container: str, stream: Stream) -> bool:
    """Whether this cover can be an attachment there."""
    return is_cover(stream) and container in AS_ATTACHMENTS and codec_name(stream) in KINDS


def attach(container: OutputContainer, stream: Stream, packet: av.Packet[Any]) -> None:
    """Makes the cover an attachment; call it before the header is written."""
    name, kind = KINDS[codec_name(stream)]
    attached = container.add_attachment(stream.metadata.get("filename", name), stream.metadata.get("mimetype", kind), bytes(packet))
    title = stream.metadata.get("title")
    if title:
        attached.metadata["title"] = title


def why_left_out(stream: Stream, suffix: str) -> str:
    """The end of a note on a stream that is not in the output."""
    if stream.type == "video" and not is_cover(stream):
        return "one picture is deblurred, and another beside it would stay blurry"
    return (
        f"{suffix} as PyAV writes it cannot hold covers: an .mp4 or .mkv does" if is_cover(stream) else f"{suffix} cannot hold it"
    )
