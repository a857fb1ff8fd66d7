"""`VideoWriter`: a video file with PyAV in which all but luma is the source's."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
from av.filter import Graph

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.files.on_disk import free_name, place_of, take_name
from runtime.video.format import Frame, Plane, plane_of
from runtime.video.inventory import settle
from runtime.video.layouts import fitted, has_samples_of
from runtime.video.muxer import Muxer, OutputPlan, explained, in_order
from runtime.video.output_place import refused
from runtime.video.output_writer import OutputWriter, own_part
from runtime.video.reader import VideoReader
from runtime.video.rehearsal import losses, lost_facts, read_back, rehearse
from runtime.video.sources import STANDARD

SAY_STEREO, STEREO_MODE = {"matroska", "webm"}, "stereo_mode"  # containers that say which picture is for which eye, and how


class VideoWriter(OutputWriter):
    """Writes sharpened frames with all the rest of the source; a context manager.

    `path` may be "-" for standard output, with the encoder's `format` "nut", "matroska", or "yuv4mpegpipe" and codec
    "wrapped_avframe". Leaving the `with` block completes the file and gives it its final name, replacing what had that name when
    it was entered; what came there since stays, the file gets another name, and VideoError says which. Leaving the block by an
    exception, Ctrl-C too, deletes it. Until then it is `.NAME.TOKEN.part.EXT` in the same folder. Where a link had the name, the
    file that it leads to is replaced; a device or a pipe is refused.

    Carried over: times, colour tags, sample aspect ratio, display matrix, chapters, metadata, captions and other side data of
    the frames, HDR10's static metadata by the encoders in `hdr`; audio, subtitle, data and attachment streams packet by packet.
    `notes` says in a line each what could not be.

    `width` is the output's, when it is wider than the source; `part` another name until it is complete. A `segment` has the
    picture alone, its times moved by `segment_shift`, for `write_coded` of another writer, which is told that it is `coded`, and
    `spliced` where pictures of the source are among them. `replaces` is that of an earlier writer of the same output, where there
    was one. Raises VideoError when the encoder or the container refuses, the file cannot be written, or the trial of it all that
    `rehearse` makes first cannot be read back.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reader: VideoReader,
        encoder: EncoderOptions | None = None,
        width: int | None = None,
        part: Path | None = None,
        segment: bool = False,
        coded: bool = False,
        spliced: bool = False,
        replaces: bool | None = None,
    ) -> None:
        self.path, self.frames = Path(path), 0  # frames written so far
        self.notes: list[str] = []
        self._reader, self._width = reader, width or reader.info.width
        self._written_until = Fraction(0)
        self._piped = self.path == STANDARD
        if self._piped and sys.__stdout__ is None:  # Python found it closed; its number may be another file's by now
            raise VideoError(f"{path}: standard output is closed, expected one that is read: give a file's name, or > FILE")
        self._place = self.path if self._piped else place_of(self.path)
        self.replaces = self._place.exists() if replaces is None else replaces
        self._open = True
        plan = in_order(OutputPlan(self.path, reader, encoder or EncoderOptions(), self._width, segment, coded, spliced=spliced))
        self._own = None if part or self._piped else own_part(self.path, self._place)
        self._part = self._own.path if self._own else part or self.path
        try:
            if not segment:
                plan, self.notes = rehearse(replace(plan, coded=False), self._part)
            self._plan = replace(plan, coded=coded)
            self._muxer = Muxer(self._plan, self._part)
        except BaseException:
            self._drop_part()
            raise
        self._other = not has_samples_of(reader.info, self._muxer.stream.codec_context.pix_fmt or "")
        reader.set_aside(set(plan.streams))
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
        for index, plane in enumerate(fitted(planes, self._reader.info, picture.format.name) if self._other else planes):
            plane_of(picture, index)[:] = plane
        with explained(self.path, "writing failed"):
            self._muxer.write(picture, frame.pts, frame.duration)
            self.frames += 1
            self._written_until = (frame.pts + frame.duration) * self._reader.info.time_base
            self._copy_packets(self._written_until)

    def write_coded(self, packet: av.Packet[Any], pts: int, dts: int, duration: int, copied: bool = False) -> None:
        """Takes a picture that an encoder of the same options has made, or that is `copied` from the source, in order of decoding.

        Times are as the source counts them.
        """
        with explained(self.path, "writing failed"):
            self._written_until = max(self._written_until, (pts + duration) * self._reader.info.time_base)
            self._muxer.write_coded(packet, pts, dts, duration, copied)
            self.frames += 1
            self._copy_packets(self._written_until)

    @property
    def encoder(self) -> EncoderOptions:
        """With what the container asks for."""
        return self._plan.encoder

    @property
    def extradata(self) -> bytes | None:
        """What the encoder says about all of its pictures."""
        return self._muxer.stream.codec_context.extradata

    def finish(self) -> None:
        """Completes the file and gives it its final name; afterwards the writer is closed.

        Raises VideoError when a frame was lost on the way.
        """
        if not self._open:
            return
        with explained(self.path, "writing failed", logged=True):
            self._copy_packets(self._written_until if self._reader.limit or self._reader.broke_off else None)
            for packet in self._reader.end_captions(self._written_until):
                self._muxer.copy(packet, packet.stream_index)
            self._muxer.finish()
        if self._muxer.coded != self.frames:
            codec, made = self._plan.encoder.codec, self._muxer.coded
            raise VideoError(f"{self.path}: {codec} made {made} frames of {self.frames}: take another codec")
        self.notes += [note for note in self._muxer.notes() if note not in self.notes]  # the trial may have told
        if self._piped:
            self._open = False
            self._note_losses_of_a_pipe()
            return
        if not self._plan.segment:
            muxer = self._muxer
            found = losses(self._plan, self._part, self.frames, self._written_until, muxer.begins, muxer.holes, muxer.first_times)
            self.notes += [note for note in found if note not in self.notes]  # the trial may have told
            self.notes += settle(self._reader, self._part, self.notes, self._plan.encoder.leave_out)
        self._open = False
        try:
            self._take_name()
        except OSError as error:
            raise refused(self.path, "cannot get its name", error) from error
        finally:
            self._drop_part()

    def close(self) -> None:
        """Deletes the file unless it is finished; calling it again does nothing."""
        if not self._open:
            return
        self._open = False
        self._muxer.abandon()
        self._drop_part()

    def _note_losses_of_a_pipe(self) -> None:
        """By the start of what went down it."""
        assert self._muxer.sink is not None
        try:
            with suppress(VideoError), TemporaryDirectory() as folder:  # the former where it is too little for a picture
                start = Path(folder) / f"start.{self._plan.format}"
                start.write_bytes(self._muxer.sink.start)
                found = lost_facts(self._plan, read_back(self._plan, start))
                self.notes += [note for note in found if note not in self.notes]
                self.notes += settle(self._reader, start, self.notes, self._plan.encoder.leave_out, whole=False)
        except OSError as error:
            self.notes.append(f"what the pipe does not hold is not known: no place for a temporary file ({error.strerror})")

    def _take_name(self) -> None:
        if self.replaces or not self._own:  # several may make the same `part`
            self._part.replace(self._place)
        elif not take_name(self._part, self._place):
            kept = free_name(self._part, self._place)
            raise VideoError(f"{self.path}: has appeared since the run began, and stays as it is: the result is {kept}")

    def _drop_part(self) -> None:
        if self._own:
            self._own.drop()
        elif not self._piped:
            self._part.unlink(missing_ok=True)

    def _clone_graph(self) -> Graph | None:
        """A filter that does nothing but hand out references, the one way PyAV has to copy a frame with its side data."""
        info = self._reader.info
        if (self._width, self._muxer.stream.pix_fmt) != (info.width, info.pixel_format):
            return None
        graph = Graph()
        source = graph.add_buffer(
            width=info.width, height=info.height, format=av.VideoFormat(info.pixel_format), time_base=info.time_base
        )
        if (self._plan.segment or self._plan.is_format(SAY_STEREO)) and STEREO_MODE in self._reader.stream.metadata:
            # said twice, by the encoder too, it keeps FFmpeg from decoding the video
            unsaid = [graph.add("sidedata", "mode=delete:type=STEREO3D")]
        else:
            unsaid = []
        graph.link_nodes(source, *unsaid, graph.add("buffersink")).configure()
        return graph

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """A frame of our own to write into, with the source frame's tags and side data."""
        if self._clones:
            self._clones.push(frame.decoded)
            picture = self._clones.pull()
            assert isinstance(picture, av.VideoFrame)
            picture.make_writable()  # copies: the decoder's reference stays as it is
            picture.pict_type = av.video.frame.PictureType.NONE  # the encoder decides
            return picture
        picture = self._muxer.blank()
        picture.color_range, picture.colorspace = self._muxer.stream.color_range, frame.decoded.colorspace
        picture.color_primaries, picture.color_trc = frame.decoded.color_primaries, frame.decoded.color_trc
        return picture

    def _copy_packets(self, until: Fraction | None) -> None:
        for packet in self._reader.take_packets(until):
            self._muxer.copy(packet, packet.stream_index)


def try_output(path: Path, reader: VideoReader, encoder: EncoderOptions) -> list[str]:
    """Raises what a `VideoWriter` would raise at its start, and returns its notes on what the output cannot hold; for plans."""
    own = None if path == STANDARD else own_part(path, place_of(path))
    try:
        return rehearse(in_order(OutputPlan(path, reader, encoder, reader.info.width)), own.path if own else path)[1]
    finally:
        if own:
            own.drop()
