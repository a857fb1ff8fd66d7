"""`parts_of_iamf`: streams that are parts of immersive sound (IAMF, AOMedia), which FFmpeg has as a group, and PyAV as loose ones.

Copied by themselves they would be loose for good: sound of some loudspeakers here, of others there, without how to mix them.
"""

from __future__ import annotations

from runtime.video.boxes import boxes_in, inside, tracks_in
from runtime.video.format import MP4_LIKE, is_format
from runtime.video.reader import VideoReader

DESCRIPTION = (b"mdia", b"minf", b"stbl", b"stsd")
IAMF, COUNTED = b"iamf", 8  # the description's name; bytes in front of the first
NAMED = "handler_name"  # which FFmpeg gives to tracks, but not to these parts


def parts_of_iamf(reader: VideoReader) -> set[int]:
    """Their indices in the file."""
    if not is_format(reader.container, MP4_LIKE) or not reader.path.is_file():
        return set()
    with reader.path.open("rb") as file:
        descriptions = (inside(file, track, DESCRIPTION) for track in tracks_in(file))
        there = any(each.kind == IAMF for box in descriptions for each in boxes_in(file, box.start + COUNTED, box.end))
    sounds = reader.container.streams.audio
    return {stream.index for stream in sounds if NAMED not in stream.metadata} if there else set()
