"""Reads and writes video files with PyAV: planes as numpy views, and all that is not luma carried over as it is.

Pixels stay YUV from end to end: luma is what the network sees, the other planes are copied bit by bit, and no frame is rotated,
scaled or converted. Served are planar YUV (4:2:0, 4:2:2, 4:4:4 and rarer ones, with or without alpha) and gray, 8 to 16 bits.
RGB, palettes and semi-planar layouts (nv12, which files do not hold) are refused, and so is interlaced video.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, MissingPackageError, VideoError
from runtime.sample_codes import from_unit, to_unit

try:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.sidedata.sidedata import SideData
    from av.sidedata.sidedata import Type as SideDataType
    from av.stream import Disposition, Stream
except ImportError as missing:
    raise MissingPackageError("av>=18", "reading and writing video") from missing

Plane = npt.NDArray[Any]  # (H, W) uint8, or uint16 above 8 bits

NOT_STATED, FULL = 0, 2  # of AVColorRange; 1 is limited
WIDE = 64  # pixels, divisible by every chroma subsampling
CONTAINER_CLOCK = 1_000_000  # ticks per second of a container's duration
CUT_OFF = Fraction(1, 2)  # seconds; a Matroska file that ends this much before its header says was cut off
FALLBACK_RATE = 25  # frames per second, FFmpeg's own guess for raw streams without times

MP4_LIKE = {"mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v"}  # muxers with edit lists and a movie timescale
NOT_METADATA = {"encoder", "major_brand", "minor_version", "compatible_brands"}  # facts of the source's container
NOT_OF_THE_PICTURE = {"DISPLAYMATRIX", "SEI_UNREGISTERED"}  # side data told elsewhere, and the encoder's signature
STATISTICS = ("_STATISTICS", "BPS", "DURATION", "NUMBER_OF_BYTES", "NUMBER_OF_FRAMES")  # Matroska's, not true after encoding
SOME_ENCODERS = "libx264, libx265, libsvtav1 or ffv1"
ANY_FORMAT = "-c ffv1 with an .mkv output is lossless and takes any size and format"


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its picture."""

    width: int  # pixels as coded, before rotation and sample aspect ratio
    height: int
    pixel_format: str  # FFmpeg's name
    bits: int  # of a sample, 8 to 16
    chroma_step: int  # luma columns per column of chroma: 2 for 4:2:0 and 4:2:2, 1 for 4:4:4 and gray
    color_range: str  # "limited" or "full"; full where the file does not say and the format is yuvj* or gray, else limited
    color_tags: tuple[int, int, int, int]  # range, matrix, primaries and transfer as stated, FFmpeg's numbers
    codec: str  # FFmpeg's name of the decoder
    time_base: Fraction  # seconds, the unit of every pts and duration
    frame_rate: Fraction | None  # frames per second on average; the frames may come at any time
    frames: int | None  # as the container counts them; None when it does not
    duration: float | None  # seconds
    sample_aspect_ratio: Fraction | None  # width to height of a pixel
    rotation: int  # degrees counter-clockwise, for display
    display_matrix: tuple[int, ...] | None  # FFmpeg's 3 x 3 matrix behind `rotation`, with flips
    side_data: frozenset[str]  # what else FFmpeg knows of the first frame, such as "MASTERING_DISPLAY_METADATA"

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


class VideoReader:
    """The frames of a video file, once, in order of display; a context manager.

    `limit` ends the video after so many frames. Raises VideoError when the file is missing, is no video, is of a kind that is
    not served, breaks off or is broken; the message names the file and the frame.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"the limit is {limit} frames, expected 1 or more")
        self.path, self.limit = Path(path), limit
        self._copied: set[int] | None = None  # streams whose packets are set aside; None = all, until that is decided
        self._packets: dict[int, deque[av.Packet[Any]]] = {}  # by stream
        self._seen_until = Fraction(0)  # seconds; the end of the last packet of any stream
        self.container = _open_input(self.path)
        try:
            self.stream = _picture_stream(self.path, self.container)
            self._indexed = len(self.stream.index_entries) if _is(self.container, MP4_LIKE) else 0
            self._decoded = self._decode()
            self._ahead = next(self._decoded, None)
            if self._ahead is None:
                raise VideoError(f"{self.path}: no frame of its video stream can be decoded: replace the file")
            self.info = _describe(self.container, self.stream, self._ahead, self._indexed)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames. Raises VideoError where the file is broken or changes its format."""
        self._copied = self._copied or set()
        number, previous = 0, None
        while self._ahead is not None and number != self.limit:
            decoded, self._ahead = self._ahead, next(self._decoded, None)
            pts = self._time_of(decoded, previous, number)
            planes = [_view(decoded, index) for index in range(len(decoded.planes))]
            for plane in planes:
                plane.flags.writeable = False  # later frames are predicted from this memory
            yield Frame(planes[0], tuple(planes[1:]), number, pts, self._duration_of(decoded, pts), decoded)
            number, previous = number + 1, pts

    def set_aside(self, streams: set[int]) -> None:
        """Keeps the packets of these streams (indices in the file) for `take_packets`; call it before the first frame."""
        self._copied = streams
        self._packets = {index: packets for index, packets in self._packets.items() if index in streams}

    def take_packets(self, until: Fraction | None = None) -> Iterator[av.Packet[Any]]:
        """Hands over the packets set aside while frames were read, each stream's up to its first at `until` seconds or later."""
        for packets in self._packets.values():
            while packets and (until is None or _start(packets[0]) < until):
                yield packets.popleft()

    def close(self) -> None:
        """Closes the file; calling it again does nothing. Frames that were read stay valid."""
        self.container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        frames = packets = 0
        try:
            for packet in self.container.demux():
                self._note_end(packet)
                if packet.stream is not self.stream:  # the last, empty ones all have stream_index 0
                    self._set_aside(packet)
                    continue
                packets += packet.size > 0
                for frame in self.stream.decode(packet):
                    self._check(frame, frames)
                    yield frame
                    frames += 1
                if packet.is_corrupt:
                    raise self._broken(frames)
        except av.FFmpegError as error:
            raise self._broken(frames, error.strerror) from error
        self._check_end(frames, packets)

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

    def _broken(self, frames: int, reason: str | None = None) -> VideoError:
        detail = f" ({reason})" if reason else ""
        return VideoError(f"{self.path}: broken or cut off at frame {frames}{detail}: get a whole copy of the file")

    def _check_end(self, frames: int, packets: int) -> None:
        """A file cut off between two frames decodes without an error; MP4's index and Matroska's length tell it."""
        declared = Fraction(self.container.duration or 0, CONTAINER_CLOCK)
        if packets < self._indexed:
            raise self._broken(frames, f"it says it has {self._indexed}")
        if _is(self.container, {"matroska"}) and self._seen_until < declared - CUT_OFF:
            raise self._broken(frames, f"at {float(self._seen_until):.2f} of {float(declared):.2f} s")

    def _time_of(self, decoded: av.VideoFrame, previous: int | None, number: int) -> int:
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
        if self._ahead is not None:
            return max(1, self._ahead.pts - pts) if self._ahead.pts is not None else self._step()
        left = (self.stream.start_time or 0) + (self.stream.duration or 0) - pts
        return left if left > 0 else decoded.duration or self._step()

    def _step(self) -> int:
        return max(1, round(1 / (self.info.time_base * (self.info.frame_rate or FALLBACK_RATE))))


class VideoWriter:
    """Writes sharpened frames with all the rest of the source; a context manager.

    Leaving the `with` block completes the file and gives it its final name, replacing what had that name; leaving it by an
    exception, Ctrl-C too, deletes it. Until then it is `.NAME.PID.part.EXT` in the same folder.

    Carried over: times, colour tags, sample aspect ratio, display matrix, chapters, metadata, captions and other side data of
    the frames; audio, subtitle, data and attachment streams packet by packet. `notes` says in a line each what could not be.
    `width` is the output's, when it is wider than the source. Raises VideoError when the encoder or the container refuses, or
    the file cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], reader: VideoReader, encoder: EncoderOptions | None = None, width: int | None = None
    ) -> None:
        self.path, self.frames = Path(path), 0  # frames written so far
        self.notes: list[str] = []
        self._reader, self._width = reader, width or reader.info.width
        self._encoder = encoder or EncoderOptions()
        self._encoded, self._written_until = 0, Fraction(0)
        self._part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")
        self._open = True
        self._container = _open_output(self.path, self._part, reader.info.time_base)
        try:
            self._stream = self._add_picture()
            self._copies = self._add_copies()
            with self._explained("cannot be written", logged=True):
                self._container.metadata.update(_metadata(reader.container.metadata))
                self._container.set_chapters(reader.container.chapters())
                self._container.start_encoding()
        except BaseException:
            self.close()
            raise
        reader.set_aside(set(self._copies))
        self._clones = self._clone_graph()

    def write(self, frame: Frame, luma: Plane, chroma: tuple[Plane, ...] | None = None) -> None:
        """Encodes `luma` (height, width) at the frame's time, with `chroma`, or with the frame's own planes bit by bit.

        The arrays are copied. Frames come in order of display.
        """
        shape = (self._reader.info.height, self._width)
        if luma.shape != shape or luma.dtype != frame.luma.dtype:
            raise InputError(f"got luma {luma.shape} {luma.dtype}, expected {shape} {frame.luma.dtype}")
        picture = self._picture(frame)
        for index, plane in enumerate((luma, *(frame.chroma if chroma is None else chroma))):
            _view(picture, index)[:] = plane
        with self._explained("writing failed"):
            self._mux(self._stream.encode(picture))
            self.frames += 1
            self._written_until = (frame.pts + frame.duration) * self._reader.info.time_base
            self._copy_packets(self._written_until)

    def finish(self) -> None:
        """Completes the file and gives it its final name; afterwards the writer is closed.

        Raises VideoError when a frame was lost on the way.
        """
        if not self._open:
            return
        with self._explained("writing failed", logged=True):
            self._mux(self._stream.encode(None))
            self._copy_packets(self._written_until if self._reader.limit else None)
            self._container.close()
        if self._encoded != self.frames:
            raise VideoError(f"{self.path}: {self._encoder.codec} made {self._encoded} frames of {self.frames}: take another codec")
        self._note_losses()
        try:
            self._part.replace(self.path)
        except OSError as error:
            raise VideoError(f"{self.path}: {error.strerror}: choose another output") from error
        self._open = False

    def close(self) -> None:
        """Deletes the file unless it is finished; calling it again does nothing."""
        if not self._open:
            return
        self._open = False
        with suppress(av.FFmpegError):  # the reason for deleting it is already on its way
            self._container.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    def _add_picture(self) -> av.VideoStream:
        info, codec = self._reader.info, self._encoder.codec
        stream = self._new_stream(codec, info.frame_rate)
        context = stream.codec_context
        context.width, context.height = self._width, info.height
        context.pix_fmt = _encoded_format(codec, info.pixel_format)
        context.time_base = stream.time_base = info.time_base
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        stated, context.colorspace, context.color_primaries, context.color_trc = info.color_tags
        context.color_range = FULL if info.color_range == "full" else stated
        context.flags |= av.codec.context.Flags.frame_duration
        context.options = self._encoder.resolved()
        stream.metadata.update(_metadata(self._reader.stream.metadata, without=STATISTICS))
        stream.disposition = self._reader.stream.disposition
        if info.display_matrix:
            stream.set_display_matrix(info.display_matrix)
        refused = f"{codec} refuses {self._width}x{info.height} {context.pix_fmt}"
        with self._explained(refused, f"change its options, or {ANY_FORMAT}", logged=True):
            context.open()
        if context.options:
            unknown = ", ".join(f"{name}={value}" for name, value in context.options.items())
            raise InputError(f"{codec} has no option {unknown}: ffmpeg -h encoder={codec} lists what it has")
        return stream

    def _new_stream(self, codec: str, rate: Fraction | None) -> av.VideoStream:
        try:
            if av.Codec(codec, "w").type != "video":
                raise InputError(f"{codec} does not encode video: take {SOME_ENCODERS}")
        except av.codec.codec.UnknownCodecError as error:
            raise InputError(f"there is no encoder {codec!r} here: take {SOME_ENCODERS}") from error
        try:
            return cast("av.VideoStream", self._container.add_stream(codec, rate=rate))
        except ValueError as error:
            usual = self._container.default_video_codec
            raise InputError(
                f"{self.path.suffix} cannot hold {codec} video (usual there: {usual}): change -c or the suffix"
            ) from error

    def _add_copies(self) -> dict[int, Stream]:
        """Output streams by the index of the source stream whose packets they take."""
        copies = {}
        for source in self._reader.container.streams:
            if source.index == self._reader.stream.index or self._is_chapter_track(source):
                continue
            name = f"{source.type} stream {source.index}"
            if self._can_hold(source):
                copies[source.index] = copy = self._container.add_stream_from_template(source)
                copy.metadata.update(_metadata(source.metadata))
                copy.disposition = source.disposition
                _settle_layout(copy)
            elif source.type in ("audio", "subtitle") and not self._encoder.drop_unsupported:
                raise VideoError(
                    f"{self.path.suffix} cannot hold {name} of {self._reader.path} ({source.name or 'unknown codec'}):"
                    " write an .mkv, or leave it out with --drop-unsupported"
                )
            else:
                self.notes.append(
                    f"{name} ({source.name or 'unknown codec'}) is not in the output: {self.path.suffix} cannot hold it"
                )
        return copies

    def _is_chapter_track(self, source: Stream) -> bool:
        """MP4 keeps its chapters as a text track too, which `set_chapters` makes anew."""
        return source.name == "bin_data" and _is(self._reader.container, MP4_LIKE) and bool(self._reader.container.chapters())

    def _can_hold(self, source: Stream) -> bool:
        """Whether the output's muxer takes this stream, by writing a header with it alone."""
        if source.type == "attachment":
            return _is(self._container, {"matroska"})
        if source.type == "video" and not (source.disposition & Disposition.attached_pic and _is(self._container, MP4_LIKE)):
            return False  # a second picture would stay blurry; a cover becomes a picture elsewhere
        try:
            with av.open(io.BytesIO(), "w", format=self._container.format.name) as trial:
                trial.add_stream_from_template(source)
                trial.start_encoding()
        except (av.FFmpegError, ValueError):
            return False
        return True

    def _clone_graph(self) -> Graph | None:
        """A filter that does nothing but hand out references, the one way PyAV has to copy a frame with its side data."""
        info = self._reader.info
        if (self._width, self._stream.pix_fmt) != (info.width, info.pixel_format):
            return None
        graph = Graph()
        source = graph.add_buffer(
            width=info.width, height=info.height, format=av.VideoFormat(info.pixel_format), time_base=info.time_base
        )
        graph.link_nodes(source, graph.add("buffersink")).configure()
        return graph

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """A frame of our own to write into, with the source frame's time, tags and side data."""
        if self._clones:
            self._clones.push(frame.decoded)
            picture = self._clones.pull()
            assert isinstance(picture, av.VideoFrame)
            picture.make_writable()  # copies: the decoder's reference stays as it is
            picture.pict_type = av.video.frame.PictureType.NONE  # the encoder decides
        else:
            picture = av.VideoFrame(self._width, self._reader.info.height, self._stream.pix_fmt or "")
            picture.color_range, picture.colorspace = self._stream.color_range, frame.decoded.colorspace
            picture.color_primaries, picture.color_trc = frame.decoded.color_primaries, frame.decoded.color_trc
        picture.pts, picture.duration, picture.time_base = frame.pts, frame.duration, self._reader.info.time_base
        return picture

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            self._encoded += 1
            self._container.mux(packet)

    def _copy_packets(self, until: Fraction | None) -> None:
        for packet in self._reader.take_packets(until):
            if packet.dts is None:
                packet.dts = packet.pts
            packet.stream = self._copies[packet.stream_index]
            self._container.mux(packet)

    def _note_losses(self) -> None:
        """What the encoder and the container dropped of the picture's facts is found by reading the file back."""
        with VideoReader(self._part) as written:
            now, before = written.info, self._reader.info
        if (now.sample_aspect_ratio or 1) != (before.sample_aspect_ratio or 1):
            lost = before.sample_aspect_ratio
            self.notes.append(
                f"the sample aspect ratio {lost} is not in the output: {self._encoder.codec} in {self.path.suffix} lost it"
            )
        if now.color_range != before.color_range or now.color_tags[1:] != before.color_tags[1:]:
            self.notes.append(f"the colour tags are not all in the output: {self._encoder.codec} in {self.path.suffix} lost some")
        if before.side_data - now.side_data:
            lost_data = ", ".join(sorted(before.side_data - now.side_data))
            self.notes.append(f"side data is not in the output: {self._encoder.codec} in {self.path.suffix} lost {lost_data}")
        if now.display_matrix != before.display_matrix:
            self.notes.append(f"the rotation by {before.rotation} degrees is not in the output: {self.path.suffix} cannot hold it")

    @contextmanager
    def _explained(self, what: str, remedy: str = "", logged: bool = False) -> Iterator[None]:
        """Turns FFmpeg's errors into ours; `logged` adds what it says to its log, which costs time."""
        said: list[str] = []
        try:
            with _ffmpeg_says(said) if logged else nullcontext():
                yield
        except (av.FFmpegError, ValueError) as error:
            reason = (said or [getattr(error, "strerror", None) or str(error)])[-1]
            remedy = remedy or "choose another output"
            raise VideoError(f"{self.path}: {what} ({reason}): {remedy}") from error


def _settle_layout(copy: Stream) -> None:
    """Some containers only count the channels; others must be told which they are, and take the usual ones for the number."""
    if isinstance(copy, AudioStream) and copy.layout.name.endswith(" channels"):
        copy.codec_context.layout = f"{copy.layout.nb_channels}c"


def _open_input(path: Path) -> InputContainer:
    if path.is_dir() or not path.exists():
        raise VideoError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected a video file")
    said: list[str] = []
    try:
        with _ffmpeg_says(said):
            return av.open(str(path.absolute()), "r", metadata_errors="surrogateescape")
    except (av.FFmpegError, OSError) as error:
        reason = (said or [error.strerror or str(error)])[-1]
        raise VideoError(f"{path}: not a video that FFmpeg can read ({reason}): check the file") from error


def _open_output(path: Path, part: Path, time_base: Fraction) -> OutputContainer:
    if not path.parent.is_dir():
        raise VideoError(f"{path}: there is no folder {path.parent}: make it first")
    options = {"movflags": "+faststart"}  # the index in front, so that players and browsers can start at once
    if time_base.numerator == 1:  # exact times; by default start times are rounded to milliseconds
        options.update(movie_timescale=str(time_base.denominator), video_track_timescale=str(time_base.denominator))
    try:
        container = av.open(str(part.absolute()), "w", container_options=options, metadata_errors="surrogateescape")
    except ValueError as error:
        raise InputError(f"{path}: {path.suffix or 'no suffix'} is no video format: take .mp4, .mkv or .mov") from error
    if container.format.name.startswith("image2"):
        raise InputError(f"{path}: {path.suffix} is a picture, expected a video format: take .mp4, .mkv or .mov")
    return container


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
        chroma_step=WIDE // first.format.chroma_width(WIDE),
        color_range="full" if full else "limited",
        color_tags=(stated, first.colorspace, first.color_primaries, first.color_trc),
        codec=stream.codec_context.name,
        time_base=stream.time_base,
        frame_rate=stream.average_rate or stream.guessed_rate,
        frames=indexed or stream.frames or None,
        duration=float(duration) or None,
        sample_aspect_ratio=stream.sample_aspect_ratio,
        rotation=first.rotation,
        display_matrix=_display_matrix(first),
        side_data=frozenset(data.type.name for data in _side_data(first)) - NOT_OF_THE_PICTURE,
    )


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


def _encoded_format(codec: str, pixel_format: str) -> str:
    """The encoder's name for the source's format; yuvj420p is yuv420p with the full range said elsewhere."""
    offered = [known.name for known in av.Codec(codec, "w").video_formats or ()]
    for name in (pixel_format, pixel_format.replace("yuvj", "yuv")):
        if not offered or name in offered:
            return name
    raise InputError(f"{codec} does not take {pixel_format}, it takes {', '.join(offered[:12])}: {ANY_FORMAT}")


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    found = [data for data in _side_data(frame) if data.type == SideDataType.DISPLAYMATRIX]
    return tuple(np.frombuffer(bytes(found[0]), np.int32).tolist()) if found else None


def _side_data(frame: av.VideoFrame) -> Iterable[SideData]:
    return cast("Iterable[SideData]", frame.side_data)  # its stub calls it a dictionary


def _view(frame: av.VideoFrame, index: int) -> Plane:
    """A plane without its stride padding, as memory of the frame."""
    plane = frame.planes[index]
    samples = np.frombuffer(memoryview(plane), np.uint8 if frame.format.components[0].bits == 8 else np.uint16)
    return samples.reshape(plane.height, -1)[:, : plane.width]


def _metadata(metadata: dict[str, str], without: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        name: value
        for name, value in metadata.items()
        if name.lower() not in NOT_METADATA and not (without and name.startswith(without))
    }


def _start(packet: av.Packet[Any]) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    return (time or 0) * packet.time_base


def _is(container: InputContainer | OutputContainer, formats: set[str]) -> bool:
    return bool(formats & set(container.format.name.split(",")))


@contextmanager
def _ffmpeg_says(said: list[str]) -> Iterator[None]:
    """Collects FFmpeg's error log: the reason behind its errors, which say no more than 'Invalid argument'."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as log:
            yield
    finally:
        av.logging.set_level(level)
        said += [text.strip() for _, _, text in log if text.strip()]


LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, of gamma-coded R, G, B
STRICT = {"err_detect": "explode"}  # without it a JPEG that was cut off decodes to a half grey picture


def read_luma(path: Path) -> npt.NDArray[np.float32]:
    """The BT.601 luma of a picture file (JPEG, PNG and whatever else FFmpeg knows), (H, W) float32 in [0, 1], new memory.

    YUV and gray pictures give the luma they store: a JPEG's Y plane is full-range BT.601 luma. RGB and palettes are weighted,
    alpha is ignored. Raises VideoError when the file is missing, cut off or not a picture.
    """
    try:
        with av.open(io.BytesIO(path.read_bytes()), options=STRICT) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = STRICT
            picture = next(container.decode(stream))
    except (av.FFmpegError, OSError, IndexError, StopIteration) as error:
        reason = getattr(error, "strerror", None) or "no picture in it"
        raise VideoError(f"{path}: not a picture that can be decoded ({reason}): replace it or take it out") from error
    deep = max(part.bits for part in picture.format.components) > 8
    if picture.format.components[0].is_luma and not picture.format.has_palette:
        gray = picture.reformat(format="gray16le") if picture.format.is_big_endian else picture
        full = picture.color_range == FULL or picture.format.name.startswith(("yuvj", "gray"))
        return to_unit(_view(gray, 0), gray.format.components[0].bits, "full" if full else "limited")
    rgb = picture.to_ndarray(format="rgb48le" if deep else "rgb24")
    luma: npt.NDArray[np.float32] = rgb @ (LUMA_WEIGHTS / np.float32(65535 if deep else 255))
    return luma


def write_gray(path: Path, luma: npt.NDArray[np.float32]) -> None:
    """Writes luma (H, W) in [0, 1], clipped, as an 8-bit gray PNG. Raises VideoError when the file cannot be written."""
    picture = av.VideoFrame.from_ndarray(from_unit(luma, 8, "full"), format="gray")
    try:
        with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("png", width=picture.width, height=picture.height, pix_fmt="gray")
            container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be written ({error.strerror}): name a .png in a folder that exists") from error
