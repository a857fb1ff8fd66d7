"""`VideoWriter`: a video file with PyAV in which all but luma is the source's."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.stream import Stream

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.files.on_disk import place_of
from runtime.video.cover_art import attach, holds_as_stream, is_cover, why_left_out
from runtime.video.format import FULL, MP4_LIKE, Frame, Plane, VideoInfo, codec_name, ffmpeg_says, is_format, plane_of
from runtime.video.hdr import with_hdr
from runtime.video.inventory import settle
from runtime.video.layouts import narrowed, narrower
from runtime.video.output_writer import OutputWriter, own_part
from runtime.video.reader import VideoReader
from runtime.video.sources import STANDARD

NOT_METADATA = {"encoder", "major_brand", "minor_version", "compatible_brands"}  # facts of the source's container
STATISTICS = ("_STATISTICS", "BPS", "DURATION", "NUMBER_OF_BYTES", "NUMBER_OF_FRAMES")  # Matroska's, not true after encoding
Y4M = "yuv4mpegpipe"  # pictures alone, in all but name raw
PIPED = (Y4M, "nut", "matroska")  # what a reader at the end of a pipe can do with
SOME_ENCODERS = "libx264, libx265, libsvtav1 or ffv1"
FEWEST_REORDERED = 3  # frames: one that is decoded before it is shown needs one on each side
SEGMENT_START = 60  # seconds; NUT has no negative times, and decoding starts before the first picture is shown
ANY_FORMAT = "-c ffv1 with an .mkv output is lossless and takes any format and nearly any size"


class VideoWriter(OutputWriter):
    """Writes sharpened frames with all the rest of the source; a context manager.

    `path` may be "-" for standard output, with the encoder's `format` "nut", "matroska", or "yuv4mpegpipe" and codec
    "wrapped_avframe". Leaving the `with` block completes the file and gives it its final name, replacing what had that name;
    leaving it by an exception, Ctrl-C too, deletes it. Until then it is `.NAME.TOKEN.part.EXT` in the same folder. Where a link
    had the name, the file that it leads to is replaced; a device or a pipe is refused.

    Carried over: times, colour tags, sample aspect ratio, display matrix, chapters, metadata, captions and other side data of
    the frames, HDR10's static metadata by the encoders in `hdr`; audio, subtitle, data and attachment streams packet by packet.
    `notes` says in a line each what could not be.

    `width` is the output's, when it is wider than the source; `part` another name until it is complete. A `segment` has the
    picture alone, its times moved by `segment_shift`, for `write_coded` of another writer. Raises VideoError when the encoder or
    the container refuses, the file cannot be written, or one such picture in a file cannot be read back.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reader: VideoReader,
        encoder: EncoderOptions | None = None,
        width: int | None = None,
        part: Path | None = None,
        segment: bool = False,
    ) -> None:
        self.path, self.frames = Path(path), 0  # frames written so far
        self._segment, self._shift = segment, segment_shift(reader) if segment else 0
        self.notes: list[str] = []
        self._reader, self._width = reader, width or reader.info.width
        self._encoder = encoder or EncoderOptions()
        self._pictures = self._encoded = 0  # handed to the encoder, and coded
        self._written_until = Fraction(0)
        self._piped = self.path == STANDARD
        self._place = self.path if self._piped else place_of(self.path)
        self._own = None if part or self._piped else own_part(self.path, self._place)
        self._part = self._own.path if self._own else part or self.path
        self._open = True
        try:
            if not segment and not self._piped:
                self._try_out()
            self._container = self._open_output()
        except BaseException:
            self._drop_part()
            raise
        try:
            self._stream = self._add_picture(self._container)
            self._narrowed = self._stream.pix_fmt in narrower(reader.info)
            if self._narrowed:
                colour = ", colour at half the width and height" if self._stream.pix_fmt == "yuv420p" else ""
                self.notes.append(f"RGB becomes {self._stream.pix_fmt}, 8 bits{colour}: -c ffv1 in an .mkv keeps it all")
            self._copies = {} if segment else self._add_copies()
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
        planes = (luma, *(frame.chroma if chroma is None else chroma))
        for index, plane in enumerate(narrowed(planes, picture.format.name) if self._narrowed else planes):
            plane_of(picture, index)[:] = plane
        with self._explained("writing failed"):
            self._pictures += 1
            self._mux(self._stream.encode(picture))
            self.frames += 1
            self._written_until = (frame.pts + frame.duration) * self._reader.info.time_base
            self._copy_packets(self._written_until)

    def write_coded(self, packet: av.Packet[Any], pts: int, dts: int, duration: int) -> None:
        """Takes a picture that an encoder of the same options has made, in order of decoding; times as the source counts them."""
        packet.stream, packet.time_base = self._stream, self._reader.info.time_base
        packet.pts, packet.dts, packet.duration = pts, dts, duration
        with self._explained("writing failed"):
            self._written_until = max(self._written_until, (pts + duration) * self._reader.info.time_base)
            self._mux([packet])
            self.frames += 1
            self._copy_packets(self._written_until)

    @property
    def extradata(self) -> bytes | None:
        """What the encoder says about all of its pictures."""
        return self._stream.codec_context.extradata

    def finish(self) -> None:
        """Completes the file and gives it its final name; afterwards the writer is closed.

        Raises VideoError when a frame was lost on the way.
        """
        if not self._open:
            return
        with self._explained("writing failed", logged=True):
            if self._pictures:
                self._mux(_last_packets(self._stream, self.frames))
            self._copy_packets(self._written_until if self._reader.limit or self._reader.broke_off else None)
            self._container.close()
        if self._encoded != self.frames:
            raise VideoError(f"{self.path}: {self._encoder.codec} made {self._encoded} frames of {self.frames}: take another codec")
        if self._piped:
            self._open = False
            return
        if not self._segment:
            self._note_losses()
            self.notes += settle(self._reader, self._part, self.notes, self._encoder.leave_out)
        try:
            self._part.replace(self._place)
        except OSError as error:
            raise VideoError(f"{self.path}: {error.strerror}: choose another output") from error
        self._open = False
        self._drop_part()

    def close(self) -> None:
        """Deletes the file unless it is finished; calling it again does nothing."""
        if not self._open:
            return
        self._open = False
        with suppress(av.FFmpegError):  # the reason for deleting it is already on its way
            self._container.close()
        self._drop_part()

    def _drop_part(self) -> None:
        if self._own:
            self._own.drop()
        elif not self._piped:
            self._part.unlink(missing_ok=True)

    def _open_output(self) -> OutputContainer:
        kind = "nut" if self._segment else self._encoder.format
        return _open_output(self.path, self._part, self._reader.info.time_base, self._segment, kind)

    def _try_out(self) -> None:
        """Writes one picture and reads it back: some containers take codecs that they have no name for."""
        trial = self._open_output()
        try:
            stream = self._add_picture(trial)
            picture = self._blank(stream)
            with self._explained("cannot be written", logged=True):
                trial.start_encoding()
            with self._explained("writing failed", logged=True):
                trial.mux([*stream.encode(picture), *_last_packets(stream, 1)])
                trial.close()
            self._read_back()
        finally:
            with suppress(av.FFmpegError):
                trial.close()

    def _blank(self, stream: av.VideoStream) -> av.VideoFrame:
        picture = av.VideoFrame(self._width, self._reader.info.height, stream.pix_fmt or "")
        for index in range(len(picture.planes)):
            plane_of(picture, index)[:] = 0
        picture.color_range, picture.colorspace = stream.color_range, stream.colorspace
        picture.pts, picture.duration, picture.time_base = self._reader.info.first_pts, 1, self._reader.info.time_base
        return picture

    def _read_back(self) -> VideoInfo:
        try:
            with VideoReader(self._part) as written:
                return written.info
        except VideoError as error:
            reason = str(error).replace(f"{self._part}: ", "").rsplit(": ", 1)[0]
            raise VideoError(
                f"{self.path}: what {self._encoder.codec} writes there cannot be read back ({reason}): take another codec or suffix"
            ) from error

    def _add_picture(self, container: OutputContainer) -> av.VideoStream:
        info, codec = self._reader.info, self._encoder.codec
        stream = self._new_stream(container, codec, info.frame_rate)
        context = stream.codec_context
        context.width, context.height = self._width, info.height
        context.pix_fmt = _encoded_format(codec, info)
        context.time_base = stream.time_base = info.time_base
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        stated, context.colorspace, context.color_primaries, context.color_trc = info.color_tags
        context.color_range = FULL if info.color_range == "full" else stated
        context.flags |= av.codec.context.Flags.frame_duration
        context.options = with_hdr(codec, self._encoder.resolved(), info.hdr)
        stream.metadata.update(_metadata(self._reader.stream.metadata, without=STATISTICS))
        stream.disposition = self._reader.stream.disposition
        if info.display_matrix:
            stream.set_display_matrix(info.display_matrix)
        refused = f"{codec} refuses {self._width}x{info.height} {context.pix_fmt}"
        other = ANY_FORMAT if codec != "ffv1" else "scale the video first"
        with self._explained(refused, f"change its options, or {other}", logged=True):
            context.open()
        if context.options:
            unknown = ", ".join(f"{name}={value}" for name, value in context.options.items())
            raise InputError(f"{codec} has no option {unknown}: ffmpeg -h encoder={codec} lists what it has")
        return stream

    def _new_stream(self, container: OutputContainer, codec: str, rate: Fraction | None) -> av.VideoStream:
        try:
            if av.Codec(codec, "w").type != "video":
                raise InputError(f"{codec} does not encode video: take {SOME_ENCODERS}")
        except av.codec.codec.UnknownCodecError as error:
            raise InputError(f"there is no encoder {codec!r} here: take {SOME_ENCODERS}") from error
        try:
            return cast("av.VideoStream", container.add_stream(codec, rate=rate))
        except ValueError as error:
            usual = container.default_video_codec
            raise InputError(
                f"{self.path.suffix} cannot hold {codec} video (usual there: {usual}): change -c or the suffix"
            ) from error

    def _add_copies(self) -> dict[int, Stream]:
        """Output streams by the index of the source stream whose packets they take."""
        copies = {}
        for source in self._reader.container.streams:
            if (
                source.index == self._reader.stream.index
                or self._is_chapter_track(source)
                or source.type in self._encoder.leave_out
            ):
                continue
            name = f"{source.type} stream {source.index}"
            if is_cover(source) and attach(self._container, source, self._reader.first_packets().get(source.index, [])):
                continue
            if self._can_hold(source):
                copies[source.index] = copy = self._container.add_stream_from_template(source)
                copy.metadata.update(_metadata(source.metadata))
                copy.disposition = source.disposition
                _settle_layout(copy)
            elif (
                source.type in ("audio", "subtitle")
                and not self._encoder.drop_unsupported
                and not is_format(self._container, {Y4M})
            ):
                raise VideoError(
                    f"{self.path.suffix} cannot hold {name} of {self._reader.path} ({codec_name(source)}):"
                    f" {other_container(self.path)}, or leave it out with --drop-unsupported"
                )
            else:
                self.notes.append(f"{name} ({codec_name(source)}) is not in the output: {why_left_out(source, self.path.suffix)}")
        return copies

    def _is_chapter_track(self, source: Stream) -> bool:
        """MP4 keeps its chapters as a text track too, which `set_chapters` makes anew."""
        return (
            codec_name(source) == "bin_data"
            and is_format(self._reader.container, MP4_LIKE)
            and bool(self._reader.container.chapters())
        )

    def _can_hold(self, source: Stream) -> bool:
        """Whether the output's muxer takes this stream, by writing a header with it alone."""
        if source.type == "attachment":
            return is_format(self._container, {"matroska"})
        if source.type == "video" and not (is_cover(source) and holds_as_stream(self._container)):
            return False
        try:
            with av.open(io.BytesIO(), "w", format=self._container.format.name) as trial:
                trial.add_stream_from_template(source)
                trial.start_encoding()
        except (av.FFmpegError, ValueError, AttributeError):  # the last where FFmpeg has no decoder for it
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
        picture.pts, picture.duration, picture.time_base = frame.pts + self._shift, frame.duration, self._reader.info.time_base
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
        now, before = self._read_back(), self._reader.info
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
            with ffmpeg_says(said) if logged else nullcontext():
                yield
        except (av.FFmpegError, ValueError) as error:
            reason = (said or [getattr(error, "strerror", None) or str(error)])[-1]
            remedy = remedy or "choose another output"
            raise VideoError(f"{self.path}: {what} ({reason}): {remedy}") from error


def segment_shift(reader: VideoReader) -> int:
    """What is added to a time of the video, in its time base, to have that of a segment, which is never negative."""
    return round(SEGMENT_START / reader.info.time_base) - reader.info.first_pts


def other_container(path: Path) -> str:
    """A container to take instead of the path's."""
    return "write an .mp4 or .mov" if path.suffix == ".mkv" else "write an .mkv"


def _settle_layout(copy: Stream) -> None:
    """Some containers only count the channels; others must be told which they are, and take the usual ones for the number."""
    if isinstance(copy, AudioStream) and copy.layout.name.endswith(" channels"):
        copy.codec_context.layout = f"{copy.layout.nb_channels}c"


def _last_packets(stream: av.VideoStream, frames: int) -> list[av.Packet[Any]]:
    """What the encoder still holds of so many frames in all."""
    packets = stream.encode(None)
    if frames < FEWEST_REORDERED:
        for packet in packets:
            packet.dts = packet.pts  # libx265 makes decoding times up when there are so few
    return packets


def _open_output(path: Path, part: Path, time_base: Fraction, segment: bool, kind: str | None) -> OutputContainer:
    piped = path == STANDARD
    if piped and kind not in PIPED:
        raise InputError(f"the format of standard output is {kind}, expected one of {', '.join(PIPED)}")
    if not path.parent.is_dir():
        raise VideoError(f"{path}: there is no folder {path.parent}: make it first")
    options = {"movflags": "+faststart"}  # the index in front, so that players and browsers can start at once
    if time_base.numerator == 1:  # exact times; by default start times are rounded to milliseconds
        options.update(movie_timescale=str(time_base.denominator), video_track_timescale=str(time_base.denominator))
    if piped:
        options = {"strict": "-1"}  # y4m of more than 8 bits
    if segment:
        options["avoid_negative_ts"] = "disabled"  # which would move all times, by another amount in every segment
    try:
        target = "pipe:1" if piped else str(part.absolute())
        container = av.open(target, "w", format=kind, container_options=options, metadata_errors="surrogateescape")
    except ValueError as error:
        raise InputError(f"{path}: {path.suffix or 'no suffix'} is no video format: take .mp4, .mkv or .mov") from error
    if container.format.name.startswith("image2"):
        raise InputError(f"{path}: {path.suffix} is a picture, expected a video format: take .mp4, .mkv or .mov")
    return container


def _encoded_format(codec: str, info: VideoInfo) -> str:
    """The encoder's name for the source's format; yuvj420p is yuv420p with the full range said elsewhere."""
    pixel_format = info.pixel_format
    offered = [known.name for known in av.Codec(codec, "w").video_formats or ()]
    for name in (pixel_format, pixel_format.replace("yuvj", "yuv"), *narrower(info)):
        if not offered or name in offered:
            return name
    raise InputError(f"{codec} does not take {pixel_format}, it takes {', '.join(offered[:12])}: {ANY_FORMAT}")


def _metadata(metadata: dict[str, str], without: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        name: value
        for name, value in metadata.items()
        if name.lower() not in NOT_METADATA and not (without and name.startswith(without))
    }
