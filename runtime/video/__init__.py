"""Video and pictures in one place: what other folders import."""

from runtime.video.format import Frame, Plane, VideoInfo
from runtime.video.reader import VideoReader
from runtime.video.still_pictures import read_luma, write_gray
from runtime.video.writer import VideoWriter

__all__ = ["Frame", "Plane", "VideoInfo", "VideoReader", "VideoWriter", "read_luma", "write_gray"]
