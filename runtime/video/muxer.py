"""`Muxer`: an output container from its header to its trailer, the encoder of its picture and the streams that it copies."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.format import Flags
from av.stream import Stream

from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.files.time_ranges import clock
from runtime.machine.scheduling import own_scheduling
from runtime.video.avi_sound import count_packets
from runtime.video.codec_delay import delayed
from runtime.video.coded_settings import with_coded_settings
from runtime.video.cover_art import attach
from runtime.video.format import FALLBACK_RATE, FULL, LIMITED, MP4_LIKE, VideoInfo, codec_name, ffmpeg_says, has_flag, is_format
from runtime.video.fragments import append_xmp, gamma_of
from runtime.video.hdr import with_hdr
from runtime.video.layouts import finer, narrower, range_of
from runtime.video.output_place import OTHER, REMEDIES, refused
from runtime.video.packet_times import ALL_AT_ONCE, LOOKED_THROUGH, MATROSKA, FrameTimes, RisingTimes, common_start
from runtime.video.reader import HIDES, VideoReader
from runtime.video.sink import Sink
from runtime.video.sound_holes import Holes
from runtime.video.sound_settings import SoundSettings
from runtime.video.sources import STANDARD
from runtime.video.track_headers import set_track_headers, track_headers_of
from runtime.video.transport_stream import NUMBERS, TIMED_PACKET, Program, TransportStream
from runtime.video.user_data import with_user_data

NOT_METADATA = {"encoder", "major_brand", "minor_version", "compatible_brands"}  # facts of the source's container
STATISTICS = ("_STATISTICS", "BPS", "DURATION", "NUMBER_OF_BYTES", "NUMBER_OF_FRAMES")  # Matroska's, not true after encoding
Y4M = "yuv4mpegpipe"  # pictures alone, in all but name raw
KEPT, MOST_SAMPLES = 1 << 24, 6  # bytes of what goes down a pipe, and of a picture of y4m for each pixel
PIPED = (Y4M, "nut", "matroska")  # what a reader at the end of a pipe can do with
PICTURE_FIRST = {"mxf", "mxf_d10"}  # muxers that take no sound alone, nor in front of the picture
NO_VIDEO = {"none", "png"}  # usual video codecs of containers of sound, some of which have a cover, and of subtitles
WARM_UP = Fraction(1, 10)  # seconds of hidden sound that decoders may need, and muxers tell of in their own ways
SOME_ENCODERS = "libx264, libx265, libsvtav1 or ffv1"
REORDERED = 32  # pictures, the most between one and the next to be shown
FEWEST_REORDERED = 3  # frames: one that is decoded before it is shown needs one on each side
MOST_TICKS, MOST_REPEATS = (1 << 31) - 1, 60000  # that FFmpeg lets a picture last in MP4, and be repeated in AVI
SEGMENT_START = 60  # seconds; NUT has no negative times, and decoding starts before the first picture is shown
ANY_FORMAT = "-c ffv1 with an .mkv output is lossless and takes any format and nearly any size"
COUNT_FRAMES = {"mpeg4", "libxvid"}  # encoders that state their clock as the rate, beside those that list the rates they know
TAGS = ({"hevc": "hvc1"}, {"hevc": "hev1", "h264": "avc3"})  # of MP4; the second where settings may stand beside the pictures
TAG = "tag"  # FFmpeg's option of a stream, not of its encoder
TIMECODE, REEL, XMP = "timecode", "reel_name", "xmp"
AVI, MPEG_TS = {"avi"}, {"mpegts"}
CAMCORDERS = {".mts", ".m2ts"}  # suffixes of transport streams with a time in front of each packet; FFmpeg knows the second
TELEMETRY = {"klv"}  # codecs that FFmpeg writes to a transport stream without times, if each packet says that it is private
STREAM_ID: Final = "mpegts_stream_id"  # side data of packets from a transport stream, one byte
PRIVATE, OF_METADATA = b"\xbd", b"\xfc"  # ISO/IEC 13818-1, table 2-22; the second is FFmpeg's own choice for telemetry
DECODING_TIMES_ONLY = {"avi", "asf", "asf_stream"}  # containers that do not say when a picture is shown
SAY_THEIR_DELAY = {"opus", "libopus"}  # codecs whose own header does
REORDERING = ("bframes", "bf=", "b-adapt")  # in an encoder's own list of settings
DROPS, DROPPED_FRAMES = ";", 30  # 01:02:03;04 leaves numbers out, and has 30 frames per second or a multiple


@dataclass(frozen=True)
class OutputPlan:
    """What is written."""

    path: Path  # as the user named it, for errors; "-" for standard output
    reader: VideoReader
    encoder: EncoderOptions
    width: int  # pixels
    segment: bool = False  # the picture alone, to be joined
    coded: bool = False  # the pictures come from segments
    streams: tuple[int, ...] = ()  # of the source, which are copied
    covers: tuple[int, ...] = ()  # of the source, which become attachments
    spliced: bool = False  # pictures of two encoders, each with its settings beside it
    any_key: bool = False  # MP4 with QuickTime's metadata keys, which may have any name, instead of iTunes' few

    @property
    def kind(self) -> str | None:
        """FFmpeg's name of the container; None = by the suffix."""
        return "nut" if self.segment else self.encoder.format

    @property
    def rate(self) -> Fraction:
        """Frames per second that are stated."""
        return self.reader.info.frame_rate or Fraction(FALLBACK_RATE)

    @cached_property
    def format(self) -> str:
        """FFmpeg's name of the container. Raises InputError where there is none."""
        try:
            with av.open(self.path.name, "w", format=self.kind) as container:  # no file is made before the header is
                found, usual = str(container.format.name), container.default_video_codec
        except ValueError as error:
            asked = f"-f {self.kind}" if self.kind else self.path.suffix or "no suffix"
            other = "-f mp4, matroska or mov" if self.kind else ".mp4, .mkv or .mov"
            raise InputError(f"{self.path}: {asked} is no video format: take {other}") from error
        if usual in NO_VIDEO and found != "matroska":
            raise InputError(f"{self.path}: {self.kind or self.path.suffix} has no place for video: take .mp4, .mkv or .mov")
        if found.startswith("image2"):
            numbered = self.path.with_name(f"{self.path.stem}_%05d.png")
            raise InputError(
                f"{self.path}: {self.path.suffix} is a picture, expected a video format: take .mp4, .mkv or .mov, or for pictures"
                f" a name with a number, such as {numbered}"
            )
        return found

    @cached_property
    def program(self) -> Program | None:
        """The program of a transport stream whose numbers another can have."""
        container, picture = self.reader.container, self.reader.stream
        if not (is_format(container, MPEG_TS) and self.is_format(MPEG_TS) and self.reader.path.is_file()):
            return None
        if (program := TransportStream(self.reader.path).program_with(picture.id)) is None:
            return None
        numbers = [program.table, *(container.streams[index].id for index in (picture.index, *self.streams))]
        return program if len({*numbers}) == len(numbers) and all(number in NUMBERS for number in numbers) else None

    @property
    def has_timed_packets(self) -> bool:
        """Whether each packet of a transport stream gets a time, as in a camcorder's."""
        reader = self.reader
        from_one = is_format(reader.container, MPEG_TS) and TransportStream(reader.path).packet_size == TIMED_PACKET
        return from_one and self.is_format(MPEG_TS) and self.path.suffix.lower() in CAMCORDERS

    @property
    def without_times(self) -> str:
        """The note where frames come at other times than an output that only counts them says."""
        return f"the times of the frames are not in the output: {self.where} has one rate, {float(self.rate):.5g} per second"

    @property
    def where(self) -> str:
        """The container, as users know it."""
        return self.path.suffix or {Y4M: "y4m"}.get(self.format, self.format)

    def is_format(self, formats: set[str]) -> bool:
        """Whether the container is one of these."""
        return self.format in formats


class Muxer:
    """Writes pictures and packets of the source to `target`, a file's path or a file in memory; "-" in the plan is stdout.

    The header is written at once. Raises VideoError when the encoder or the container refuses.
    """

    def __init__(self, plan: OutputPlan, target: Path | BinaryIO) -> None:
        self._plan, self._info, self._target = plan, plan.reader.info, target
        self.coded = 0  # pictures in the container
        self._handed = 0  # pictures to the encoder
        self._first: int | None = None  # when the first picture is shown, as the source counts
        self._uneven = False  # whether pictures are shown a step or more from where the stated rate has them
        self.begins: dict[int, Fraction] = {}  # seconds, as the source counts, of the first packet that was copied of each stream
        self.holes: dict[int, Holes] = {}  # of the sound that was copied, as the source counts
        self._changed: dict[int, Fraction] = {}  # seconds, as the source counts, at which sound has other settings
        self._heard: set[int] = set()  # streams of the source of which something is in the output that is not hidden
        self._hidden: Counter[int] = Counter()  # packets behind that, which are
        self._shown: deque[int] = deque(maxlen=REORDERED)  # when the last pictures are, in ticks of the output
        self.first_times: list[Fraction] = []  # seconds at which the first pictures are shown, in the order of decoding
        self._at_once = 0  # pictures that are shown when another is
        self._reordered = False  # whether pictures are coded in another order than they are shown
        self._file: BinaryIO | None = None
        self.sink: Sink | None = None  # of a pipe, or y4m
        self._counted: FrameTimes | None = None
        self._program = plan.program
        self.container = self._open(target)
        try:
            self.start = Fraction(0) if plan.segment else common_start(plan.reader, self.container)
            self._shift = segment_shift(plan.reader) if plan.segment else -round(self.start / self._info.time_base)
            first = [] if plan.is_format(PICTURE_FIRST) else [index for index in plan.streams if index < plan.reader.stream.index]
            self._copies = self._add_copies(first)
            self.stream = self._add_picture()
            self._copies.update(self._add_copies([index for index in plan.streams if index not in first]))
            sounds = {index for index, copy in self._copies.items() if copy.type == "audio"}
            self._settings = {index: SoundSettings(plan.reader.container.streams[index]) for index in sounds}
            self._sounds = {self._copies[index].index: index for index in sounds}
            self._attach_covers()
            with explained(plan.path, "cannot be written", self._another_codec(), logged=True):
                told = metadata_of(plan.reader.container.metadata, without=(TIMECODE,))
                self._xmp = told.pop(XMP, "") if plan.is_format(MP4_LIKE - {"mov"}) else ""
                self.container.metadata.update({**told, **(self._program.metadata if self._program else {})})
                self.container.set_chapters(_moved(plan.reader.chapters, self.start))
                self.container.start_encoding()
            strict = not has_flag(self.container, Flags.ts_nonstrict)
            self.times = {stream.index: RisingTimes(strict) for stream in self.container.streams}
            self._headers = self._repeated_headers()
        except BaseException:
            self.abandon()
            raise

    def blank(self) -> av.VideoFrame:
        """A picture as the encoder takes it."""
        return av.VideoFrame(self._plan.width, self._info.height, self.stream.pix_fmt or "")

    def write(self, picture: av.VideoFrame, pts: int, duration: int) -> None:
        """Encodes a picture; its time as the source counts."""
        if self._counted is None:
            picture.pts, picture.duration, picture.time_base = pts + self._shift, duration, self._info.time_base
        else:
            picture.pts, picture.duration, picture.time_base = self._handed, 1, 1 / self._counted.rate
            self._counted.add(pts + self._shift, duration)
        self._first = pts if self._first is None else self._first
        off = (pts - self._first) * self._info.time_base - self._handed / self._plan.rate
        self._uneven |= abs(off) * self._plan.rate > 1
        self._handed += 1
        self._mux(self.stream.encode(picture))

    def write_coded(self, packet: av.Packet[Any], pts: int, dts: int, duration: int, copied: bool = False) -> None:
        """Takes a coded picture, `copied` from the source or made here; its times as the source counts."""
        packet.time_base = self._info.time_base
        packet.pts, packet.dts, packet.duration = pts + self._shift, dts + self._shift, duration
        for each in self._headers.filter(packet) if self._headers and not copied else [packet]:
            self._send(each, self.stream)
        self.coded += 1

    def copy(self, packet: av.Packet[Any], index: int) -> None:
        """Takes a packet of the source's stream of this index; one that an edit list hides stays hidden, or is left out.

        In front of what is heard from the start on MP4 hides it again, and so much as a decoder needs to warm up is no matter
        anywhere. What comes later is hidden by no output.
        """
        moved = round(self.start / packet.time_base)
        packet.pts, packet.dts = (None if time is None else time - moved for time in (packet.pts, packet.dts))
        if not packet.is_discard:
            self._heard.add(index)
        elif index in self._heard:
            self._hidden[index] += 1
            return
        elif self._is_early(packet, index):
            return
        if packet.pts is not None:
            self.begins.setdefault(index, packet.pts * packet.time_base + self.start)
        if index in self._settings and self._settings[index].take(packet):
            self._changed[index] = (packet.pts or 0) * packet.time_base + self.start
        if packet.has_sidedata(STREAM_ID) and codec_name(packet.stream) in TELEMETRY:
            number = packet.get_sidedata(STREAM_ID)
            if bytes(number) == PRIVATE:
                number.update(OF_METADATA)
                packet.set_sidedata(number)
        self._send(packet, self._copies[index])

    def _is_early(self, packet: av.Packet[Any], index: int) -> bool:
        """Whether a hidden packet, its time moved, would be heard, or come long before what is."""
        begin = self._begin_of(index) - self.start
        early = packet.pts is not None and packet.pts * packet.time_base < begin - WARM_UP
        return early and not (self._plan.is_format(MP4_LIKE) and begin <= 0)

    def _begin_of(self, index: int) -> Fraction:
        """Seconds, as the source counts, at which something of a stream is heard."""
        source = self._plan.reader.container.streams[index]
        return (source.start_time or 0) * (source.time_base or Fraction(0))

    def finish(self) -> None:
        """Writes what the encoder still holds, and the trailer."""
        if self._handed:
            packets = self.stream.encode(None)
            if self._handed < FEWEST_REORDERED:
                for packet in packets:
                    packet.dts = packet.pts  # libx265 makes decoding times up when there are so few
            self._mux(packets)
        self.container.close()
        if self._file:
            self._file.close()
        if self._xmp and isinstance(self._target, Path):
            append_xmp(self._target, self._xmp)
        if isinstance(self._target, Path) and self._plan.is_format(MP4_LIKE):
            self._set_track_headers(self._target)
        if isinstance(self._target, Path) and self._plan.is_format(AVI):
            count_packets(self._target, {self._copies[index].index: holes for index, holes in self.holes.items()})

    def _set_track_headers(self, written: Path) -> None:
        """Of the streams that another MP4 had: whether they are heard and shown unless a viewer chooses others."""
        reader = self._plan.reader
        if is_format(reader.container, MP4_LIKE) and reader.path.is_file():
            known = track_headers_of(reader.path)
            found = {copy.index: known.get(reader.container.streams[index].id) for index, copy in self._copies.items()}
            set_track_headers(written, {place: header for place, header in found.items() if header})

    def abandon(self) -> None:
        """Closes all; what is written is of no use."""
        with suppress(av.FFmpegError, OSError):  # the reason is already on its way
            self.container.close()
        if self._file:
            with suppress(OSError):
                self._file.close()

    def notes(self) -> Iterator[str]:
        """What was changed on the way."""
        for index, copy in self._copies.items():
            if count := self._hidden[index]:
                what = "1 packet" if count == 1 else f"{count} packets"
                yield f"{copy.type} stream {index}: without {what} that an edit list hides in its middle"
            if times := self.times[copy.index].told():
                yield f"{copy.type} stream {index}: {times}"
        for index, time in self._changed.items():
            if not self._settings[index].kept_by(self._plan.format):
                at = clock(round(time - self._plan.reader.origin, 2))
                told = f"audio stream {index} {self._settings[index].told} at {at}"
                yield f"{told}, {self._plan.where} has the first throughout: {self._settings[index].remedy}"
        if times := self.times[self.stream.index].told():
            yield f"the picture in {self._plan.where}: {times}"
        if self._at_once:
            ticks = f"the clock of {self._plan.where} ticks every {float(self.stream.time_base or 0) * 1000:.3g} ms"
            yield f"{ticks}: {self._at_once} pictures have the time of another, an .mp4 keeps them apart"
        if self._uneven and self._plan.is_format({Y4M}):
            yield self._plan.without_times
        if self._reordered and self._plan.is_format(DECODING_TIMES_ONLY):
            yield f"B-frames in {self._plan.where} have no times there, and may be shown in the wrong order: -e bf=0 avoids them"

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            self.coded += 1
            if self._counted:
                self._counted.put(packet, self._info.time_base)
            self._send(packet, self.stream)

    def _send(self, packet: av.Packet[Any], stream: Stream) -> None:
        assert stream.time_base is not None  # the header is written
        self.times[stream.index].settle(packet, stream.time_base)
        if stream.index in self._sounds:
            self.holes.setdefault(self._sounds[stream.index], Holes()).take(packet, self.start)
        if stream.index == self.stream.index and packet.pts is not None:
            self._reordered |= packet.pts != packet.dts
            self._at_once += packet.pts in self._shown
            self._shown.append(packet.pts)
            if len(self.first_times) < LOOKED_THROUGH:
                self.first_times.append(packet.pts * packet.time_base)
        packet.stream = stream
        self.container.mux(packet)

    def _open(self, target: Path | BinaryIO) -> OutputContainer:
        plan, info = self._plan, self._info
        piped, bare = plan.path == STANDARD, plan.is_format({Y4M})
        if not piped and not bare:
            return open_output(plan, target)
        file, kept = target, 0
        if isinstance(file, Path):
            file = self._file = open(1 if piped else file, "wb", buffering=0, closefd=not piped)  # noqa: SIM115
            kept = KEPT + (MOST_SAMPLES * info.width * info.height if bare else 0) if piped else 0
        self.sink = Sink(file, info.sample_aspect_ratio if bare else None, kept)
        return open_output(plan, cast("BinaryIO", self.sink))

    def _add_picture(self) -> av.VideoStream:
        plan, info, codec = self._plan, self._info, self._plan.encoder.codec
        stream = self._new_stream(codec)
        if self._program:
            stream.id = plan.reader.stream.id
        context, options = stream.codec_context, plan.encoder.resolved()
        tags = TAGS[plan.spliced] if plan.is_format(MP4_LIKE) else {}
        tag = options.pop(TAG, tags.get(str(av.Codec(codec, "w").canonical_name), ""))
        if tag and not plan.segment:
            context.codec_tag = _four(tag)
        context.width, context.height = plan.width, info.height
        context.pix_fmt = encoded_format(codec, info)
        context.time_base = 1 / self._counted.rate if self._counted else info.time_base
        stream.time_base = 1 / plan.rate if self._states_rate() else info.time_base
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        stated, context.colorspace, context.color_primaries, context.color_trc = info.color_tags
        written = range_of(info, context.pix_fmt)
        context.color_range = FULL if written == "full" else stated if written == info.color_range else LIMITED
        context.flags |= av.codec.context.Flags.frame_duration
        if plan.coded:
            context.flags |= av.codec.context.Flags.global_header  # as the segments have it, whatever the container
        options = with_user_data(codec, with_hdr(codec, options, info.hdr), info)
        context.options = with_coded_settings(codec, options, plan.reader.coded_settings, context.pix_fmt)
        known = metadata_of(plan.reader.stream.metadata, without=(*STATISTICS, TIMECODE, REEL, REEL.upper()))
        stream.metadata.update(_named(known))
        timecode = timecode_of(plan.reader)  # from which MP4 and QuickTime make a track
        if timecode and not (DROPS in timecode and round(plan.rate) % DROPPED_FRAMES):
            stream.metadata[TIMECODE] = timecode
        if reel := reel_of(plan.reader):
            stream.metadata[REEL] = reel
        stream.disposition = plan.reader.stream.disposition
        if info.display_matrix:
            stream.set_display_matrix(info.display_matrix)
        refused = f"{codec} refuses {plan.width}x{info.height} {context.pix_fmt}"
        other = ANY_FORMAT if codec != "ffv1" else "scale the video first"
        with explained(plan.path, refused, f"change its options, or {other}", logged=True), own_scheduling():
            context.open()
        if context.options:
            unknown = ", ".join(f"{name}={value}" for name, value in context.options.items())
            raise InputError(f"{codec} has no option {unknown}: ffmpeg -h encoder={codec} lists what it has")
        return stream

    def _new_stream(self, codec: str) -> av.VideoStream:
        plan = self._plan
        try:
            encoder = av.Codec(codec, "w")
            if encoder.type != "video":
                raise InputError(f"{codec} does not encode video: take {SOME_ENCODERS}")
        except av.codec.codec.UnknownCodecError as error:
            raise InputError(f"there is no encoder {codec!r} here: take {SOME_ENCODERS}") from error
        self._counted = _counted(encoder, plan)
        try:
            rate = self._counted.rate if self._counted else plan.rate
            return cast("av.VideoStream", self.container.add_stream(codec, rate=rate))
        except ValueError as error:
            raise InputError(f"{plan.path.suffix} cannot hold {codec} video: {self._another_suffix()}") from error

    def _another_codec(self) -> str:
        """What helps where a container refuses a codec only when it is begun, as y4m and Ogg do."""
        usual = self.container.default_video_codec
        return "" if usual in (self.stream.codec_context.name, self._plan.encoder.codec) else self._another_suffix()

    def _another_suffix(self) -> str:
        """And the encoder that is usual for this one, where it takes the video."""
        others = "take .mp4, .mkv or .mov"
        with suppress(InputError, av.codec.codec.UnknownCodecError):
            encoder = av.Codec(self.container.default_video_codec, "w").name
            encoded_format(encoder, self._info)
            return f"add -c {encoder}, or {others}"
        return others

    def _states_rate(self) -> bool:
        """Whether the container's clock is its frame rate, as in y4m and AVI; uneven times are kept where it can have them."""
        variable = has_flag(self.container, Flags.variable_fps)
        return self._plan.is_format({Y4M}) or (not variable and self._plan.reader.even)

    def _add_copies(self, indices: Iterable[int]) -> dict[int, Stream]:
        """Output streams by the index of the source stream whose packets they take."""
        copies = {}
        for index in indices:
            source = self._plan.reader.container.streams[index]
            copies[index] = copy = self._add_copy(index)
            if self._program:
                copy.id = source.id
            copy.metadata.update(_named(metadata_of(source.metadata)))
            copy.disposition = source.disposition
            _settle_layout(copy)
        return copies

    def _add_copy(self, index: int) -> Stream:
        source = self._plan.reader.container.streams[index]
        hidden = self._hidden_in_front(index) if self._plan.is_format(MATROSKA) else Fraction(0)
        if not hidden:
            return self.container.add_stream_from_template(source)
        with delayed(source, hidden) as template:
            return self.container.add_stream_from_template(template or source, time_base=source.time_base)

    def _hidden_in_front(self, index: int) -> Fraction:
        """Seconds at the beginning of sound that an edit list hides, and that are copied all the same."""
        reader = self._plan.reader
        source, begins = reader.container.streams[index], self._begin_of(index)
        if source.type != "audio" or not is_format(reader.container, MP4_LIKE) or codec_name(source) in SAY_THEIR_DELAY:
            return Fraction(0)
        if reader.part and reader.part.is_cut:
            return Fraction(0)
        hidden = (packet for packet in reader.first_packets().get(index, []) if packet.is_discard or packet.has_sidedata(HIDES))
        times = (packet.pts * packet.time_base for packet in hidden if packet.pts is not None)
        return next((begins - time for time in times if begins - WARM_UP <= time < begins), Fraction(0))

    def _attach_covers(self) -> None:
        first = self._plan.reader.first_packets() if self._plan.covers else {}
        for index in self._plan.covers:
            attach(self.container, self._plan.reader.container.streams[index], first[index][0])

    def _repeated_headers(self) -> BitStreamFilterContext | None:
        """Segments say what is common to all pictures once; containers without a place for it want it at every keyframe."""
        if not self._plan.coded or (has_flag(self.container, Flags.global_header) and not self._plan.spliced):
            return None
        return BitStreamFilterContext("dump_extra", self.stream) if self.stream.codec_context.extradata else None


def open_output(plan: OutputPlan, target: Path | BinaryIO) -> OutputContainer:
    """The plan's container, to be written to `target`. Raises InputError where it is none, VideoError without its folder."""
    path, piped = plan.path, plan.path == STANDARD
    if piped and plan.kind not in PIPED:
        raise InputError(f"the format of standard output is {plan.kind}, expected one of {', '.join(PIPED)}")
    if not path.parent.is_dir():
        raise VideoError(f"{path}: there is no folder {path.parent}: make it first")
    options, time_base = {"movflags": "+faststart"}, plan.reader.info.time_base  # the index in front: players start at once
    if plan.any_key:
        options["movflags"] += "+use_metadata_tags"
    if gamma := _gamma_for(plan):
        options["movflags"] += "+write_gama"
        options["mov_gamma"] = str(float(gamma))
    if time_base.numerator == 1:  # exact times; by default start times are rounded to milliseconds
        options.update(movie_timescale=str(time_base.denominator), video_track_timescale=str(time_base.denominator))
    if plan.is_format({Y4M}):
        options = {"strict": "-1"}  # more than 8 bits
    if piped:
        options["flush_packets"] = "1"  # whoever reads has a frame when it is written
    if plan.reader.live:
        options["max_interleave_delta"] = "1"  # microsecond: no frame waits for sound or subtitles that come later
    if plan.program:
        options.update(plan.program.options)
    if plan.has_timed_packets:
        options["mpegts_m2ts_mode"] = "1"
    if plan.segment:
        options["avoid_negative_ts"] = "disabled"  # which would move all times, by another amount in every segment
    file = str(target.absolute()) if isinstance(target, Path) else target
    return av.open(file, "w", format=plan.format, container_options=options, metadata_errors="surrogateescape")


def _gamma_for(plan: OutputPlan) -> Fraction | None:
    reader = plan.reader
    kept = is_format(reader.container, MP4_LIKE) and reader.path.is_file() and plan.is_format({"mov"})
    return gamma_of(reader.path) if kept and not plan.segment else None


def in_order(plan: OutputPlan) -> OutputPlan:
    """The plan, without B-frames where the container says when pictures are decoded alone, unless the user chose otherwise."""
    options = plan.encoder.options
    chosen = "bf" in options or any(word in value for value in options.values() for word in REORDERING)
    if chosen or not plan.is_format(DECODING_TIMES_ONLY):
        return plan
    return replace(plan, encoder=replace(plan.encoder, options={**options, "bf": "0"}))


def longest_still(plan: OutputPlan) -> Fraction | None:
    """Seconds that a picture may be shown at most, until the next one; None where there is no bound that matters."""
    if plan.is_format(MP4_LIKE):
        return MOST_TICKS * plan.reader.info.time_base
    return MOST_REPEATS / plan.rate if plan.is_format(ALL_AT_ONCE) else None


def segment_shift(reader: VideoReader) -> int:
    """What is added to a time of the video, in its time base, to have that of a segment, which is never negative."""
    return round(SEGMENT_START / reader.info.time_base) - reader.info.first_pts


def metadata_of(metadata: dict[str, str], without: tuple[str, ...] = ()) -> dict[str, str]:
    """What is said of the content, not of the container that had it."""
    return {
        name: value
        for name, value in metadata.items()
        if name.lower() not in NOT_METADATA and not (without and name.startswith(without))
    }


def _named(metadata: dict[str, str]) -> dict[str, str]:
    """A track's name, which is read as "name" from MP4 and written from "title" to it."""
    return {"title": metadata["name"], **metadata} if "name" in metadata else metadata


def timecode_of(reader: VideoReader) -> str | None:
    """The timecode of the first frame, which containers keep in several places; none of a part that begins later."""
    if reader.part and reader.part.is_cut:
        return None
    tracks = [track for track in reader.container.streams if is_timecode_track(reader, track)]
    told = [reader.stream.metadata, reader.container.metadata, *(track.metadata for track in tracks)]
    return next((metadata[TIMECODE] for metadata in told if metadata.get(TIMECODE)), None)


def reel_of(reader: VideoReader) -> str | None:
    """The name of the tape or card that a timecode counts on, which QuickTime keeps beside it."""
    told = [reader.container.metadata, *(stream.metadata for stream in reader.container.streams)]
    return next((value for metadata in told for name, value in metadata.items() if name.lower() == REEL and value), None)


def is_timecode_track(reader: VideoReader, source: Stream) -> bool:
    """QuickTime's, whose content is a number that its metadata tell too."""
    return source.type == "data" and TIMECODE in source.metadata and is_format(reader.container, MP4_LIKE)


def encoded_format(codec: str, info: VideoInfo) -> str:
    """The encoder's name for the source's format, or the closest that holds it; yuvj420p is yuv420p, its range said elsewhere."""
    pixel_format = info.pixel_format
    offered = [known.name for known in av.Codec(codec, "w").video_formats or ()]
    for name in (pixel_format, pixel_format.replace("yuvj", "yuv"), *narrower(info), *finer(info, offered)):
        if not offered or name in offered:
            return name
    known = f"{pixel_format} (RGB, as it is read)" if info.rgb_bits else pixel_format
    raise InputError(f"{codec} does not take {known}, it takes {', '.join(offered[:12])}: {ANY_FORMAT}")


@contextmanager
def explained(path: Path, what: str, remedy: str = "", logged: bool = False) -> Iterator[None]:
    """Turns FFmpeg's errors into ours, those of a place into PlaceError; `logged` adds what FFmpeg says, which costs time."""
    said: list[str] = []
    try:
        with ffmpeg_says(said) if logged else nullcontext():
            yield
    except VideoError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:  # not the system's: a signal handler's own, such as TimeoutError
            raise
        if not isinstance(error, ValueError) and error.errno in REMEDIES:
            raise refused(path, what, error) from error
        reason = (said or [getattr(error, "strerror", None) or str(error)])[-1]
        raise VideoError(f"{path}: {what} ({reason}): {remedy or OTHER}") from error


def _counted(encoder: av.Codec, plan: OutputPlan) -> FrameTimes | None:
    """The clock of encoders that take no other than one tick a frame, at one of the rates they know."""
    rates = [Fraction(rate.num, rate.den) for rate in encoder.frame_rates or ()]
    if not rates and encoder.name not in COUNT_FRAMES:
        return None
    return FrameTimes(min(rates or [plan.rate], key=lambda rate: abs(rate - plan.rate)))


def _moved(chapters: list[Any], start: Fraction) -> list[Any]:
    """Chapters of a video whose first moment is `start`."""

    def moved(chapter: Any) -> Any:
        shift = round(start / chapter["time_base"])
        return {**chapter, "start": max(0, chapter["start"] - shift), "end": max(0, chapter["end"] - shift)}

    return [moved(chapter) for chapter in chapters] if start else chapters


def _four(tag: str) -> str:
    if len(tag) != 4 or not tag.isascii():
        raise InputError(f"the tag is {tag!r}, expected four letters such as hvc1")
    return tag


def _settle_layout(copy: Stream) -> None:
    """Some containers only count the channels; others must be told which they are, and take the usual ones for the number."""
    if isinstance(copy, AudioStream) and copy.layout.name.endswith(" channels"):
        if not copy.layout.nb_channels:
            raise VideoError(
                f"sound stream {copy.index} has no channels: get a whole copy, or leave it out, --no-copy-audio-streams"
            )
        copy.codec_context.layout = f"{copy.layout.nb_channels}c"
