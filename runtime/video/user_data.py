"""User data that cameras and broadcasters put on every picture of H.264 and HEVC (SEI), such as times after MISB ST 0604.

Encoders sign in the same place, which says nothing of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import av
from av.sidedata.sidedata import SideData

from runtime.video.format import VideoInfo, side_data_of

USER_DATA = "SEI_UNREGISTERED"  # FFmpeg's name; its first bytes tell whose it is
WHOSE = 16  # bytes
SIGNATURES = {  # of encoders
    bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef"),  # x264
    bytes.fromhex("2ca2de09b51747dbbb55a4fe7fc2fc4e"),  # x265
}
KEEPING, OPTION = "libx264", "udu_sei"  # an encoder, and its option that writes them; libx265's puts its own name before them
REMEDY = f"{USER_DATA} (user data of the pictures: -c {KEEPING} -e {OPTION}=1 keeps it)"


def is_signature(data: SideData) -> bool:
    """Whether user data is an encoder's signature."""
    return bytes(data)[:WHOSE] in SIGNATURES


def has_signature(frame: av.VideoFrame) -> bool:
    """Whether a frame has one beside it."""
    return any(data.type.name == USER_DATA and is_signature(data) for data in side_data_of(frame))


def with_user_data(codec: str, options: Mapping[str, str], info: VideoInfo) -> dict[str, str]:
    """The encoder's options, with one more where it keeps user data that the first frame has, unless the user's say it.

    Not where the first frame is signed too: the signature would be kept as well, and decoders that read it take the output for
    the work of another version of the encoder.
    """
    wanted = codec == KEEPING and USER_DATA in info.side_data and not info.signed
    return {**({OPTION: "1"} if wanted else {}), **options}
