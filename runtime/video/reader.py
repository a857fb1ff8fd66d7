"""`VideoReader`: the frames of a video file with PyAV, planes as numpy views.

Pixels stay YUV from end to end: luma is what the network sees, the other planes are kept bit by bit, and no frame is rotated or
scaled. Served are planar YUV (4:2:0, 4:2:2, 4:4:4 and rarer ones, with or without alpha) and gray, 8 to 16 bits, and what
`layouts` makes planar: RGB, palettes, packed and semi-planar YUV. Interlaced video is refused.
"""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.packet import PacketSideData
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from runtime.errors import InputError, VideoError
from runtime.files.time_ranges import TimeRange
from runtime.video.alpha import check_alpha, decoder_for, layers_of
from runtime.video.captions import Captions
from runtime.video.coded_settings import coded_settings
from runtime.video.file_end import WITHOUT_INDEX, MissingEndError, is_chained, missing_end
from runtime.video.format import (
    FALLBACK_RATE,
    FULL,
    MP4_LIKE,
    NOT_STATED,
    WITH_A_CLOCK,
    Frame,
    VideoInfo,
    ffmpeg_line,
    ffmpeg_says,
    has_flag,
    is_encrypted,
    is_format,
    packets_from_here,
    plane_of,
    side_data_of,
)
from runtime.video.fragments import samples_in_fragments
from runtime.video.frame_times import FrameTimes
from runtime.video.hdr import Hdr
from runtime.video.layouts import WIDE, Layouts
from runtime.video.messages import messages_of
from runtime.video.part import CONTAINER_CLOCK, Part
from runtime.video.pipe_end import within_a_packet
from runtime.video.sources import missing_numbers, open_source
from runtime.video.user_data import USER_DATA, has_signature, is_signature

OTHER_LAYERS = "the other layers of the picture (its alpha, or what another eye sees) are not in the output: FFmpeg decodes one"
SAY_THEIR_LENGTH = {"matroska", "flv", "mxf"}  # formats whose headers do, in seconds
CUT_OFF = Fraction(1, 2)  # seconds; one of them that ends this much before its header says was cut off
PICTURE_RATE = Fraction(25)  # frames per second, as FFmpeg takes pictures
SAME_RATE = Fraction(2, 100)  # by which a short file's average is off the rate that its frames have
SAME_SHAPE = Fraction(1, 100)  # by which a container that tells the size on a screen is off
MOST_AVERAGE, MOST_FRAMES = 70, 210  # frames per second; FFmpeg's bounds for an average that is one and a rate that is none
AFTER_A_JUMP = 2  # packets; FFmpeg marks the last one before a jump of the counter, or the one before that
AT_THE_END = 2  # packets; what is left of a piece of sound that is not whole comes as another
INTERLEAVED = Fraction(10)  # seconds of a file in which the packets of one moment are found, whatever wrote it
HIDDEN = {"vp6", "vp6a", "vp8", "dirac", "gif"}  # codecs with packets that are not meant to be shown, mark an end or only comment
NUMBERED = {"dirac"}  # raw formats whose frames have their number for a time
OF_ONE_PICTURE = "_pipe"  # the end of names of formats that have pictures and nothing else, one after another
HIDES: Final = "skip_samples"  # side data of packets of sound
ANEW: Final = "new_extradata"  # the same: settings of a codec, from here on
HIDDEN_AT_END = slice(4, 8)  # bytes of it
TRIED = 40  # packets of a stream before the part that are kept, since a rehearsal wants to see some
SEEK_EARLY = (0, 1, 4)  # seconds; formats without an index are sought by times of decoding, and often end up behind the keyframe
SAYS_NOTHING = {0, 2}  # primaries, transfer and matrix in ITU-T H.273: reserved, or RGB, and not known
NOT_OF_THE_PICTURE = {"DISPLAYMATRIX"}  # side data told elsewhere
H264 = "h264"
IN_FRAMES = {H264, "hevc"}  # codecs of which several pictures are decoded at a time: most have one slice each, for one thread
RAW, BITS = "rawvideo", 16  # a codec that hands out whatever bits are there; what a sample has room for
EMPTY_WHEN_ZERO = {"PANSCAN"}  # side data that FFmpeg puts on all pictures of MPEG-2


class VideoReader:
    """The frames of a video file, once, in order of display; a context manager.

    `path` may also be "-" for standard input, a numbered sequence of pictures (%05d.png) or a folder of them, shown at `rate`
    frames per second, or, as a `playlist`, a list of other files. `limit` ends the video after so many frames; of a `part` only
    the frames and packets that are shown within it are handed out, and `info` is of these; with `salvage` a
    video that breaks off ends there, and a note says so. `live` hands out a frame as soon as it is decoded, without looking for the
    time of the next one, which tells how long it lasts. Raises VideoError when the file is missing, is no video, is of a kind
    that is not served, breaks off or is broken; the message names the file and the frame.
    """

    info: VideoInfo  # of the part, where there is one

    def __init__(
        self,
        path: str | os.PathLike[str],
        limit: int | None = None,
        rate: Fraction = PICTURE_RATE,
        salvage: bool = False,
        playlist: bool = False,
        part: TimeRange | None = None,
        live: bool = False,
    ) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"the limit is {limit} frames, expected 1 or more")
        self.live, self.asked = live, part
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._ahead: av.VideoFrame | None = None  # the next one
        self.part: Part | None = None
        self.path, self.limit, self.playlist, self.salvage = Path(path), limit, playlist, salvage
        self._copied: set[int] | None = None  # streams whose packets are set aside; None = all, until that is decided
        self._packets: dict[int, deque[av.Packet[Any]]] = {}  # by stream
        self._first_packets: dict[int, list[av.Packet[Any]]] = {}  # from before a jump
        self.frames = self._passed_over = 0  # handed out so far, and those before the part
        self._before: int | None = None  # when the frame before the first one is shown
        self._said: list[str] = []
        self.side_data: dict[str, Fraction | None] = {}  # kinds, with the time in seconds of the first frame that had it
        self._messages: dict[str, Fraction] = {}  # what FFmpeg reads over, with the time in seconds of the last packet that had it
        self._damage: list[tuple[Fraction | None, str]] = []  # of pictures of which the decoder made up a part: seconds, its words
        self._first_packet = b""  # of the picture
        self.starts: dict[int, Fraction] = {}  # seconds, in the part, of the streams beside the picture that were come by so far
        self.begins: dict[int, Fraction] = {}  # the same of the first packet, heard or not
        self.hidden_at_end: dict[int, Fraction] = {}  # seconds of sound at the end of what was read that are not to be heard
        self._anew: dict[int, PacketSideData] = {}  # by stream, the last new settings in front of the part
        self._captions: dict[int, Captions] = {}  # by stream, of those that stand without an end of their own
        self._endless: set[int] = set()  # other streams of subtitles that do not say when they end
        self._repeats = 0  # packets of the picture without a byte
        self._repeated: int | None = None  # when the last one of them is shown
        self._joints = 0  # places where the counter of a transport stream jumped before a keyframe
        self.broke_off = False  # whether damage ended the video, with `salvage`; known after the last frame
        self._since_damage: dict[int, int] = {}  # packets from one that was not whole on, by stream
        self._seen_until = Fraction(0)  # seconds; the end of the last packet of any stream
        self._source = open_source(self.path, playlist, live)
        self._said += missing_numbers(self._source.pictures)
        try:
            self._begin(rate)
            if part is not None:
                self._enter(part, rate)
        except BaseException:
            self.close()
            raise

    @property
    def first_file(self) -> Path:
        """That of the first picture, or of the video."""
        return self.pictures[0] if self.pictures else self.path

    @property
    def notes(self) -> list[str]:
        """What is worth telling about the file, complete after the last frame."""
        counted = {
            "frames were at the time of another, or before it, and are shown a tick later": self._times.moved,
            "times the counter of packets jumps before a keyframe: streams were joined there, or a little was lost": self._joints,
        }
        lost = [
            f"subtitle stream {index}: what is shown when the part begins is not all in the output"
            for index, captions in self._captions.items()
            if self.part and self.part.is_cut and captions.incomplete
        ]
        lost += [
            f"subtitle stream {index} does not say how long it is shown: at the ends of the part some may be missing, or stay"
            for index in sorted(self._endless)
            if self.part
        ]
        return [*self._said, *(f"{count} {what}" for what, count in counted.items() if count), *lost, *self._damage_in_words()]

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames. Raises VideoError where the file is broken or changes its format."""
        self._copied = self._copied or set()
        previous, end = self._before, 0
        while self._ahead is not None and self.frames != self.limit:
            decoded = self._ahead
            pts = self._time_of(decoded, previous)
            if self.part and self.part.is_over(pts * self.info.time_base):
                break
            self._note_changes(decoded, pts)
            self._ahead = None if self.live else next(self._decoded, None)
            planes = [plane_of(decoded, index) for index in range(len(decoded.planes))]
            for plane in planes:
                plane.flags.writeable = False  # later frames are predicted from this memory
            frame = Frame(planes[0], tuple(planes[1:]), self.frames, pts, self._duration_of(decoded, pts), decoded)
            self.frames, previous = self.frames + 1, pts
            yield frame
            end = pts + frame.duration
            del decoded, planes, plane, frame  # not kept alive while the next is decoded
            if self.live:
                self._ahead = next(self._decoded, None)
        if self._ahead is not None and self._copied and previous is not None:
            self._read_on(previous * self.info.time_base)
        if self._ahead is None and self.part and self.frames and self.frames != self.limit:
            self._said += self.part.told_at_the_end(end * self.info.time_base)

    def seek(self, number: int, pts: int, key: int) -> bool:
        """Goes on with frame `number`, which is shown at `pts`, decoding from the keyframe at `key`; call it before the first.

        False when the file did not lead there; the reader is of no more use then. A keyframe may need what is before it (an open
        group of pictures, gradual refresh): whoever must be sure compares the frames. That the file is whole is not checked.
        """
        for early in SEEK_EARLY:
            try:
                self.container.seek(key - round(early / self.info.time_base), stream=self.stream)
                self._decoder.flush_buffers()
                self._times = FrameTimes(self.path, self.container)
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
        raw = has_flag(self.container, Flags.no_timestamps)
        return bool(self.pictures) or raw or self.info.frame_rate == self.stream.guessed_rate

    def first_packets(self) -> dict[int, list[av.Packet[Any]]]:
        """The first packets of all other streams that were come by so far, by stream; call it before the first frame."""
        return {**{index: list(packets) for index, packets in self._packets.items()}, **self._first_packets}

    @property
    def chapters(self) -> list[Any]:
        """The chapters as PyAV has them, cut to the part."""
        found = self.container.chapters()
        return self.part.chapters(found) if self.part else found

    @cached_property
    def coded_settings(self) -> dict[str, int]:
        """See `coded_settings`; as the first picture has them."""
        return coded_settings(self.stream, self._first_packet)

    @property
    def messages(self) -> set[str]:
        """See `messages_of`; of the pictures of the part that were read so far."""
        return {name for name, last in self._messages.items() if self.part is None or not self.part.is_before(last)}

    def _damage_in_words(self) -> list[str]:
        if not self._damage:
            return []
        time, words = self._damage[0]
        where = "" if time is None else f", near {float(time - self.origin):.2f} s"
        return [
            f"the decoder met damage in {len(self._damage)} coded pictures and made up what is missing, the first{where}: {words}"
        ]

    def set_aside(self, streams: set[int]) -> None:
        """Keeps the packets of these streams (indices in the file) for `take_packets`; call it before the first frame.

        Another thread may take them while this one reads frames.
        """
        self._copied = streams
        self._packets = {index: self._packets.get(index, deque()) for index in streams}

    def take_packets(self, until: Fraction | None = None) -> Iterator[av.Packet[Any]]:
        """Hands over the packets set aside while frames were read, each stream's up to its first at `until` seconds or later."""
        for index, packets in self._packets.items():
            while packets and (until is None or _start(packets[0]) < until):
                yield from self._taken(packets.popleft())
            if self.part and index in self._captions and (until is None or until > self.part.start):
                yield from self._captions[index].begin(self.part.start)

    def end_captions(self, until: Fraction) -> Iterator[av.Packet[Any]]:
        """What clears subtitles without an end of their own, where the source goes on behind what was written `until`."""
        if self._ahead is None and not self.broke_off:
            return
        for captions in self._captions.values():
            yield from captions.end(self.part.end if self.part and self.part.end and not self.limit else until)

    def skim(self) -> Iterator[None]:
        """Reads the rest without decoding, for `take_packets`; yields after every packet of the picture.

        Raises VideoError when the file cannot be read to its end, unless the `limit` or `salvage` end the video before.
        """
        try:
            for packet in packets_from_here(self.container):
                if packet.stream is self.stream:
                    self._note_messages(packet)
                    yield
                    if self.part and packet.dts is not None and self.part.is_over(packet.dts * packet.time_base - INTERLEAVED):
                        return
                else:
                    self._set_aside(packet)
        except av.FFmpegError as error:
            if not (self.limit or self.salvage):
                raise VideoError(
                    f"{self.path}: cannot be read to its end ({error.strerror}): get a whole copy of the file"
                ) from error

    def _taken(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        """A packet as it is in the part; none where it is not."""
        if packet.stream.type != "subtitle" or packet.duration:
            if self.part is None or self.part.takes(packet):
                if (anew := self._anew.pop(packet.stream_index, None)) and not packet.has_sidedata(ANEW):
                    packet.set_sidedata(anew)
                yield packet
        elif Captions.are_in(packet.stream):
            captions = self._captions.setdefault(packet.stream_index, Captions(packet.stream))
            if self.part and self.part.is_before(_start(packet)):
                captions.hold(packet)
            elif self.part is None or not self.part.is_over(_start(packet)):
                yield from captions.begin(self.part.start if self.part else Fraction(0))
                captions.hand_out(packet)
                yield packet
        else:
            self._endless.add(packet.stream_index)
            if self.part is None or self.part.takes(packet):
                yield packet

    def close(self) -> None:
        """Closes the file; calling it again does nothing. Frames that were read stay valid."""
        for stream in self._source.container.streams.video:
            if stream.codec_context and stream.codec_context.is_open:
                stream.codec_context.flush_buffers()  # waits for its threads, and lets them log meanwhile, as freeing it does not
        self._source.container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _begin(self, rate: Fraction) -> None:
        """Decodes the first frame of the file."""
        self.container, self.pictures, self._pipe = self._source.container, self._source.pictures, self._source.pipe
        self._layouts = Layouts()
        self.stream = _picture_stream(self.path, self.container)
        self._decoder = decoder_for(self.stream)
        if self._decoder.name in IN_FRAMES and not self.live:
            self._decoder.thread_type = "FRAME"
        elif self._decoder.name == H264:  # which does not call a picture broken where several threads are at one
            self._decoder.thread_count = 1
        by_container = _colour(self._decoder)  # until the first picture is decoded
        self._times = FrameTimes(self.path, self.container)
        self._indexed = len(self.pictures) or self._in_index()
        self._decoded = self._begin_decoding()
        self._ahead = next(self._decoded, None)
        if self._ahead is None:
            raise VideoError(f"{self.path}: no frame of its video stream can be decoded: replace the file")
        self.info = self._described(self._ahead, rate)
        coded = _colour(self._ahead)
        judged = coded[:-1] if self._layouts.rgb_bits else coded  # RGB has no matrix but the one that is made of it here
        if any(one != other and not SAYS_NOTHING & {one, other} for one, other in zip(by_container, judged)):
            said = f"the container says {_joined(by_container)}, the coded picture {_joined(coded)}"
            self._said.append(f"{said} (primaries-transfer-matrix): the output has the picture's")
        if self.info.frame_rate and not self.pictures and self._is_without_rate():
            taken = f"{float(self.info.frame_rate):.5g} frames per second are taken for it, as FFmpeg does"
            self._said.append(f"the stream says no rate: {taken}")
        shape, coded_shape = self.stream.sample_aspect_ratio, self._decoder.sample_aspect_ratio
        if shape and coded_shape and abs(shape - coded_shape) > SAME_SHAPE * coded_shape:
            said = f"the container says that samples are {_ratio(shape)}, the coded picture {_ratio(coded_shape)}"
            self._said.append(f"{said}: the output has the container's")
        started = Fraction(0) if self.pictures else _start_of(self.container)
        wraps = is_format(self.container, WITH_A_CLOCK)  # then what is before the turn is below 0; elsewhere that is priming
        self.origin = started if wraps else max(Fraction(0), started)  # seconds on the file's clock, from which users count

    def _is_without_rate(self) -> bool:
        raw = has_flag(self.container, Flags.no_timestamps) or self.container.format.name.endswith(OF_ONE_PICTURE)
        return raw and not _stated_rate(self._decoder)

    def _described(self, first: av.VideoFrame, rate: Fraction) -> VideoInfo:
        self._stated = {"the rotation": "0 degrees", **_stated(first, self._decoder)}
        self.gop_timecode = _gop_timecode(first)  # what MPEG-2 says of the first picture in its own code; None elsewhere
        info = replace(_describe(self.container, self.stream, self._decoder, first, self._indexed), rgb_bits=self._layouts.rgb_bits)
        if self.pictures:
            return replace(info, time_base=1 / rate, frame_rate=rate, first_pts=0, duration=None)
        return info

    def _enter(self, part: TimeRange, rate: Fraction) -> None:
        """Goes on to the first frame of the part. Raises VideoError where it has none."""
        self.part = Part.of(part, self.origin)
        self.starts = {}
        for packet in chain.from_iterable(self.first_packets().values()):
            self._note_start(packet)
        whole, first = self.info, self.info.first_pts * self.info.time_base
        early = self.part.start - INTERLEAVED  # so that the other streams' packets of the part come, too
        if early > first and self.path.is_file() and not self.playlist and not self._sought(early):
            self.close()
            self._source, self._packets, self._first_packets = open_source(self.path), {}, {}
            self._begin(rate)
        pts = 0
        while self._ahead is not None:
            pts = self._time_of(self._ahead, self._before)
            if pts * whole.time_base >= self.part.start:
                break
            self._passed_over, self._before, self._ahead = self._passed_over + 1, pts, next(self._decoded, None)
        if self._ahead is None or self.part.is_over(pts * whole.time_base):
            last = "" if self._before is None else f", the last one before is at {self.part.text(self._before * whole.time_base)}"
            raise VideoError(f"{self.path}: no frame is shown from {part}{last}: choose another --ss or --to")
        self.side_data = {}
        self._note_side_data(self._ahead)
        self.info = replace(
            self._described(self._ahead, rate),
            first_pts=pts,
            frames=None,
            duration=self.part.length(None if whole.duration is None else first + Fraction(whole.duration)),
        )
        self.pictures = self.pictures[self._passed_over :]
        if timecode := self.part.lost_timecode(self.container):
            self._said.append(f"the timecode {timecode} is not in the output: it is that of the whole file's first frame")

    def _sought(self, time: Fraction) -> bool:
        """Whether decoding goes on from a keyframe that is shown at `time` or before it, or a little later.

        What is shown after a keyframe does not need what is before it in the file, but for gradual refresh, which decoders show
        when it is complete.
        """
        try:
            self.container.seek(math.floor(time / self.info.time_base), stream=self.stream)
            self._decoder.flush_buffers()
            self._times = FrameTimes(self.path, self.container)
            self._first_packets, self._packets = self.first_packets(), {}
            self._decoded = self._begin_decoding(whole=False)
            self._ahead = next(self._decoded, None)
        except (av.FFmpegError, VideoError):
            return False
        return (
            self._ahead is not None
            and self._ahead.pts is not None
            and self._ahead.pts * self.info.time_base <= time + INTERLEAVED / 2
        )

    def _begin_decoding(self, whole: bool = True) -> Iterator[av.VideoFrame]:
        return self._salvaged(whole) if self.salvage else self._decode(whole)

    def _salvaged(self, whole: bool) -> Iterator[av.VideoFrame]:
        """The frames up to the first damage, those that the decoder still holds too."""
        frames = 0
        try:
            for frame in self._decode(whole):
                yield frame
                frames += 1
        except _DamageError as error:
            self.broke_off = True
            self._said.append(str(error).rsplit(":", 1)[0])
            with suppress(av.FFmpegError):
                left = [frame for frame in self._decoder.decode(None) if frames and not frame.is_corrupt]
                yield from (self._made(frame, number) for number, frame in enumerate(left, frames))

    def _decode(self, whole: bool = True) -> Iterator[av.VideoFrame]:
        frames = packets = hidden = 0  # hidden: needed for decoding, not to be shown, as an edit list says
        try:
            for packet in chain(self._whole_packets(), [None]):
                if packet is not None:
                    if not packets:
                        _check_encryption(self.path, packet)
                        check_alpha(self.path, packet, self._decoder)
                        if OTHER_LAYERS not in self._said and layers_of(packet, self._decoder):
                            self._said.append(OTHER_LAYERS)
                        self._first_packet = bytes(packet)
                    packets += 1
                    hidden += packet.is_discard
                    self._times.take(packet)
                complaints: list[str] = []
                with ffmpeg_says(complaints, of=self._decoder.name):
                    made = self._decoder.decode(packet)
                if complaints and packet is not None and (whole or frames):  # not where what is before a keyframe is missing
                    self._damage.append((_start(packet) if packet.pts is not None else None, complaints[0]))
                for decoded in made:
                    yield self._made(decoded, frames)
                    frames += 1
        except av.FFmpegError as error:
            if not frames and self._pipe and self._pipe.index_behind:
                raise VideoError(
                    f"{self.path}: is an MP4 or QuickTime file whose index is at its end, expected it in front in a pipe: give the"
                    " file's name, or write it with -movflags faststart"
                ) from error
            raise self._broken(frames, error.strerror) from error
        except _LossError as error:
            raise self._broken(frames) from error
        if whole:
            self._check_end(frames, packets, hidden)

    def _whole_packets(self) -> Iterator[av.Packet[Any]]:
        """The packets of the picture, the others being set aside. Raises _LossError after one that is not whole.

        One without a byte repeats the picture before it, which lasts longer then, as FFmpeg and AVI have it; it is not handed out.
        A transport stream whose counter jumps has lost packets, unless a keyframe follows: then others were joined to it. Until
        that is known, what follows is not handed out.
        """
        joinable, doubtful = is_format(self.container, {"mpegts"}), False
        waiting: deque[av.Packet[Any]] = deque()
        for packet in packets_from_here(self.container):
            self._note_end(packet)
            if packet.stream is not self.stream:  # the last, empty ones all have stream_index 0
                self._set_aside(packet)
                continue
            if not packet.size:
                self._note_repeat(packet)
                continue
            self._note_messages(packet)
            waiting.append(packet)
            if doubtful:
                doubtful = not (joinable and packet.is_keyframe)
                self._joints += not doubtful
                if doubtful and (len(waiting) == AFTER_A_JUMP or not joinable):
                    raise _LossError
            while waiting and not doubtful:
                doubtful = waiting[0].is_corrupt
                yield waiting.popleft()
        if doubtful:
            raise _LossError

    def _note_repeat(self, packet: av.Packet[Any]) -> None:
        """Of a packet without a byte; those that PyAV puts behind the last one have no time."""
        if packet.pts is not None:
            self._repeats, self._repeated = self._repeats + 1, packet.pts

    def _read_on(self, last: Fraction) -> None:
        """Sets aside what belongs to the frames up to the one at `last` and lies behind them in the file."""
        with suppress(av.FFmpegError):  # damage there is none of this video's
            for packet in packets_from_here(self.container):
                if packet.stream is not self.stream:
                    self._set_aside(packet)
                elif packet.dts is not None and packet.dts * packet.time_base > last + INTERLEAVED:
                    return

    def _made(self, decoded: av.VideoFrame, number: int) -> av.VideoFrame:
        """A decoded frame in a layout that is served, with a time after the one before it."""
        try:
            frame = self._layouts.readable(decoded)
        except VideoError as error:
            raise VideoError(f"{self.path}: frame {number} {error}") from error
        self._check(frame, number)
        if is_format(self.container, NUMBERED):
            frame.pts, frame.duration = None, 0
        if not self.pictures:
            self._times.settle(frame, number, self.stream.time_base or Fraction(1))
        self._note_side_data(frame)
        return frame

    def _note_side_data(self, frame: av.VideoFrame) -> None:
        for data in side_data_of(frame):
            if says_something(data) and data.type.name not in self.side_data:
                time = None if frame.pts is None else frame.pts * (self.stream.time_base or Fraction(1))
                self.side_data[data.type.name] = time

    def _note_messages(self, packet: av.Packet[Any]) -> None:
        self._messages.update(dict.fromkeys(messages_of(packet, self._decoder), _start(packet)))

    def _note_changes(self, frame: av.VideoFrame, pts: int) -> None:
        """Of what the output says once, of the first frame: the first that says otherwise."""
        for what, now in _stated(frame, self._decoder).items():
            if now != self._stated.get(what, now):
                time = 0 if self.pictures else float(pts * self.info.time_base - self.origin)
                self._said.append(
                    f"{what} changes from {self._stated.pop(what)} to {now} near frame {self.frames} ({time:.2f} s), and the output"
                    " has the first throughout: cut the file there to keep both"
                )

    def _in_index(self) -> int:
        """Coded frames that the file says it has; 0 where its format does not say. An index of fragments is known in part only."""
        if not is_format(self.container, MP4_LIKE):
            return 0
        known = len(self.stream.index_entries)
        in_fragments = samples_in_fragments(self.path, self.stream.id) if self.path.is_file() else 0
        return max(known, self.stream.frames + in_fragments) if in_fragments else known

    def _set_aside(self, packet: av.Packet[Any]) -> None:
        self._note_start(packet)
        self._note_hidden(packet)
        if self.part and packet.has_sidedata(ANEW) and self.part.begins_after(_start(packet)):
            self._anew[packet.stream_index] = packet.get_sidedata(ANEW)
        if packet.size and (self._copied is None or packet.stream_index in self._copied):
            kept = self._packets.setdefault(packet.stream_index, deque())
            stands = Captions.are_in(packet.stream)
            if len(kept) < TRIED or stands or self.part is None or not self.part.is_before(_end(packet)):
                kept.append(packet)
            if stands and len(kept) > 2 * TRIED and self.part and self.part.is_before(_end(kept[TRIED])):
                del kept[TRIED]  # what stands when the part begins is among the last ones

    def _note_start(self, packet: av.Packet[Any]) -> None:
        if packet.size and not packet.is_discard and not (self.part and self.part.begins_after(_start(packet))):
            self.starts.setdefault(packet.stream_index, _start(packet))

    def _note_hidden(self, packet: av.Packet[Any]) -> None:
        if packet.size:
            self.begins.setdefault(packet.stream_index, _start(packet))
        if isinstance(packet.stream, AudioStream) and packet.has_sidedata(HIDES) and packet.stream.sample_rate:
            samples = int.from_bytes(bytes(packet.get_sidedata(HIDES))[HIDDEN_AT_END], "little")
            self.hidden_at_end[packet.stream_index] = Fraction(samples, packet.stream.sample_rate)

    def _note_end(self, packet: av.Packet[Any]) -> None:
        if packet.size:
            since = self._since_damage.get(packet.stream_index)
            if packet.is_corrupt or since:
                self._since_damage[packet.stream_index] = 1 if packet.is_corrupt else (since or 0) + 1
        if packet.pts is not None:
            self._seen_until = max(self._seen_until, (packet.pts + (packet.duration or 0)) * packet.time_base)

    def _check(self, frame: av.VideoFrame, number: int) -> None:
        if not number:
            _check_format(self.path, frame.format)
            self._first = (frame.width, frame.height, frame.format.name)
        if frame.is_corrupt:
            raise self._broken(number)
        self.check_kind(frame, f"frame {number}")
        depth = frame.format.components[0].bits
        raw = self.stream.codec_context.name == RAW and 8 < depth < BITS
        if raw and (highest := int(plane_of(frame, 0).max())) >= 1 << depth:
            raise VideoError(
                f"{self.path}: frame {number} has samples up to {highest}, expected {(1 << depth) - 1} at most in {depth} bits:"
                " write it with the pixel format that its samples have"
            )
        if frame.format.name != self._first[2]:
            raise VideoError(
                f"{self.path}: changes from {self._first[2]} to {frame.format.name} at frame {number}: cut it there into two files"
            )

    def check_kind(self, frame: av.VideoFrame, where: str) -> None:
        """Raises VideoError where a frame of this video is interlaced, or of another size than the first."""
        if frame.interlaced_frame:
            raise VideoError(
                f"{self.path}: {where} is interlaced, expected progressive video: deinterlace it first,"
                f" for example {ffmpeg_line(self.path, '-vf bwdif -crf 12', 'progressive.mkv')}"
            )
        if (frame.width, frame.height) != self._first[:2]:
            was = "{}x{}".format(*self._first)
            raise VideoError(
                f"{self.path}: changes from {was} to {frame.width}x{frame.height} at {where}: cut it there into two files"
            )

    def _broken(self, frames: int, reason: str | None = None) -> _DamageError:
        if is_format(self.container, {"ogg"}) and self.path.is_file() and is_chained(self.path):
            return _DamageError(
                f"{self.path}: is a chain, other streams follow behind its frame {frames}, expected one link: cut it apart,"
                " or take the first with videodeblur run --salvage"
            )
        detail = f" ({reason})" if reason else ""
        return _DamageError(
            f"{self.path}: broken or cut off at frame {frames}{detail}: get a whole copy of the file, or take what is before"
            " with videodeblur run --salvage"
        )

    def _check_end(self, frames: int, packets: int, hidden: int) -> None:
        """A file cut off between two frames decodes without an error; an index, a length or the size of packets tell it."""
        declared = Fraction(self.container.duration or 0, CONTAINER_CLOCK)
        if packets + self._repeats < self._indexed:
            raise self._broken(frames, f"it says it has {self._indexed}")
        if self._pipe and self._pipe.cut_within:
            raise self._broken(frames, "it ends within an element")
        if self._pipe and self._pipe.without_index:
            self._said.append(WITHOUT_INDEX)
        if self._pipe and is_format(self.container, {"yuv4mpegpipe"}) and self._pipe.within_a_picture(len(self._first_packet)):
            raise self._broken(frames, "it ends within a picture")
        if frames < packets - hidden and self.stream.codec_context.name not in HIDDEN:
            lost = packets - hidden - frames
            self._said.append(
                f"{lost} of {packets - hidden} coded frames gave no picture, as after a cut that was not at a keyframe"
            )
        if is_format(self.container, {"mpegts"}):
            if (self._pipe or self.path.is_file()) and within_a_packet(self._pipe or self.path):
                raise self._broken(frames, "it ends within a packet of the transport stream")
            damaged = [index for index, since in self._since_damage.items() if since <= AT_THE_END]
            if damaged:
                raise self._broken(frames, f"the last packet of stream {min(damaged)} is not whole")
        if is_format(self.container, SAY_THEIR_LENGTH) and self._seen_until < declared - CUT_OFF:
            raise self._broken(frames, f"at {float(self._seen_until):.2f} of {float(declared):.2f} s")
        try:
            doubt = missing_end(self.path, set(self.container.format.name.split(",")), len(self._first_packet), self._pipe)
        except MissingEndError as error:
            raise self._broken(frames, str(error)) from error
        if doubt:
            self._said.append(doubt)

    def _time_of(self, decoded: av.VideoFrame, previous: int | None) -> int:
        if self.pictures:
            return self._passed_over + self.frames
        if decoded.pts is None:  # raw streams carry no times
            return 0 if previous is None else previous + self._step()
        return decoded.pts

    def _duration_of(self, decoded: av.VideoFrame, pts: int) -> int:
        """Until the next frame. What the decoder says is in decoding order, so only the last frame falls back on it."""
        if self.pictures:
            return 1
        if self._ahead is not None:
            return max(1, self._ahead.pts - pts) if self._ahead.pts is not None else self._step()
        if self.live:
            return decoded.duration or self._step()
        step = decoded.duration or self._step()
        ends = [(self.stream.start_time or 0) + (self.stream.duration or 0)]
        ends += [] if self._repeated is None else [self._repeated + step]
        left = 0 if self.broke_off else max(ends) - pts
        return left if left > 0 else step

    def _step(self) -> int:
        return max(1, round(1 / (self.info.time_base * (self.info.frame_rate or FALLBACK_RATE))))


def says_something(data: SideData) -> bool:
    """Whether side data is of the picture, and not empty."""
    name = data.type.name
    empty = name in EMPTY_WHEN_ZERO and not any(bytes(data))
    return name not in NOT_OF_THE_PICTURE and not empty and not (name == USER_DATA and is_signature(data))


class _LossError(Exception):
    """A packet was not whole."""


class _DamageError(VideoError):
    """The file is broken or cut off."""


def _picture_stream(path: Path, container: InputContainer) -> av.VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        covers = any(stream.type == "video" for stream in container.streams)
        kinds = sorted({stream.type for stream in container.streams if stream.type != "video"} | ({"a cover"} if covers else set()))
        raise VideoError(f"{path}: has no video stream, only {' and '.join(kinds) or 'nothing'}: give a video file")
    if stream.codec_context is None:
        raise VideoError(f"{path}: this FFmpeg has no decoder for its video stream: convert it first")
    return stream


def _start_of(container: InputContainer) -> Fraction:
    """Seconds on the file's clock; FFmpeg rounds it to microseconds, after which a frame at that very time were before it."""
    told = Fraction(container.start_time or 0, CONTAINER_CLOCK)
    exact = (each.start_time * each.time_base for each in container.streams if each.start_time is not None and each.time_base)
    return next((start for start in exact if abs(start - told) * CONTAINER_CLOCK < 1), told)


def _check_encryption(path: Path, packet: av.Packet[Any]) -> None:
    if is_encrypted(packet):
        raise VideoError(f"{path}: its picture is encrypted (CENC), expected one that is not: decrypt it with its key first")


def _describe(
    container: InputContainer, stream: av.VideoStream, decoder: av.VideoCodecContext, first: av.VideoFrame, indexed: int
) -> VideoInfo:
    assert stream.time_base is not None  # FFmpeg gives every video stream one
    name, stated = first.format.name, first.color_range
    duration = stream.duration * stream.time_base if stream.duration else Fraction(container.duration or 0, CONTAINER_CLOCK)
    return VideoInfo(
        width=first.width,
        height=first.height,
        pixel_format=name,
        bits=first.format.components[0].bits,
        rgb_bits=None,
        chroma_step=WIDE // first.format.chroma_width(WIDE),
        color_range=_range(first),
        color_tags=(stated, first.colorspace, first.color_primaries, first.color_trc),
        codec=stream.codec_context.name,
        time_base=stream.time_base,
        first_pts=first.pts or 0,
        frame_rate=(_stated_rate(decoder) if has_flag(container, Flags.no_timestamps) else None) or _rate(stream, first),
        frames=indexed or stream.frames or None,
        duration=float(duration) or None,
        sample_aspect_ratio=stream.sample_aspect_ratio or decoder.sample_aspect_ratio,
        rotation=first.rotation,
        display_matrix=_display_matrix(first),
        hdr=_hdr(first),
        side_data=frozenset(data.type.name for data in side_data_of(first) if says_something(data)),
        signed=has_signature(first),
    )


def _stated(frame: av.VideoFrame, decoder: av.VideoCodecContext) -> dict[str, str]:
    """What an output says of all its frames, in words; the decoder has the aspect ratio of the frame that it gave last."""
    aspect = decoder.sample_aspect_ratio or Fraction(1)
    rotation = f"{frame.rotation} degrees" if _display_matrix(frame) else ""
    return {
        "the colour (primaries-transfer-matrix)": _joined(_colour(frame)),
        "the range of samples": _range(frame),
        "the shape of samples": _ratio(aspect),
        **({"the rotation": rotation} if rotation else {}),
        **({"the HDR10 metadata": hdr} if (hdr := str(_hdr(frame))) else {}),
    }


def _ratio(shape: Fraction) -> str:
    return f"{shape.numerator}:{shape.denominator}"


def _range(frame: av.VideoFrame) -> str:
    full = frame.color_range == FULL or (frame.color_range == NOT_STATED and frame.format.name.startswith(("yuvj", "gray")))
    return "full" if full else "limited"


def _colour(told: av.VideoFrame | av.VideoCodecContext) -> tuple[int, int, int]:
    """Primaries, transfer and matrix, as ITU-T H.273 numbers them."""
    return told.color_primaries, told.color_trc, told.colorspace


def _joined(colour: tuple[int, ...]) -> str:
    return "-".join(map(str, colour))


def _stated_rate(decoder: av.VideoCodecContext) -> Fraction | None:
    """What the coded picture says, unless it is a clock whose ticks are no frames."""
    rate: Fraction | None = decoder.framerate
    return rate if rate and rate <= MOST_FRAMES else None


def _rate(stream: av.VideoStream, first: av.VideoFrame) -> Fraction | None:
    """The one that all frames fit where the average is about that, or cannot be, as a clock of AVI that is taken for a rate.

    Where so few frames came at the beginning that there is no average, one lasts as long as the first.
    """
    average, fitting = stream.average_rate, stream.guessed_rate
    if average and fitting:
        near = abs(average - fitting) <= SAME_RATE * fitting
        return fitting if near or (average > MOST_FRAMES and fitting < MOST_AVERAGE) else average
    if fitting and fitting > MOST_FRAMES and stream.time_base and first.duration:
        return 1 / (first.duration * stream.time_base)
    return average or fitting


def _check_format(path: Path, pixel_format: av.VideoFormat) -> None:
    """Luma first, each component in a plane of its own, 8 to 16 bits, in this machine's order of bytes."""
    parts = pixel_format.components
    planar = [part.plane for part in parts] == list(range(len(parts))) and not pixel_format.has_palette
    luma = planar and parts[0].is_luma and not pixel_format.is_bayer
    if luma and 8 <= parts[0].bits <= 16 and not pixel_format.is_big_endian and "f16" not in pixel_format.name:
        return
    if "f32" in pixel_format.name or "f16" in pixel_format.name:
        raise VideoError(
            f"{path}: its samples are {pixel_format.name}, floats of linear light as in EXR, expected codes as screens take them:"
            " apply a transfer curve first, and write 16-bit PNG or TIFF, with the program that made them"
        )
    raise VideoError(
        f"{path}: its samples are {pixel_format.name}, expected planar YUV or gray of 8 to 16 bits: convert it first,"
        f" for example {ffmpeg_line(path, '-pix_fmt yuv444p -c:v ffv1', 'converted.mkv')}"
    )


def _hdr(frame: av.VideoFrame) -> Hdr:
    found = {data.type: bytes(data) for data in side_data_of(frame)}
    return Hdr.from_side_data(found.get(SideDataType.MASTERING_DISPLAY_METADATA), found.get(SideDataType.CONTENT_LIGHT_LEVEL))


def _gop_timecode(frame: av.VideoFrame) -> str | None:
    """The 25 bits of ISO/IEC 13818-2, 6.3.8."""
    found = [int.from_bytes(bytes(data), sys.byteorder) for data in side_data_of(frame) if data.type == SideDataType.GOP_TIMECODE]
    if not found:
        return None
    hours, minutes, seconds, pictures = (found[0] >> shift & mask for shift, mask in ((19, 0x1F), (13, 0x3F), (6, 0x3F), (0, 0x3F)))
    return f"{hours:02}:{minutes:02}:{seconds:02}{';' if found[0] >> 24 & 1 else ':'}{pictures:02}"


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    found = [data for data in side_data_of(frame) if data.type == SideDataType.DISPLAYMATRIX]
    return tuple(np.frombuffer(bytes(found[0]), np.int32).tolist()) if found else None


def _start(packet: av.Packet[Any]) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    return (time or 0) * packet.time_base


def _end(packet: av.Packet[Any]) -> Fraction:
    return _start(packet) + (packet.duration or 0) * packet.time_base
