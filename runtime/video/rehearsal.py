"""`rehearse`: all of an output tried on a few frames and packets, to its trailer and read back, before the work begins.

What cannot be written is found here in a moment, not after an hour. `losses` looks at the finished file in the same way.
"""

from __future__ import annotations

import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream

from runtime.errors import VideoError
from runtime.files.on_disk import place_of
from runtime.files.time_ranges import clock
from runtime.video.cover_art import holds_as_attachment, holds_as_stream, is_cover, why_left_out
from runtime.video.format import (
    MP4_LIKE,
    UNKNOWN_CODEC,
    VideoInfo,
    codec_name,
    is_encrypted,
    is_format,
    packets_from_here,
    plane_of,
)
from runtime.video.iamf import parts_of_iamf
from runtime.video.layouts import has_samples_of, narrower, range_of
from runtime.video.muxer import (
    PICTURE_FIRST,
    STATISTICS,
    TIMECODE,
    Y4M,
    Muxer,
    OutputPlan,
    encoded_format,
    explained,
    is_timecode_track,
    longest_still,
    metadata_of,
    timecode_of,
)
from runtime.video.output_place import PlaceError
from runtime.video.packet_times import displaced_pictures, lost_times
from runtime.video.picture_facts import COLOURS, facts_of
from runtime.video.reader import SAME_RATE, VideoReader
from runtime.video.sound_holes import Holes, misplaced_sound
from runtime.video.sound_settings import changed_settings
from runtime.video.sources import LOOKED_FURTHER, STANDARD, WITH_XMP, is_unknown, open_source
from runtime.video.sync import changed_sound, moved_sound
from runtime.video.time_jumps import time_jump
from runtime.video.user_data import REMEDY, USER_DATA

FRAMES = 3  # that are tried: encoders that reorder want so many
NOISE = 64  # pixels, the side of the square of them in a frame
PACKETS = 40  # of each stream; some demuxers know a codec by its content, and want so many
SHORTENED = Fraction(1, 20)  # seconds that the last picture is shown less, from which on that is told
STEADY = 25  # frames from which on the rate that a file tells is reliable
LOOK_THROUGH = 2000  # packets of the source, for the first of every stream
LAYERS = {"mp1", "mp2", "mp3", "mp1float", "mp2float", "mp3float"}  # of MPEG audio, which some containers do not tell apart
COMMON = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov"}  # containers to take instead of another
CHAPTERS = "bin_data"
NAMELESS = {CHAPTERS, UNKNOWN_CODEC}


Packets = dict[int, "list[av.Packet[Any]]"]  # by stream of the source


def rehearse(plan: OutputPlan, part: Path) -> tuple[OutputPlan, list[str]]:
    """The plan with the streams that the output can hold, all of which was written to `part`, and read; what it leaves out.

    `part` is there afterwards, and the caller's. Raises VideoError where the output cannot be written or read back, or cannot
    hold sound or subtitles that are to be in it.
    """
    _check_name(plan.path)
    packets: Packets = {}
    encrypted: set[int] = set()
    for packet in _first_packets(plan.reader):
        packets.setdefault(packet.stream_index, []).append(_copy(packet))
        if is_encrypted(packet):
            encrypted.add(packet.stream_index)
    plan, notes = _with_streams(plan)
    _check_encryption(plan, encrypted)
    _check_times(plan)
    _check_settings(plan)
    if plan.is_format({Y4M}) and not plan.reader.even:
        notes.append(plan.without_times)
    plainly_lost: set[str] | None = None
    while True:
        try:
            unsaid, lost = _try(plan, packets, part)
        except PlaceError:
            raise
        except VideoError:
            unsaid, lost = _culprits(plan, packets, part), set()
            if not unsaid:
                raise
        notes += [_left_out(plan, plan.reader.container.streams[index]) for index in unsaid]
        kept = tuple(index for index in plan.streams if index not in unsaid)
        if not unsaid and plainly_lost is None and lost and _had_any_key(plan):
            plainly_lost, plan = lost, replace(plan, any_key=True)
        elif unsaid:
            plan = replace(plan, streams=kept)
        else:
            break
    starts = {index: _time(first[0]) * first[0].time_base for index, first in packets.items()}
    notes += _mistimed(plan, {**starts, **plan.reader.starts}, part)
    if plan.path != STANDARD:
        timed = {index for index, first in packets.items() if any(packet.pts is not None for packet in first)}
        notes += lost_times(plan.reader, plan.streams, timed, part, plan.where)
    plan = replace(plan, any_key=plan.any_key and lost != plainly_lost)  # only where it helps: players look elsewhere for titles
    if lost:
        notes.append(f"metadata is not in the output: {plan.where} cannot hold {', '.join(sorted(lost))}")
    return plan, notes + list(_other_samples(plan))


def losses(
    plan: OutputPlan,
    written: Path,
    frames: int,
    end: Fraction,
    begins: Mapping[int, Fraction],
    holes: Mapping[int, Holes],
    meant: Sequence[Fraction],
) -> Iterator[str]:
    """What the encoder and the container dropped of the picture's facts and of the place of sound, a line each.

    The file has so many frames, the last of which is over at `end`, in seconds of the source; `begins` has the time of the
    first packet that was copied of each stream, in seconds of the source, `holes` are of the sound that was, and `meant` are the
    times of the first pictures.
    """
    now, before, suffix = read_back(plan, written), plan.reader.info, plan.where
    yield from lost_facts(plan, now)
    if plan.reader.even and frames >= STEADY and _far(now.frame_rate, plan.rate):
        yield _other_rate(plan, now)
    lasts = end - before.first_pts * before.time_base
    if plan.is_format(MP4_LIKE) and now.duration and (short := lasts - Fraction(now.duration)) >= SHORTENED:
        told = f"the last picture is shown {float(short):.2g} s less than it was"
        yield f"{told}: {suffix} lost it behind B-frames, add -e bf=0 to keep it"
    yield from changed_sound(plan.reader, plan.streams, begins, written, suffix)
    yield from misplaced_sound(plan.reader, holes, written, suffix)
    yield from lost_times(plan.reader, plan.streams, begins, written, suffix)
    yield from displaced_pictures(written, suffix, meant)


def lost_facts(plan: OutputPlan, now: VideoInfo) -> Iterator[str]:
    """What an output that reads back as `now` does not say of the picture, a line each."""
    before, codec, suffix = plan.reader.info, plan.encoder.codec, plan.where
    if (now.sample_aspect_ratio or 1) != (before.sample_aspect_ratio or 1):
        yield f"the sample aspect ratio {before.sample_aspect_ratio} is not in the output: {codec} in {suffix} lost it"
    if now.color_range != range_of(before, encoded_format(codec, before)):
        yield f"the colour range is not in the output: {codec} in {suffix} lost it"
    if now.color_tags[1:] != before.color_tags[1:]:
        yield f"the colour tags are not all in the output: {codec} in {suffix} lost some"
    if gone := (before.side_data | facts_of(plan.reader.first_file) - {COLOURS}) - now.side_data:
        lost = ", ".join(REMEDY if name == USER_DATA else name for name in sorted(gone))
        yield f"side data is not in the output: {codec} in {suffix} lost {lost}"
    if now.display_matrix != before.display_matrix:
        yield f"the rotation by {before.rotation} degrees is not in the output: {suffix} cannot hold it"


def _other_samples(plan: OutputPlan) -> Iterator[str]:
    """What the samples become where the encoder has no format like the source's."""
    info, codec = plan.reader.info, plan.encoder.codec
    made, was = encoded_format(codec, info), "RGB" if info.rgb_bits else info.pixel_format
    if has_samples_of(info, made):
        return
    levels = "" if range_of(info, made) == info.color_range else ", the colour range limited"
    if made in narrower(info):
        colour = ", colour at half the width and height" if made == "yuv420p" else ""
        yield f"RGB becomes {made}{levels}{colour}: -c ffv1 in an .mkv keeps it all"
    else:
        yield f"{was} becomes {made}{levels}: {codec} has nothing closer"


def _mistimed(plan: OutputPlan, starts: Mapping[int, Fraction], part: Path) -> Iterator[str]:
    """What a trial says of rate and start that the source does not, where its pictures come at the stated rate."""
    if plan.path == STANDARD or plan.is_format({Y4M}):
        return
    now = read_back(plan, part)
    if plan.reader.even and _far(now.frame_rate, plan.rate):
        yield _other_rate(plan, now)
    if plan.reader.part is None or not plan.reader.part.is_cut:  # the packets that were tried are of the file's start
        yield from moved_sound(plan.reader, plan.streams, starts, part)


def _other_rate(plan: OutputPlan, now: VideoInfo) -> str:
    said = f"{float(now.frame_rate):.5g}" if now.frame_rate else "none"
    return f"the rate of {float(plan.rate):.5g} frames per second is not in the output: {plan.where} says {said}"


def is_made_anew(reader: VideoReader, source: Stream) -> bool:
    """MP4 keeps its chapters as a text track too, which `set_chapters` makes again, as the muxer does its timecodes."""
    chapters = codec_name(source) == CHAPTERS and is_format(reader.container, MP4_LIKE) and bool(reader.container.chapters())
    return chapters or is_timecode_track(reader, source)


def _far(rate: Fraction | None, expected: Fraction) -> bool:
    return rate is None or abs(rate - expected) > SAME_RATE * expected


def read_back(plan: OutputPlan, written: Path) -> VideoInfo:
    """What the file says of its picture. Raises VideoError when it cannot be read."""
    try:
        with VideoReader(written) as reader:
            return reader.info
    except VideoError as error:
        reason = str(error).replace(f"{written}: ", "").rsplit(": ", 1)[0]
        raise VideoError(
            f"{plan.path}: what {plan.encoder.codec} writes there cannot be read back ({reason}): take another codec or suffix"
        ) from error


def lost_metadata(plan: OutputPlan, found: InputContainer) -> set[str]:
    """Names of what the source says of itself and the output does not, under that name or another."""
    timecode = timecode_of(plan.reader)
    told = {**metadata_of(plan.reader.container.metadata), **({TIMECODE: timecode} if timecode else {})}
    back = {**found.metadata}
    for stream in found.streams:
        back.update(stream.metadata)
    names = {name.lower() for name in back}
    kept = set(back.values())
    return {
        name
        for name, value in told.items()
        if value and value not in kept and name.lower() not in names and not name.startswith(STATISTICS)
    }


def _had_any_key(plan: OutputPlan) -> bool:
    """Phones put what they know under QuickTime's keys; a title from elsewhere is better where all players look for it."""
    return is_format(plan.reader.container, MP4_LIKE) and plan.is_format(MP4_LIKE)


def _check_name(path: Path) -> None:
    if path == STANDARD:
        return
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, expected a file's name: choose another output")
    if os.path.ismount(place_of(path)):
        raise VideoError(f"{path}: is a mount point, which a finished file cannot replace: choose a name in a mounted folder")


def _try(plan: OutputPlan, packets: Packets, part: Path) -> tuple[list[int], set[str]]:
    """Streams that the output has no name for, and metadata that it loses."""
    with _tried(plan, packets, part) as found:
        return [index for index in _unsaid(plan, found) if index in packets], lost_metadata(plan, found)


def _culprits(plan: OutputPlan, packets: Packets, part: Path) -> list[int]:
    """Streams that end a trial with none but them and the picture."""

    def fails(streams: tuple[int, ...]) -> bool:
        try:
            _try(replace(plan, streams=streams), packets, part)
        except PlaceError:
            raise
        except VideoError:
            return True
        return False

    return [] if fails(()) else [index for index in plan.streams if fails((index,))]


@contextmanager
def _tried(plan: OutputPlan, packets: Packets, part: Path) -> Iterator[InputContainer]:
    """The whole output with a few frames and packets, open for reading."""
    target: Path | BinaryIO = io.BytesIO() if plan.path == STANDARD else part
    _write(plan, packets, target)
    if isinstance(target, Path):
        read_back(plan, target)
    else:
        target.seek(0)
    with explained(plan.path, "what is written there cannot be read back", logged=True):
        file = str(target.absolute()) if isinstance(target, Path) else target
        found = av.open(file, "r", options=WITH_XMP, metadata_errors="surrogateescape")
    with found:
        yield found


def _write(plan: OutputPlan, packets: Packets, target: Path | BinaryIO) -> None:
    info, muxer = plan.reader.info, Muxer(plan, target)
    least = muxer.start if plan.reader.part else Fraction(0)  # the packets are of the file's start
    step = max(1, round(1 / (info.time_base * plan.rate)))
    try:
        with explained(plan.path, "writing failed", logged=True):
            for index in plan.streams:
                for packet in _repeated(packets.get(index, []), PACKETS, least):
                    muxer.copy(packet, index)
            for number in range(FRAMES):
                muxer.write(_picture(muxer, number), info.first_pts + number * step, step)
            muxer.finish()
    finally:
        muxer.abandon()


def _first_packets(reader: VideoReader) -> Iterator[av.Packet[Any]]:
    """Of every stream that has any, from the file once more where the frames that were read so far had none beside them."""
    heard = [packet for packets in reader.first_packets().values() for packet in packets if not packet.is_discard]
    yield from heard
    missing = {stream.index for stream in reader.container.streams} - {reader.stream.index, *(p.stream_index for p in heard)}
    if not missing or reader.path == STANDARD or reader.pictures:
        return
    with suppress(av.FFmpegError), open_source(reader.path, reader.playlist).container as again:
        for packet in islice(packets_from_here(again), LOOK_THROUGH):
            if packet.stream_index in missing and packet.size and not packet.is_discard:
                yield packet


def _check_encryption(plan: OutputPlan, encrypted: set[int]) -> None:
    if stream := next((plan.reader.container.streams[index] for index in plan.streams if index in encrypted), None):
        raise VideoError(
            f"{plan.reader.path}: its {stream.type} (stream {stream.index}) is encrypted (CENC), expected one that is not: "
            f"decrypt it with its key first, or leave it out (--no-copy-{stream.type}-streams)"
        )


def _check_times(plan: OutputPlan) -> None:
    longest = longest_still(plan)
    jump = time_jump(plan.reader, longest)
    if jump is None:
        return
    before, after = (clock(round(time - plan.reader.origin, 2)) for time in (jump.before, jump.after))
    expected, remedy = "times that rise", "cut it there into two files"
    if longest is not None and jump.after > jump.before:
        expected = f"no picture that lasts longer than {clock(round(longest, 2))} in {plan.where}"
        remedy += ", or write an .mkv"
    raise VideoError(f"{plan.reader.path}: its clock jumps from {before} to {after}, expected {expected}: {remedy}")


def _check_settings(plan: OutputPlan) -> None:
    for index, settings in changed_settings(plan.reader, plan.streams).items():
        if not settings.kept_by(plan.format):
            raise VideoError(
                f"{plan.reader.path}: its sound (stream {index}) {settings.told}, expected one kind of it in {plan.where}:"
                f" {settings.remedy}, or leave it out (--no-copy-audio-streams)"
            )


def _repeated(packets: list[av.Packet[Any]], most: int, least: Fraction) -> Iterator[av.Packet[Any]]:
    """Packets of one stream over and over, with times that go on, none before `least` seconds where that is above 0."""
    if not packets:
        return
    starts = [_time(packet) for packet in packets]
    late = max(0, math.ceil(least / packets[0].time_base) - min(starts)) if least else 0
    span = max(starts) - min(starts) + max(1, packets[-1].duration or 0)
    for number in range(most):
        yield _copy(packets[number % len(packets)], number // len(packets) * span + late)


def _copy(packet: av.Packet[Any], later: int = 0) -> av.Packet[Any]:
    """A packet that does not need its container."""
    copy: av.Packet[Any] = av.Packet(bytes(packet))
    copy.time_base, copy.duration, copy.is_keyframe = packet.time_base, packet.duration, packet.is_keyframe
    copy.pts, copy.dts = (None if time is None else time + later for time in (packet.pts, packet.dts))
    return copy


def _time(packet: av.Packet[Any]) -> int:
    return (packet.pts if packet.dts is None else packet.dts) or 0


def _picture(muxer: Muxer, seed: int) -> av.VideoFrame:
    """Blank but for a corner of noise: what is coded to nothing is too short for a transport stream to be known as one."""
    picture, noise = muxer.blank(), np.random.default_rng(seed)
    for index in range(len(picture.planes)):
        plane = plane_of(picture, index)
        plane[:] = 0
        corner = plane[:NOISE, :NOISE]
        corner[:] = noise.integers(0, 1 << picture.format.components[0].bits, corner.shape)
    picture.color_range, picture.colorspace = muxer.stream.color_range, muxer.stream.colorspace
    return picture


def _with_streams(plan: OutputPlan) -> tuple[OutputPlan, list[str]]:
    """The plan with the streams that the muxer takes; notes on the others."""
    reader, kept, covers, notes = plan.reader, [], [], []
    for source in reader.container.streams:
        if source.index == reader.stream.index or source.type in plan.encoder.leave_out or is_made_anew(reader, source):
            continue
        if holds_as_attachment(plan.format, source) and reader.first_packets().get(source.index):
            covers.append(source.index)
        elif _takes(plan, source):
            kept.append(source.index)
        else:
            notes.append(_left_out(plan, source))
    return replace(plan, streams=tuple(kept), covers=tuple(covers)), notes


def _takes(plan: OutputPlan, source: Stream) -> bool:
    """Whether the output's muxer takes this stream, by writing a header with it alone."""
    if source.type == "attachment":
        return plan.is_format({"matroska"})
    if source.type == "video" and not (is_cover(source) and holds_as_stream(plan.format)):
        return False
    return source.index not in parts_of_iamf(plan.reader) and _writes(plan.format, source)


def _writes(container: str, source: Stream) -> bool:
    """Whether PyAV makes a header of this container that tells of the stream."""
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        if container in PICTURE_FIRST:
            picture = trial.add_stream("mpeg2video", rate=25)
            picture.width, picture.height, picture.pix_fmt = NOISE, NOISE, "yuv420p"
        trial.add_stream_from_template(source)
        trial.start_encoding()
    except (av.FFmpegError, ValueError, AttributeError):  # the last where FFmpeg has no decoder for it
        return False
    finally:
        with suppress(av.FFmpegError):  # a trailer without packets
            trial.close()
    return True


def _left_out(plan: OutputPlan, source: Stream) -> str:
    """A note. Raises VideoError for sound and subtitles, unless they may be left out."""
    reader, name, suffix = plan.reader, f"{source.type} stream {source.index}", plan.where
    codec = codec_name(source)
    wanted = source.type in ("audio", "subtitle") and not plan.encoder.drop_unsupported
    looked = "at the start of the pipe" if reader.path == STANDARD else f"in the first {LOOKED_FURTHER >> 20} MiB of the file"
    unknown = f"nothing {looked} tells its rate and channels" if is_unknown(source) and not plan.is_format({Y4M}) else ""
    loose = "is a part of immersive sound (IAMF), which PyAV cannot write" if source.index in parts_of_iamf(reader) else ""
    if wanted and not plan.is_format({Y4M}):
        remedy = f"leave it out with --no-copy-{source.type}-streams or --drop-unsupported"
        if unknown:
            piped = "give the file's name instead of a pipe, or " if reader.path == STANDARD else ""
            raise VideoError(f"{reader.path}: {name} ({codec}) cannot be copied, {unknown}: {piped}{remedy}")
        if loose:
            raise VideoError(f"{reader.path}: {name} ({codec}) {loose}: {remedy}")
        others = [other for other in COMMON if other != suffix]
        taking = [other for other in others if _writes(COMMON[other], source)]
        start = f"{suffix} cannot hold {name} of {reader.path} ({codec})"
        if not taking:
            raise VideoError(f"{start}, nor can {' or '.join(others)}, as PyAV writes them: {remedy}")
        other = taking[0] if ".mkv" in taking else " or ".join(taking)
        raise VideoError(f"{start}: write an {other}, or leave it out with --drop-unsupported")
    reason = (loose and f"it {loose}") or unknown or why_left_out(source, suffix)
    return f"{name} ({codec}) is not in the output: {reason}"


def _unsaid(plan: OutputPlan, found: InputContainer) -> list[int]:
    """Streams that were written and are not there, or as something else: the container has no name for them."""
    there, lost = Counter(_said(stream) for stream in found.streams), []
    for source in map(plan.reader.container.streams.__getitem__, plan.streams):
        if source.type not in ("audio", "subtitle", "data"):
            continue  # fonts and covers, which were asked for by name
        there[_said(source)] -= 1
        if there[_said(source)] < 0:
            lost.append(source.index)
    return lost


def _said(stream: Stream) -> tuple[str, str | None]:
    name = codec_name(stream)
    return stream.type, "mp3" if name in LAYERS else None if name in NAMELESS else name
