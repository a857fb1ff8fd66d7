"""What the video files share: `VideoInfo`, `Frame`, planes as numpy views, and FFmpeg's own words."""

from __future__ import annotations

import ctypes
import gc
import shlex
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer, OutputContainer
from av.dictionary import Dictionary
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Stream
from av.video.stream import VideoStream

from runtime.errors import VideoError
from runtime.video.hdr import Hdr

Plane = npt.NDArray[Any]  # (H, W) uint8, or uint16 above 8 bits

NOT_STATED, LIMITED, FULL = 0, 1, 2  # of AVColorRange
FALLBACK_RATE = 25  # frames per second, FFmpeg's own guess for raw streams without times
UNNAMED = {28: "LCEVC", 29: "VIEW_ID", 30: "3D_REFERENCE_DISPLAYS", 31: "EXIF"}  # side data of FFmpeg 8, not in PyAV's list
ERROR, INFO = av.logging.ERROR, av.logging.INFO  # of FFmpeg's log; higher ones say more
UNKNOWN_CODEC = "unknown codec"
MP4_LIKE = {"mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v"}  # muxers with edit lists and a movie timescale
WITH_A_CLOCK = {"mpegts", "mpeg"}  # formats whose times are those of a clock, whatever it does


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its picture."""

    width: int  # pixels as coded, before rotation and sample aspect ratio
    height: int
    pixel_format: str  # FFmpeg's name
    bits: int  # of a sample, 8 to 16
    rgb_bits: int | None  # of the samples in the file where they are RGB, which is read as yuv444p16le; else None
    chroma_step: int  # luma columns per column of chroma: 2 for 4:2:0 and 4:2:2, 1 for 4:4:4 and gray
    color_range: str  # "limited" or "full"; full where the file does not say and the format is yuvj* or gray, else limited
    color_tags: tuple[int, int, int, int]  # range, matrix, primaries and transfer as stated, FFmpeg's numbers
    codec: str  # FFmpeg's name of the decoder
    time_base: Fraction  # seconds, the unit of every pts and duration
    first_pts: int  # of the first frame, in time_base
    frame_rate: Fraction | None  # frames per second on average; the frames may come at any time
    frames: int | None  # as the container counts them; None when it does not
    duration: float | None  # seconds
    sample_aspect_ratio: Fraction | None  # width to height of a pixel
    rotation: int  # degrees counter-clockwise, for display
    display_matrix: tuple[int, ...] | None  # FFmpeg's 3 x 3 matrix behind `rotation`, with flips
    hdr: Hdr  # static metadata of the first frame
    side_data: frozenset[str]  # what else FFmpeg knows of the first frame, such as "MASTERING_DISPLAY_METADATA"
    signed: bool  # whether the first frame has its encoder's signature beside it

    @property
    def expected_frames(self) -> int | None:
        """Counted by the container, or else estimated from duration and rate: good for a progress bar."""
        if self.frames or not self.duration or not self.frame_rate:
            return self.frames
        return max(1, round(self.duration * self.frame_rate))


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame. The planes are read-only views of the decoder's memory, which lives as long as they do."""

    luma: Plane  # (H, W)
    chroma: tuple[Plane, ...]  # the other planes: none for gray, U and V, alpha last where there is one
    number: int  # from 0, in order of display
    pts: int  # when it is shown, in VideoInfo.time_base
    duration: int  # until the next one is shown, in VideoInfo.time_base
    decoded: av.VideoFrame  # the owner of the planes
    starts_scene: bool = False  # where a cut is known, see scene_cuts
    passed: bool = False  # left as it is, since it lies in no range that is to be deblurred, see part
    starts_segment: bool = False  # where a resumable run begins a new file, see segments


def plane_of(frame: av.VideoFrame, index: int) -> Plane:
    """A plane (H, W) without its stride padding, as memory of the frame."""
    plane = frame.planes[index]
    samples = np.frombuffer(memoryview(plane), np.uint8 if frame.format.components[0].bits == 8 else np.uint16)
    return samples.reshape(plane.height, -1)[:, : plane.width]


def packets_from_here(container: InputContainer, *streams: Stream) -> Iterator[av.Packet[Any]]:
    """From where the container is, to its end, of these streams or all. Raises VideoError there where one of them came late:
    PyAV knows those that FFmpeg knew at the beginning, leaves out packets of others, and stumbles over their number at the end.
    """
    try:
        yield from container.demux(*streams)
    except IndexError as error:
        raise VideoError(
            f"{container.name}: a stream begins late in it, where it is not looked for, expected all of them near its start:"
            " cut it there into two files, or give the file's name if it is a pipe"
        ) from error


def frames_from_here(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Decodes from where the container is, to its end; a packet without a byte, which repeats a picture, does not end it."""
    for packet in packets_from_here(container, stream):
        if packet.size:
            yield from stream.decode(packet)
    yield from stream.decode(None)


def side_data_of(frame: av.VideoFrame) -> Iterable[SideData]:
    """Side data, one by one.

    PyAV 18 frees the dictionary of a piece of side data, such as the name of a PNG's ICC profile, which FFmpeg then frees with the
    frame: a segmentation fault. So Python never lets go of one that holds something.
    """
    found = list(cast("Iterable[SideData]", frame.side_data))  # its stub calls it a dictionary
    for held in gc.get_referents(*found):
        if isinstance(held, Dictionary) and len(held):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    return found


def _unknown_type(kinds: type[SideDataType], number: int) -> SideDataType:
    """A member for a type that PyAV's enumeration has not, so that one of it in a frame does not hide all the others."""
    kind: Any = object.__new__(kinds)
    kind._name_, kind._value_ = UNNAMED.get(number, f"type {number}"), number
    return cast("SideDataType", kinds._value2member_map_.setdefault(number, kind))


SideDataType._missing_ = classmethod(_unknown_type)  # type: ignore[assignment]  # asked by Enum for unknown values


def codec_name(stream: Stream) -> str:
    """FFmpeg's name; "unknown codec" where it has no decoder, and PyAV no name."""
    return getattr(stream, "name", None) or UNKNOWN_CODEC


def ffmpeg_line(path: Path, changes: str, target: str) -> str:
    """A command that a shell takes as it is: the picture changed, the sound copied."""
    return f"ffmpeg -i {shlex.quote(str(path))} {changes} -c:a copy {target}"


def is_format(container: InputContainer | OutputContainer, formats: set[str]) -> bool:
    """Whether the container is one of these formats, by FFmpeg's short names."""
    return bool(formats & set(container.format.name.split(",")))


def has_flag(container: InputContainer | OutputContainer, flag: Any) -> bool:
    """Whether the container's format has this one of av.format.Flags."""
    return bool(container.format.flags & flag.value)


def is_encrypted(packet: av.Packet[Any]) -> bool:
    """As CENC has it, which nothing here decrypts."""
    return packet.has_sidedata("encryption_info")


@contextmanager
def ffmpeg_says(said: list[str], level: int = ERROR, of: str = "") -> Iterator[None]:
    """Collects FFmpeg's log: the reason behind its errors, which say no more than 'Invalid argument', or more than that.

    Of all its parts, or those of one name, as "h264". It is the process's: where several threads listen at a time, each hears the
    others' too.
    """
    log, heard = _LISTENERS.begin(level)
    try:
        yield
    finally:
        said += [text.strip() for severity, name, text in log[heard:] if severity <= level and text.strip() and of in ("", name)]
        _LISTENERS.end()


class _Listeners:
    """One capture for all that listen at a time: PyAV's own, and the levels, are put back in the order in which they were taken."""

    def __init__(self) -> None:
        self._lock, self._count, self._level = threading.Lock(), 0, ERROR
        self._log: list[tuple[int, str, str]] = []
        self._left = ExitStack()

    def begin(self, level: int) -> tuple[list[tuple[int, str, str]], int]:
        """The log, and how long it is; it has all up to the highest level that is asked for at a time."""
        with self._lock:
            self._level = max(level, self._level if self._count else level)
            if not self._count:
                self._left.callback(av.logging.set_level, av.logging.get_level())
                self._left.callback(av.logging.set_skip_repeated, av.logging.get_skip_repeated())
                av.logging.set_skip_repeated(False)  # two broken files may be broken alike
                capture = av.logging.Capture(local=False)
                self._log = capture.__enter__()
                self._left.callback(capture.__exit__, None, None, None)
            av.logging.set_level(self._level)
            self._count += 1
            return self._log, len(self._log)

    def end(self) -> None:
        """The last one leaves all as the first one found it."""
        with self._lock:
            self._count -= 1
            if not self._count:
                self._left.close()


_LISTENERS = _Listeners()
