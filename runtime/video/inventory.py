"""`Inventory`: what a source has beside its luma, taken once, and what became of each entry in the output.

An entry ends in one of three ways: it is in the output as it was, a note names it, or the run was refused. `settle` writes the
note where nobody else has, so there is no fourth.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.stream import Disposition, Stream

from runtime.video.format import MP4_LIKE, VideoInfo, codec_name, frames_from_here, is_format, side_data_of
from runtime.video.fragments import picture_boxes_of, uuids_of
from runtime.video.loops import plays_of
from runtime.video.muxer import AVI, MPEG_TS, REEL, STATISTICS, reel_of
from runtime.video.packet_times import MATROSKA
from runtime.video.reader import VideoReader, says_something
from runtime.video.rehearsal import LAYERS, NAMELESS, is_made_anew
from runtime.video.track_headers import FULL_VOLUME, TrackHeader, track_headers_of
from runtime.video.transport_stream import TransportStream
from runtime.video.unread_boxes import unread_boxes_of
from runtime.video.unread_chunks import unread_chunks_of
from runtime.video.unread_elements import unread_elements_of
from runtime.video.user_data import REMEDY, USER_DATA

MESSAGES, CHUNKS, OF_PROGRAMS = "messages of the pictures", "chunks", "descriptors of the program"
NOT_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "creation_time"}  # facts of the container
NOT_OF_A_STREAM = {*NOT_TAGS, "handler_name", "vendor_id", "mimetype", "timecode", "file_package_umid", "variant_bitrate", REEL}
LANGUAGE = "language"
FFMPEG = "Lavf"  # by which it calls itself
ANIMATED = {"gif", "apng"}
NO_LANGUAGE = (LANGUAGE, "und")
OF_A_CONTAINER = {"default", "attached_pic", "timed_thumbnails", "still_image"}  # dispositions that containers set as they need
TITLE = "title"
OF_A_MULTIPLEX = {0x06, 0x0B, 0x0C, 0x0E, 0x10, 0x11}  # descriptors of how packets lie: alignment, clock, buffers, rates
OF_A_CODEC = {0x03, 0x05, 0x1C, 0x2B, 0x2E, 0x6A, 0x7A, 0x7B, 0x7C, 0x81}  # others, which FFmpeg writes in its own way
OF_A_CAMCORDER = {(0x05, b"HDMV"), (0x88, b"\x0f\xff\xfc\xfc")}  # which say that packets have 192 bytes, and nothing of copying
DESCRIPTOR = "descriptor "
OFF = "being off by default"
LEAST_GAP = Fraction(1, 100)  # seconds
LOOKED_THROUGH = 100  # frames of the output for one of a time that the source had; formats seek to keyframes
CLOCK = 1_000_000  # ticks per second of av.open's seek
FACTS = {  # of VideoInfo: what users call them; None = told by the picture itself, or by another entry
    "sample_aspect_ratio": "the sample aspect ratio",
    "display_matrix": "the rotation",
    "color_range": "the colour range",
    "color_tags": "the colour tags",
    "side_data": "side data",
    "hdr": None,  # side data
    **dict.fromkeys(("width", "height", "pixel_format", "bits", "rgb_bits", "chroma_step", "codec", "rotation", "signed")),
    **dict.fromkeys(("time_base", "first_pts", "frame_rate", "frames", "duration")),  # of timing, which the rehearsal compares
}


@dataclass(frozen=True)
class Inventory:
    """Entries by what a note calls them, with what tells them from another; streams are counted by kind and codec."""

    facts: Mapping[str, Any]
    tags: Mapping[str, str]
    streams: tuple[tuple[str, str], ...]  # (type and index, codec), without the video that is deblurred
    chapters: int
    gaps: int  # between chapters, and behind the last
    overlaps: int  # chapters that end after the next one begins
    chapter_tags: frozenset[str]  # what is said of chapters beside titles
    ahead: int  # streams of sound in front of the picture
    alpha: bool
    services: Mapping[int, tuple[str, str]]  # provider and name, by number
    numbers: frozenset[str]  # of streams and their program in a transport stream
    strangers: tuple[str, ...]  # streams beside the picture that belong to programs without it
    tables: frozenset[str]  # of a broadcast, that FFmpeg does not read
    unread: Mapping[str, Mapping[str, frozenset[bytes]]]  # by FFmpeg, as boxes of an MP4: by kind, what is in those of each name
    details: tuple[tuple[str, str, Mapping[str, str]], ...]  # of streams that are there: as in `streams`, and what is said of each


def inventory_of(reader: VideoReader) -> Inventory:
    """Of an open video; of its frames, what the reader has come by."""
    streams = reader.container.streams
    others = [stream for stream in streams if stream.index != reader.stream.index and not is_made_anew(reader, stream)]
    facts = {name: _comparable(reader.info, field) for field, name in FACTS.items() if name and field != "side_data"}
    boxed = is_format(reader.container, MP4_LIKE) and reader.path.is_file()
    if boxed:
        facts.update(picture_boxes_of(reader.path))
        facts.update({f"the box {name} (uuid)": True for name in uuids_of(reader.path)})
    heard = _heard(reader, track_headers_of(reader.path) if boxed else {})
    if reel := reel_of(reader):
        facts["the reel name"] = reel
    if is_format(reader.container, ANIMATED) and reader.path.is_file() and (plays := plays_of(reader.path)):
        facts[f"how often it is to be played ({plays})"] = True
    if reader.gop_timecode:
        facts["GOP_TIMECODE"] = reader.gop_timecode
    facts.update(reader.coded_settings)
    broadcast = TransportStream(reader.path) if is_format(reader.container, MPEG_TS) else None
    described = broadcast.descriptors if broadcast else {}
    return Inventory(
        facts={**facts, **{f"side data {name}": True for name in reader.side_data}},
        tags={
            name: value
            for name, value in reader.container.metadata.items()
            if name.lower() not in NOT_TAGS and value and not value.startswith(FFMPEG)
        },
        streams=tuple((f"{stream.type} stream {stream.index}", _codec(stream)) for stream in others),
        chapters=len(reader.chapters),
        gaps=_gaps(reader),
        overlaps=_overlaps(reader),
        chapter_tags=frozenset(name.lower() for each in reader.chapters for name in each["metadata"]) - {TITLE},
        ahead=sum(stream.type == "audio" and stream.index < reader.stream.index for stream in streams),
        alpha=_has_alpha(reader.info.pixel_format),
        services=broadcast.services if broadcast else {},
        numbers=frozenset(_numbers(reader, broadcast)) if broadcast else frozenset(),
        strangers=tuple(_of_other_programs(reader, broadcast)) if broadcast else (),
        tables=broadcast.other_tables if broadcast else frozenset(),
        unread=_unread(reader, boxed, broadcast),
        details=(
            (f"{reader.stream.type} stream {reader.stream.index}", "", _details(reader.stream, heard)),
            *(
                (f"{each.type} stream {each.index}", _codec(each), _details(each, heard) | _described(each, described))
                for each in others
            ),
        ),
    )


def _unread(reader: VideoReader, boxed: bool, broadcast: TransportStream | None) -> dict[str, Mapping[str, frozenset[bytes]]]:
    found: dict[str, Mapping[str, frozenset[bytes]]] = {MESSAGES: {name: frozenset({b""}) for name in reader.messages}}
    if boxed:
        found["boxes"] = unread_boxes_of(reader.path, reader.container.metadata.values())
    if is_format(reader.container, AVI) and reader.path.is_file():
        found[CHUNKS] = unread_chunks_of(reader.path)
    if is_format(reader.container, MATROSKA) and reader.path.is_file():
        found["elements"] = unread_elements_of(reader.path)
    if broadcast:
        said = broadcast.program_descriptors.items() - OF_A_CAMCORDER
        found[OF_PROGRAMS] = {f"{number:#04x}": frozenset({content}) for number, content in said if number not in OF_A_MULTIPLEX}
        found["packets"] = {f"with PID {number:#x} that no list names": frozenset({b""}) for number in broadcast.unlisted}
    return found


def settle(reader: VideoReader, written: Path, notes: Iterable[str], left_out: Iterable[str] = (), whole: bool = True) -> list[str]:
    """Notes on what is not in the `written` file as it was and that no note names; streams of types `left_out` were not wanted.

    Of a file that is not `whole`, but the start of one, what only later frames say is not judged.
    """
    before, said = inventory_of(reader), list(notes)
    with VideoReader(written) as output:
        after = inventory_of(output)
        told = [after.tags, *(stream.metadata for stream in output.container.streams)]  # a timecode moves to a stream
    lost = [*_lost_facts(before, after, reader, written if whole else None), *_lost_tags(before, told)]
    streams = {name.partition(" (")[0]: name for name in _lost_streams(before, after, left_out)}
    empty = {name for name in streams if _is_empty(reader, name)}
    lost += [(name, text) for name, text in streams.items() if name not in empty]
    where = "the part" if reader.part else "the source"
    others = [f"{streams[name]} is not in the output: it has nothing in {where}" for name in empty if not _is_named(name, said)]
    if before.chapters > after.chapters:
        lost.append(("chapters", f"{before.chapters - after.chapters} of {before.chapters} chapters"))
    else:
        if before.gaps > after.gaps:
            lost.append(("gaps", "gaps between or behind chapters"))
        if before.overlaps > after.overlaps:
            lost.append(("overlap", "the ends of chapters that overlap the next one"))
        if before.chapter_tags - after.chapter_tags:
            lost.append(("of chapters", f"{', '.join(sorted(before.chapter_tags - after.chapter_tags))} of chapters"))
    if before.ahead and not after.ahead and "audio" in {name.partition(" ")[0] for name, _ in after.streams}:
        lost.append(("order", "the order of streams (sound in front of the picture)"))
    if before.services != after.services:
        named = "; ".join(f"{number}, {name} of {provider}" for number, (provider, name) in before.services.items())
        if named:
            lost.append(("service", f"the service ({named})"))
    if before.numbers and after.numbers - before.numbers:
        lost.append(("PID", f"numbers of streams and programs ({', '.join(sorted(before.numbers - after.numbers))})"))
    if tables := ", ".join(sorted(before.tables - after.tables)):
        lost.append(("tables of the broadcast", f"tables of the broadcast ({tables})"))
    details = ", ".join(_lost_details(before, after))
    if details:
        lost.append(("of the streams", f"{details} (said of the streams)"))
    for kind, contents in before.unread.items():
        if kind == OF_PROGRAMS and kind not in after.unread:
            continue  # the output has no programs
        if gone := _gone(contents, after.unread.get(kind, {})):
            lost.append((kind, f"the {kind} {gone} (which FFmpeg does not {'copy' if kind == CHUNKS else 'read'})"))
    if before.alpha and not after.alpha:
        lost.append(("alpha", "alpha"))
    strangers = [name for name in before.strangers if name.partition(" ")[0] not in left_out and not _is_named(name, said)]
    if strangers:
        others.append(f"{' and '.join(strangers)}: of another program than the picture, and copied all the same")
    return [*(f"{what}: not in the output as it was" for name, what in lost if not _is_named(name, said)), *others]


def _gone(before: Mapping[str, frozenset[bytes]], after: Mapping[str, frozenset[bytes]]) -> str:
    """The names of what is not all there any more."""
    return ", ".join(sorted(name for name, contents in before.items() if contents - after.get(name, frozenset())))


def _codec(stream: Stream) -> str:
    """One name for all layers of MPEG audio, which some containers do not tell apart; their packets do."""
    name = codec_name(stream)
    return "MPEG audio" if name in LAYERS else name


def _lost_facts(before: Inventory, after: Inventory, reader: VideoReader, written: Path | None) -> Iterator[tuple[str, str]]:
    """(what a note must have in it, how to call it)"""
    for name, value in before.facts.items():
        kind = name.removeprefix("side data ") if name.startswith("side data ") else name
        if after.facts.get(name) == value or value is None:
            continue
        start = reader.part.start if reader.part and reader.part.is_cut else Fraction(0)
        time = reader.side_data[kind] if kind != name else None
        late = time is not None and time > reader.info.first_pts * reader.info.time_base
        if late and written is None:
            continue
        if time is not None and written is not None and kind in _side_data_at(written, time - start):
            continue
        yield kind, name.replace(USER_DATA, REMEDY)


def _lost_tags(before: Inventory, told: list[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    kept = {value for tags in told for value in tags.values()}
    for name, value in before.tags.items():
        if value not in kept:
            yield name, f"the tag {name}"


def _lost_streams(before: Inventory, after: Inventory, left_out: Iterable[str]) -> Iterator[str]:
    there = Counter((name.partition(" ")[0], codec) for name, codec in after.streams)
    unwanted = set(left_out)
    for name, codec in before.streams:
        kind = name.partition(" ")[0]
        if there[kind, codec]:
            there[kind, codec] -= 1
        elif kind not in unwanted:
            yield f"{name} ({codec})"


def _is_empty(reader: VideoReader, name: str) -> bool:
    """Whether no packet of a stream was come by; fonts have none."""
    kind, _, index = name.split()
    return kind != "attachment" and int(index) not in reader.starts


def _lost_details(before: Inventory, after: Inventory) -> Iterator[str]:
    """What is said of each stream that is in the output and is not said there."""
    left = list(after.details)
    for name, codec, told in before.details:
        kind = name.partition(" ")[0]
        there = next((each for each in left if (each[0].partition(" ")[0], each[1]) == (kind, codec)), None)
        if there is None:
            continue  # which has a note
        left.remove(there)
        values = set(there[2].values())
        lost = [key for key, value in told.items() if value not in values and not (kind == "video" and key == LANGUAGE)]
        if not after.numbers:
            lost = [key for key in lost if not key.startswith(DESCRIPTOR)]
        if lost:
            yield f"{' and '.join(sorted(lost))} of {name}"


def _numbers(reader: VideoReader, broadcast: TransportStream) -> Iterator[str]:
    for stream in reader.container.streams:
        yield f"PID {stream.id:#x}"
    if program := broadcast.program_with(reader.stream.id):
        yield f"program {program.number}"


def _of_other_programs(reader: VideoReader, broadcast: TransportStream) -> Iterator[str]:
    programs = broadcast.programs.values()
    with_it = set().union(*(program for program in programs if reader.stream.id in program))
    others = set().union(*programs) - with_it if with_it else set()
    for stream in reader.container.streams:
        if stream.id in others and stream.type != "video":
            yield f"{stream.type} stream {stream.index}"


def _heard(reader: VideoReader, headers: Mapping[int, TrackHeader]) -> dict[int, list[str]]:
    """By stream of sound, how it is heard unless a viewer chooses another, where that is not in full.

    Only MP4 has sound that is off where there is no other; in Matroska it is another that is on.
    """
    sounds = [stream for stream in reader.container.streams if stream.type == "audio"]
    on = {stream.index for stream in sounds if stream.disposition & Disposition.default}
    if is_format(reader.container, MATROSKA):
        return {stream.index: [OFF] for stream in sounds if on and stream.index not in on}
    found: dict[int, list[str]] = {}
    for stream in sounds:
        if header := headers.get(stream.id):
            softer = [] if header.volume == FULL_VOLUME else [f"volume {header.volume / FULL_VOLUME:.3g}"]
            found[stream.index] = ([] if header.enabled else [OFF]) + softer
    return found


def _details(stream: Stream, heard: Mapping[int, list[str]]) -> dict[str, str]:
    """Metadata, dispositions and the places of loudspeakers, without what containers and encoders make up, or players suppose."""
    metadata = {
        name: value
        for name, value in stream.metadata.items()
        if value and name.lower() not in NOT_OF_A_STREAM and not name.startswith(STATISTICS) and (name, value) != NO_LANGUAGE
    }
    flags = [flag.name or "" for flag in Disposition if flag & stream.disposition and (flag.name or "") not in OF_A_CONTAINER]
    told = [*(f"disposition {flag}" for flag in flags), *heard.get(stream.index, [])]
    if isinstance(stream, AudioStream) and (layout := _unusual_layout(stream)):
        told.append(f"channel layout {layout}")
    return {**metadata, **{fact: fact for fact in told}}


def _described(stream: Stream, described: Mapping[int, Mapping[int, bytes]]) -> dict[str, str]:
    """What the list of a program says of a stream, beside how it is packed, and beside its codec where FFmpeg knows that."""
    unsaid = OF_A_MULTIPLEX if codec_name(stream) in NAMELESS else OF_A_MULTIPLEX | OF_A_CODEC
    found = {
        f"{DESCRIPTOR}{number:#04x}": content for number, content in described.get(stream.id, {}).items() if number not in unsaid
    }
    return {name: f"{name} {content.hex()}" for name, content in found.items()}


def _unusual_layout(stream: AudioStream) -> str | None:
    """FFmpeg's name of which channels there are, where it is not the usual one for their number."""
    name, count = str(stream.layout.name), stream.layout.nb_channels
    return None if name == f"{count} channels" or name == av.AudioLayout(f"{count}c").name else name


def _overlaps(reader: VideoReader) -> int:
    times = _chapter_times(reader)
    return sum(earlier[1] - later[0] > LEAST_GAP for earlier, later in zip(times, times[1:]))


def _chapter_times(reader: VideoReader) -> list[list[Fraction]]:
    """Start and end of each, in seconds."""
    return [[Fraction(chapter[end]) * chapter["time_base"] for end in ("start", "end")] for chapter in reader.chapters]


def _gaps(reader: VideoReader) -> int:
    container, times = reader.container, _chapter_times(reader)
    if times and container.duration and not reader.part:
        times.append([Fraction((container.start_time or 0) + container.duration, CLOCK)] * 2)
    return sum(later[0] - earlier[1] > LEAST_GAP for earlier, later in zip(times, times[1:]))


def _is_named(name: str, notes: Iterable[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", note) for note in notes)


def _comparable(info: VideoInfo, field: str) -> Any:
    value = getattr(info, field)
    if field == "sample_aspect_ratio":
        return None if value in (None, 0, 1) else value
    return value[1:] if field == "color_tags" else value


def _has_alpha(pixel_format: str) -> bool:
    return "yuva" in pixel_format


def _side_data_at(written: Path, time: Fraction) -> set[str]:
    """Kinds of side data on the frame that is shown then, or the last before; none where it is not found."""
    found: set[str] = set()
    with suppress(av.FFmpegError), av.open(str(written.absolute())) as container:
        container.seek(max(0, round(time * CLOCK)))
        for frame in islice(frames_from_here(container, container.streams.video[0]), LOOKED_THROUGH):
            found |= {data.type.name for data in side_data_of(frame) if says_something(data)}
            if frame.pts is not None and frame.pts * (frame.time_base or 0) >= time:
                break
    return found
