"""Cover pictures: streams of one picture in MP4, attachments in Matroska; and why a picture stream is left out."""

from __future__ import annotations

from typing import Any

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream

from runtime.video.format import is_format

AS_STREAMS = {"mp4", "ipod", "psp", "f4v", "ismv"}  # muxers that write them into the metadata; mov and 3gp drop them in silence
AS_ATTACHMENTS = {"matroska"}  # webm holds none
KINDS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png"), "bmp": ("cover.bmp", "image/bmp")}


def is_cover(stream: Stream) -> bool:
    """Whether it is one picture beside the video."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def holds_as_stream(container: OutputContainer) -> bool:
    """Whether a cover's packet may be copied like sound."""
    return is_format(container, AS_STREAMS)


def attach(container: OutputContainer, stream: Stream, packets: list[av.Packet[Any]]) -> bool:
    """Whether the cover became an attachment; call it before the header is written."""
    if not packets or not is_format(container, AS_ATTACHMENTS) or stream.name not in KINDS:
        return False
    name, kind = KINDS[stream.name]
    attached = container.add_attachment(
        stream.metadata.get("filename", name), stream.metadata.get("mimetype", kind), bytes(packets[0])
    )
    title = stream.metadata.get("title")
    if title:
        attached.metadata["title"] = title
    return True


def why_left_out(stream: Stream, suffix: str) -> str:
    """The end of a note on a stream that is not in the output."""
    if stream.type == "video" and not is_cover(stream):
        return "one picture is deblurred, and another beside it would stay blurry"
    return f"{suffix} cannot hold it"
