"""Video and pictures in one place: what other folders import, and the one guard before PyAV, which every file here needs."""

import os

from runtime.errors import MissingPackageError
from runtime.machine.requirements import requirement

try:
    import av  # noqa: F401
except ImportError as missing:
    raise MissingPackageError(requirement("av"), "reading and writing video") from missing

from runtime.video.format import Frame, Plane, VideoInfo
from runtime.video.reader import VideoReader
from runtime.video.still_pictures import read_luma, write_gray
from runtime.video.writer import VideoWriter

__all__ = ["Frame", "Plane", "VideoInfo", "VideoReader", "VideoWriter", "read_luma", "write_gray"]

os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 prints its settings otherwise
