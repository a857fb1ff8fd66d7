"""`VideoReader`: the frames of a video file with PyAV, planes as numpy views.

Pixels stay YUV from end to end: luma is what the network sees, the other planes are kept bit by bit, and no frame is rotated,
scaled or converted. Served are planar YUV (4:2:0, 4:2:2, 4:4:4 and rarer ones, with or without alpha) and gray, 8 to 16 bits.
RGB, palettes and semi-planar layouts (nv12, which files do not hold) are refused, and so is interlaced video.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from runtime.errors import InputError, VideoError
from runtime.pixels import rgb
from runtime.video.format import (
    FALLBACK_RATE,
    FULL,
    MP4_LIKE,
    NOT_STATED,
    Frame,
    VideoInfo,
    is_format,
    plane_of,
    side_data_of,
)
from runtime.video.hdr import Hdr
from runtime.video.sources import open_source

WIDE = 64  # pixels, divisible by every chroma subsampling
CONTAINER_CLOCK = 1_000_000  # ticks per second of a container's duration
CUT_OFF = Fraction(1, 2)  # seconds; a Matroska file that ends this much before its header says was cut off
PICTURE_RATE = Fraction(25)  # frames per second, as FFmpeg takes pictures
SAME_RATE = Fraction(2, 100)  # by which a short file's average is off the rate that its frames have
MOST_AVERAGE, MOST_FRAMES = 70, 210  # frames per second; FFmpeg's bounds for an average that is one and a rate that is none
BT601 = 6  # of AVColorSpace
BIG_ENDIAN = {f"gray{bits}be": f"gray{bits}le" for bits in (10, 12, 16)}
SEEK_EARLY = (0, 1, 4)  # seconds; formats without an index are sought by times of decoding, and often end up behind the keyframe
RGB_BITS = {"rgb24": 8, "bgr24": 8, "bgr0": 8, "rgb0": 8, "pal8": 8, "gbrp": 8, "rgb48be": 16, "rgb48le": 16}
NOT_OF_THE_PICTURE = {"DISPLAYMATRIX", "SEI_UNREGISTERED"}  # side data told elsewhere, and the encoder's signature


class VideoReader:
    """The frames of a video file, once, in order of display; a context manager.

    `path` may also be "-" for standard input, a numbered sequence of pictures (%05d.png) or a folder of them, shown at `rate`
    frames per second. `limit` ends the video after so many frames; with `salvage` a video that breaks off ends there, and a note
    says so. Raises VideoError when the file is missing, is no video, is of
    a kind that is not served, breaks off or is broken; the message names the file and the frame.
    """

    def __init__(
        self, path: str | os.PathLike[str], limit: int | None = None, rate: Fraction = PICTURE_RATE, salvage: bool = False
    ) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"the limit is {limit} frames, expected 1 or more")
        self.path, self.limit, self._salvage = Path(path), limit, salvage
        self._copied: set[int] | None = None  # streams whose packets are set aside; None = all, until that is decided
        self._packets: dict[int, deque[av.Packet[Any]]] = {}  # by stream
        self.frames = 0  # handed out so far
        self.notes: list[str] = []  # what is worth telling about the file, complete after the last frame
        self.broke_off = False  # whether damage ended the video, with `salvage`; known after the last frame
        self._seen_until = Fraction(0)  # seconds; the end of the last packet of any stream
        source = open_source(self.path)
        self.container, self.pictures = source.container, source.pictures
        self._rgb_bits: int | None = None
        try:
            self.stream = _picture_stream(self.path, self.container)
            self._indexed = len(self.pictures) or (len(self.stream.index_entries) if is_format(self.container, MP4_LIKE) else 0)
            self._decoded = self._salvaged() if salvage else self._decode()
            self._ahead = next(self._decoded, None)
            if self._ahead is None:
                raise VideoError(f"{self.path}: no frame of its video stream can be decoded: replace the file")
            self.info = _describe(self.container, self.stream, self._ahead, self._indexed)
            if self.pictures:
                self.info = replace(
                    self.info, rgb_bits=self._rgb_bits, time_base=1 / rate, frame_rate=rate, first_pts=0, duration=None
                )
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames. Raises VideoError where the file is broken or changes its format."""
        self._copied = self._copied or set()
        previous = None
        while self._ahead is not None and self.frames != self.limit:
            decoded, self._ahead = self._ahead, next(self._decoded, None)
            pts = self._time_of(decoded, previous, self.frames)
            planes = [plane_of(decoded, index) for index in range(len(decoded.planes))]
            for plane in planes:
                plane.flags.writeable = False  # later frames are predicted from this memory
            frame = Frame(planes[0], tuple(planes[1:]), self.frames, pts, self._duration_of(decoded, pts), decoded)
            self.frames, previous = self.frames + 1, pts
            yield frame
            del decoded, planes, plane, frame  # not kept alive while the next is decoded

    def seek(self, number: int, pts: int, key: int) -> bool:
        """Goes on with frame `number`, which is shown at `pts`, decoding from the keyframe at `key`; call it before the first.

        False when the file did not lead there; the reader is of no more use then. A keyframe may need what is before it (an open
        group of pictures, gradual refresh): whoever must be sure compares the frames. That the file is whole is not checked.
        """
        for early in SEEK_EARLY:
            try:
                self.container.seek(key - round(early / self.info.time_base), stream=self.stream)
                self._decoded = self._decode(whole=False)
                self._ahead = next((frame for frame in self._decoded if frame.pts is None or frame.pts >= pts), None)
            except (av.FFmpegError, VideoError):
                continue
            if self._ahead is not None and self._ahead.pts == pts:
                self.frames = number
                return True
        return False

    @property
    def even(self) -> bool:
        """Whether the frames come at the stated rate, as far as the file tells."""
        return bool(self.pictures) or self.info.frame_rate == self.stream.guessed_rate

    def first_packets(self) -> dict[int, list[av.Packet[Any]]]:
        """The first packets of all other streams that were come by so far, by stream; call it before the first frame."""
        return {index: list(packets) for index, packets in self._packets.items()}

    def set_aside(self, streams: set[int]) -> None:
        """Keeps the packets of these streams (indices in the file) for `take_packets`; call it before the first frame.

        Another thread may take them while this one reads frames.
        """
        self._copied = streams
        self._packets = {index: self._packets.get(index, deque()) for index in streams}

    def take_packets(self, until: Fraction | None = None) -> Iterator[av.Packet[Any]]:
        """Hands over the packets set aside while frames were read, each stream's up to its first at `until` seconds or later."""
        for packets in self._packets.values():
            while packets and (until is None or _start(packets[0]) < until):
                yield packets.popleft()

    def skim(self) -> Iterator[None]:
        """Reads the rest without decoding, for `take_packets`; yields after every packet of the picture.

        Raises VideoError when the file cannot be read to its end, unless the `limit` or `salvage` end the video before.
        """
        try:
            for packet in self.container.demux():
                if packet.stream is self.stream:
                    yield
                else:
                    self._set_aside(packet)
        except av.FFmpegError as error:
            if not (self.limit or self._salvage):
                raise VideoError(
                    f"{self.path}: cannot be read to its end ({error.strerror}): get a whole copy of the file"
                ) from error

    def close(self) -> None:
        """Closes the file; calling it again does nothing. Frames that were read stay valid."""
        self.container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _salvaged(self) -> Iterator[av.VideoFrame]:
        """The frames up to the first damage, those that the decoder still holds too."""
        frames = 0
        try:
            for frame in self._decode():
                yield frame
                frames += 1
        except _DamageError as error:
            self.broke_off = True
            self.notes.append(str(error).rsplit(":", 1)[0])
            with suppress(av.FFmpegError):
                yield from (frame for frame in self.stream.decode(None) if frames and not frame.is_corrupt)

    def _decode(self, whole: bool = True) -> Iterator[av.VideoFrame]:
        frames = packets = hidden = 0  # hidden: needed for decoding, not to be shown, as an edit list says
        try:
            for packet in self.container.demux():
                self._note_end(packet)
                if packet.stream is not self.stream:  # the last, empty ones all have stream_index 0
                    self._set_aside(packet)
                    continue
                packets += packet.size > 0
                hidden += packet.is_discard
                for decoded in self.stream.decode(packet):
                    frame = self._readable(decoded) if self.pictures else decoded
                    self._check(frame, frames)
                    yield frame
                    frames += 1
                if packet.is_corrupt:
                    raise self._broken(frames)
        except av.FFmpegError as error:
            raise self._broken(frames, error.strerror) from error
        if whole:
            self._check_end(frames, packets, hidden)

    def _readable(self, picture: av.VideoFrame) -> av.VideoFrame:
        """RGB and big-endian gray, which pictures hold, as what videos hold."""
        name = picture.format.name
        if name in BIG_ENDIAN:
            return picture.reformat(format=BIG_ENDIAN[name])
        if name not in RGB_BITS:
            return picture
        self._rgb_bits = RGB_BITS[name]
        pixels = picture.to_ndarray(format="rgb24" if self._rgb_bits == 8 else "rgb48le")
        frame = av.VideoFrame(picture.width, picture.height, "yuv444p16le")
        for index, plane in enumerate(rgb.to_ycc(pixels)):
            plane_of(frame, index)[:] = plane
        frame.color_range, frame.colorspace, frame.pts = FULL, BT601, picture.pts
        return frame

    def _set_aside(self, packet: av.Packet[Any]) -> None:
        if packet.size and (self._copied is None or packet.stream_index in self._copied):
            self._packets.setdefault(packet.stream_index, deque()).append(packet)

    def _note_end(self, packet: av.Packet[Any]) -> None:
        if packet.pts is not None:
            self._seen_until = max(self._seen_until, (packet.pts + (packet.duration or 0)) * packet.time_base)

    def _check(self, frame: av.VideoFrame, number: int) -> None:
        shape = (frame.width, frame.height, frame.format.name)
        if not number:
            _check_format(self.path, frame.format)
            self._shape = shape
        if frame.is_corrupt:
            raise self._broken(number)
        if frame.interlaced_frame:
            raise VideoError(
                f"{self.path}: frame {number} is interlaced, expected progressive video: deinterlace it first,"
                f" for example ffmpeg -i {self.path.name} -vf bwdif -crf 12 progressive.mkv"
            )
        if shape != self._shape:
            was, now = ("{}x{} {}".format(*shape) for shape in (self._shape, shape))
            raise VideoError(f"{self.path}: changes from {was} to {now} at frame {number}: cut it there into two files")

    def _broken(self, frames: int, reason: str | None = None) -> _DamageError:
        detail = f" ({reason})" if reason else ""
        return _DamageError(
            f"{self.path}: broken or cut off at frame {frames}{detail}: get a whole copy of the file, or --salvage what is before"
        )

    def _check_end(self, frames: int, packets: int, hidden: int) -> None:
        """A file cut off between two frames decodes without an error; MP4's index and Matroska's length tell it."""
        declared = Fraction(self.container.duration or 0, CONTAINER_CLOCK)
        if packets < self._indexed:
            raise self._broken(frames, f"it says it has {self._indexed}")
        if self._indexed and frames < packets - hidden:
            lost = packets - hidden - frames
            self.notes.append(
                f"{lost} of {packets - hidden} coded frames gave no picture, as after a cut that was not at a keyframe"
            )
        if is_format(self.container, {"matroska"}) and self._seen_until < declared - CUT_OFF:
            raise self._broken(frames, f"at {float(self._seen_until):.2f} of {float(declared):.2f} s")

    def _time_of(self, decoded: av.VideoFrame, previous: int | None, number: int) -> int:
        if self.pictures:
            return number
        if decoded.pts is None:  # raw streams carry no times
            return 0 if previous is None else previous + self._step()
        if previous is not None and decoded.pts <= previous:
            raise VideoError(
                f"{self.path}: frame {number} is shown at {decoded.pts}, not after the one before it ({previous}): give it new"
                f" times first, for example ffmpeg -i {self.path.name} -vf setpts=N/FRAME_RATE/TB -crf 12 retimed.mkv"
            )
        return decoded.pts

    def _duration_of(self, decoded: av.VideoFrame, pts: int) -> int:
        """Until the next frame. What the decoder says is in decoding order, so only the last frame falls back on it."""
        if self.pictures:
            return 1
        if self._ahead is not None:
            return max(1, self._ahead.pts - pts) if self._ahead.pts is not None else self._step()
        left = 0 if self.broke_off else (self.stream.start_time or 0) + (self.stream.duration or 0) - pts
        return left if left > 0 else decoded.duration or self._step()

    def _step(self) -> int:
        return max(1, round(1 / (self.info.time_base * (self.info.frame_rate or FALLBACK_RATE))))


class _DamageError(VideoError):
    """The file is broken or cut off."""


def _picture_stream(path: Path, container: InputContainer) -> av.VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"{path}: has no video stream ({found} only): give a video file")
    if stream.codec_context is None:
        raise VideoError(f"{path}: this FFmpeg has no decoder for its video stream: convert it first")
    return stream


def _describe(container: InputContainer, stream: av.VideoStream, first: av.VideoFrame, indexed: int) -> VideoInfo:
    assert stream.time_base is not None  # FFmpeg gives every video stream one
    name, stated = first.format.name, first.color_range
    full = stated == FULL or (stated == NOT_STATED and name.startswith(("yuvj", "gray")))
    duration = stream.duration * stream.time_base if stream.duration else Fraction(container.duration or 0, CONTAINER_CLOCK)
    return VideoInfo(
        width=first.width,
        height=first.height,
        pixel_format=name,
        bits=first.format.components[0].bits,
        rgb_bits=None,
        chroma_step=WIDE // first.format.chroma_width(WIDE),
        color_range="full" if full else "limited",
        color_tags=(stated, first.colorspace, first.color_primaries, first.color_trc),
        codec=stream.codec_context.name,
        time_base=stream.time_base,
        first_pts=first.pts or 0,
        frame_rate=_rate(stream),
        frames=indexed or stream.frames or None,
        duration=float(duration) or None,
        sample_aspect_ratio=stream.sample_aspect_ratio,
        rotation=first.rotation,
        display_matrix=_display_matrix(first),
        hdr=_hdr(first),
        side_data=frozenset(data.type.name for data in side_data_of(first)) - NOT_OF_THE_PICTURE,
    )


def _rate(stream: av.VideoStream) -> Fraction | None:
    """The one that all frames fit where the average is about that, or cannot be, as a clock of AVI that is taken for a rate."""
    average, fitting = stream.average_rate, stream.guessed_rate
    if average and fitting:
        near = abs(average - fitting) <= SAME_RATE * fitting
        return fitting if near or (average > MOST_FRAMES and fitting < MOST_AVERAGE) else average
    return average or fitting


def _check_format(path: Path, pixel_format: av.VideoFormat) -> None:
    """Luma first, each component in a plane of its own, 8 to 16 bits, in this machine's order of bytes."""
    parts = pixel_format.components
    planar = [part.plane for part in parts] == list(range(len(parts))) and not pixel_format.has_palette
    luma = planar and parts[0].is_luma and not pixel_format.is_bayer
    if luma and 8 <= parts[0].bits <= 16 and not pixel_format.is_big_endian and "f16" not in pixel_format.name:
        return
    raise VideoError(
        f"{path}: its samples are {pixel_format.name}, expected planar YUV or gray of 8 to 16 bits: convert it first,"
        f" for example ffmpeg -i {path.name} -pix_fmt yuv444p -c:v ffv1 converted.mkv"
    )


def _hdr(frame: av.VideoFrame) -> Hdr:
    found = {data.type: bytes(data) for data in side_data_of(frame)}
    return Hdr.from_side_data(found.get(SideDataType.MASTERING_DISPLAY_METADATA), found.get(SideDataType.CONTENT_LIGHT_LEVEL))


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    found = [data for data in side_data_of(frame) if data.type == SideDataType.DISPLAYMATRIX]
    return tuple(np.frombuffer(bytes(found[0]), np.int32).tolist()) if found else None


def _start(packet: av.Packet[Any]) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    return (time or 0) * packet.time_base
