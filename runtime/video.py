"""Video and pictures in one place: what other folders import."""

from runtime.still_pictures import read_luma, write_gray
from runtime.video_format import Frame, Plane, VideoInfo
from runtime.video_reader import VideoReader
from runtime.video_writer import VideoWriter

__all__ = ["Frame", "Plane", "VideoInfo", "VideoReader", "VideoWriter", "read_luma", "write_gray"]
