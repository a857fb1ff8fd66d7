"""Small videos made with real codecs, and what a file holds, for the tests of video."""

from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

from runtime.machine.scheduling import own_scheduling

VARIABLE = [0, 1001, 2503, 4505, 5506, 7008, 9010, 10011, 11513, 13515, 14516, 16018]  # of 1/30000 s


@dataclass
class Clip:
    """A video to make.

    Its pictures are noise, so that every frame and plane differs; `moving` ones are a pattern that glides, so that frames are
    predicted from each other; `alternating` ones are two noises in turn, so that each is predicted from the last but one.
    """

    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    size: tuple = (64, 48)
    times: list = field(default_factory=lambda: VARIABLE)
    time_base: Fraction = Fraction(1, 30000)
    options: dict = field(default_factory=dict)
    moving: bool = False
    alternating: bool = False
    audio: list = field(default_factory=list)  # encoder names, one stream each
    audio_after: Fraction = Fraction(0)  # seconds that the sound goes on after the last frame's start
    audio_first: bool = False  # in the file, as capture devices write it in blocks
    subtitles: tuple = ()  # lines of a subrip stream
    attachment: bytes = b""
    color: tuple = (0, 2, 2, 2)  # range, matrix, primaries, transfer
    aspect: Fraction = None
    rotation: int = 0
    flip: bool = False
    metadata: dict = field(default_factory=dict)
    chapters: list = field(default_factory=list)

    def write(self, path):
        exact = {"movie_timescale": str(self.time_base.denominator), "video_track_timescale": str(self.time_base.denominator)}
        if self.audio_first:
            exact["max_interleave_delta"] = "1"
        with own_scheduling(), av.open(str(path), "w", container_options=exact) as container:
            video = self._add_video(container)
            sounds = [self._add_audio(container, codec) for codec in self.audio]
            if len(sounds) > 1:
                container.streams.audio[1].disposition = Disposition.hearing_impaired
            lines = self._add_subtitles(container)
            if self.attachment:
                container.add_attachment("font.ttf", "application/x-truetype-font", self.attachment)
            container.metadata.update(self.metadata)
            container.set_chapters(
                [
                    {"id": i, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for i, (start, end, title) in enumerate(self.chapters)
                ]
            )
            if self.audio_first:
                for sound in sounds:
                    container.mux(sound(self.times[-1] * self.time_base))
            noise = np.random.default_rng(0)
            for number, pts in enumerate(self.times):
                noise = np.random.default_rng(number % 2) if self.alternating else noise
                container.mux(video.encode(self._picture(noise, pts)))
                for sound in sounds:
                    container.mux(sound(pts * self.time_base))
            for sound in sounds:
                container.mux(sound(self.times[-1] * self.time_base + self.audio_after))
            container.mux(lines)
            container.mux(video.encode(None))
            for sound in sounds:
                container.mux(sound(None))
        return path

    def _add_video(self, container):
        stream = container.add_stream(self.codec, rate=30, options=self.options)
        stream.width, stream.height = self.size
        stream.pix_fmt = self.pixel_format
        stream.codec_context.time_base = stream.time_base = self.time_base
        context = stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = self.color
        if self.aspect:
            context.sample_aspect_ratio = self.aspect
        if self.rotation or self.flip:
            stream.set_display_rotation(self.rotation, hflip=self.flip)
        stream.metadata["language"] = "nob"
        return stream

    def _add_audio(self, container, codec):
        stream = container.add_stream(codec, rate=48000, layout="stereo")
        stream.metadata["language"] = "sme"
        noise, size, done = np.random.default_rng(1), 1024, 0

        def until(time):
            nonlocal done
            packets = []
            while time is not None and Fraction(done, 48000) <= time:
                samples = (noise.standard_normal((2, size)) * 0.1).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
                frame.sample_rate, frame.pts = 48000, done
                packets += stream.encode(frame)
                done += size
            return packets + (stream.encode(None) if time is None else [])

        return until

    def _add_subtitles(self, container):
        if not self.subtitles:
            return []
        stream, packets = container.add_mux_stream("subrip"), []
        for number, line in enumerate(self.subtitles):
            packet = av.Packet(line.encode())
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = number * 100
            packet.duration = 90
            packets.append(packet)
        return packets

    def _picture(self, noise, pts):
        frame = av.VideoFrame(*self.size, self.pixel_format)
        bits = frame.format.components[0].bits
        for plane in planes_of(frame):
            if self.moving:
                rows, columns = np.indices(plane.shape)
                plane[:] = 128 + 64 * np.sin((columns + pts / 1000) / 5) + 32 * np.cos(rows / 7)
            else:
                plane[:] = noise.integers(16 << (bits - 8), 235 << (bits - 8), plane.shape)
        frame.pts, frame.time_base = pts, self.time_base
        frame.color_range = self.color[0]
        return frame


@dataclass
class Contents:
    """All that a test may compare: decoded pictures, their times in seconds, and the packets of the other streams."""

    container: dict
    chapters: list
    streams: list  # (type, language, disposition)
    pictures: list  # of a list of planes
    times: list  # seconds, exact
    duration: int  # of the video stream, in its time base; None in Matroska
    tags: tuple  # range, matrix, primaries, transfer
    pixel_format: str
    aspect: Fraction
    matrix: list
    packets: dict  # {type + number: [(payload, time)]}, of streams that are not the video
    attachments: list

    @property
    def luma(self):
        return [planes[0] for planes in self.pictures]

    @property
    def chroma(self):
        return [planes[1:] for planes in self.pictures]


def read(path):
    """What PyAV alone says about a file, without the reader under test."""
    with av.open(str(path)) as container:
        video, packets, frames = container.streams.video[0], {}, []
        for packet in container.demux():
            if packet.stream is video:
                frames += packet.decode()
            elif packet.size:
                name = f"{packet.stream.type}{packet.stream.index}"
                packets.setdefault(name, []).append((bytes(packet), packet.pts * packet.time_base))
        first = frames[0]
        return Contents(
            container=container.metadata,
            chapters=[(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in container.chapters()],
            streams=[(stream.type, stream.language, stream.disposition) for stream in container.streams],
            pictures=[[plane.copy() for plane in planes_of(frame)] for frame in frames],
            times=[None if frame.pts is None else frame.pts * frame.time_base for frame in frames],
            duration=video.duration,
            tags=(first.color_range, first.colorspace, first.color_primaries, first.color_trc),
            pixel_format=first.format.name,
            aspect=video.sample_aspect_ratio,
            matrix=[bytes(data) for data in first.side_data if "DISPLAYMATRIX" in str(data.type)],
            packets=packets,
            attachments=[stream.data for stream in container.streams if stream.type == "attachment"],
        )


def planes_of(frame):
    dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    return [
        np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // np.dtype(dtype).itemsize)[:, : plane.width]
        for plane in frame.planes
    ]


def same(left, right):
    """Whether two lists of (lists of) arrays are equal, sample by sample."""
    if isinstance(left, np.ndarray):
        return left.shape == right.shape and left.dtype == right.dtype and bool((left == right).all())
    return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right))


def cut(path, target, share):
    """The first `share` of a file's bytes."""
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target
