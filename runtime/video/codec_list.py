"""What this PyAV can read and write, for `videodeblur doctor`."""

from __future__ import annotations

from typing import Any

import av

from runtime.encoder_options import DEFAULT_CQ, DEFAULT_CRF

ENCODERS = (*DEFAULT_CRF, "ffv1", "prores_ks", "png", *DEFAULT_CQ)
DECODERS = ("h264", "hevc", "av1", "libdav1d", "vp9", "mpeg2video", "prores", "ffv1", "mjpeg", "png")


def describe() -> dict[str, Any]:
    """The versions, and which of ENCODERS and DECODERS are built in. NVENC is in most builds, and needs a GPU all the same."""
    return {
        "version": av.__version__,
        "ffmpeg": getattr(av, "ffmpeg_version_info", "?"),  # not in old versions
        "encoders": [name for name in ENCODERS if _has(name, "w")],
        "decoders": [name for name in DECODERS if _has(name, "r")],
    }


def _has(name: str, mode: Any) -> bool:
    try:
        av.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True
