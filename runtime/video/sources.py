"""What a video can be read from: a file, standard input, a numbered sequence of pictures, or a folder of them."""

from __future__ import annotations

import io
import re
import shlex
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Stream

from runtime.errors import VideoError
from runtime.files.numbered_names import is_sequence, number_in, with_number
from runtime.video.format import ffmpeg_says, is_format
from runtime.video.pipe_end import WatchedPipe

STANDARD = Path("-")  # standard input or output
PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm", ".dpx", ".exr"}
SAME_KIND = {".jpeg": ".jpg", ".tiff": ".tif"}
LISTS = {
    "concat",
    "hls",
    "dash",
    "imf",
    "image2",
    "mlv",
    "vobsub",
    "sdp",
    "rtp",
    "rtsp",
}  # formats that name or look for other files
ONE_FILE = {"format_whitelist": ",".join(sorted(av.formats_available - LISTS))}  # whatever a file of another's says that it is
ONE_PICTURE = {
    "format_whitelist": f"{ONE_FILE['format_whitelist']},image2"
}  # which is asked for by suffix, and reads numbered names
LIST_OF_OURS = {"safe": "0", "protocol_whitelist": "file,pipe"}  # a list in memory may name any file
LIST_ASKED_FOR = {"safe": "0", "protocol_whitelist": "file,crypto,data"}  # no network
AS_STATED = {"fpsprobesize": "0"}  # the rate; else up to 20 frames are looked at
WEBP_FLAGS, WEBP_ANIMATED = 20, 2  # place and bit, of its extended header
WITH_XMP = {"export_xmp": "1"}  # QuickTime's and MP4's, which FFmpeg hides otherwise
LOOKED_FURTHER = 1 << 28  # bytes of a file, and of memory at most, for the first of a sound that begins late
LOOKED_FOR_MORE = 1 << 26  # bytes, for streams that nothing tells of before; a quarter of a second
MAY_BEGIN_LATE = {"mpegts", "mpeg"}  # formats whose streams may
NO_BOUND = 1 << 40  # microseconds
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # no drive, which has one letter
IS_A_LIST = b"ffconcat"  # the first bytes of one that needs no suffix


@dataclass(frozen=True)
class Source:
    """An open video."""

    container: InputContainer
    pictures: tuple[Path, ...] = ()  # the files, in order; none for a video
    pipe: WatchedPipe | None = None  # where it is standard input


def open_source(path: Path, playlist: bool = False, live: bool = False) -> Source:
    """Opens `path`: a video file, "-" for standard input, a name with %d or %05d that no file has, or a folder of pictures.

    A file that lists others (HLS, DASH, FFmpeg's concat), by its content, is read as a `playlist` only. A `live` pipe is not read
    ahead to find out its rate. A file with streams that begin late is looked through for the first packet of each, and what
    lies before that is in memory then. Raises VideoError when there is nothing to be read.
    """
    if URL.match(path.as_posix()) and not path.exists():  # with one slash, as a Path has it
        url = path.as_posix().replace(":/", "://", 1)
        raise VideoError(f"{url}: is a URL, expected a video file: networks are not read, so download it, or pipe it to -")
    if path == STANDARD:
        if sys.__stdin__ is None:  # Python found it closed; its number may be another file's by now
            raise VideoError(f"{path}: standard input is closed, expected a video: give a file's name, or < FILE")
        pipe = WatchedPipe()
        return Source(_open(path, pipe, options={**ONE_FILE, **(AS_STATED if live else {})}), pipe=pipe)
    if path.is_dir() or is_sequence(path):
        pictures = _in_folder(path) if path.is_dir() else _numbered(path)
        listed = "".join(f"file '{_quoted(picture)}'\n" for picture in pictures)
        for picture in pictures:
            with picture.open("rb") as file:
                if file.read(len(IS_A_LIST)) == IS_A_LIST:
                    raise VideoError(f"{picture}: is a list of other files, expected a picture: take it out")
        return Source(_open(path, io.BytesIO(f"ffconcat version 1.0\n{listed}".encode()), "concat", _of_ours(pictures)), pictures)
    if not path.exists():
        raise VideoError(f"{path}: no such file, expected a video file")
    if not path.is_file():
        remedy = (
            f"give it as -, videodeblur run - ... < {shlex.quote(str(path))}" if path.is_fifo() else "record from it into a file"
        )
        raise VideoError(f"{path}: is a {'pipe' if path.is_fifo() else 'device'}, expected a video file: {remedy}")
    if _is_animated_webp(path):
        raise VideoError(f"{path}: is an animated WebP, which FFmpeg does not decode, expected a video: make a GIF of it first")
    options = LIST_ASKED_FOR if playlist else _alone(path)
    container = _open(path, str(path.absolute()), options=options)
    unknown = any(is_unknown(stream) for stream in container.streams)
    if unknown or is_format(container, MAY_BEGIN_LATE):
        size = LOOKED_FURTHER if unknown else LOOKED_FOR_MORE
        further = {"probesize": str(size), "analyzeduration": str(NO_BOUND), "scan_all_pmts": "1"}
        longer = _open(path, str(path.absolute()), options={**options, **further})
        if unknown or len(longer.streams) > len(container.streams):
            container, longer = longer, container
        longer.close()
    return Source(container)


def is_unknown(stream: Stream) -> bool:
    """Whether it is sound that FFmpeg could decode, but of which it met nothing that tells the rate and channels."""
    context = stream.codec_context if isinstance(stream, AudioStream) else None
    return context is not None and not (context.sample_rate and context.layout.nb_channels)


def _is_animated_webp(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(WEBP_FLAGS + 1)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[WEBP_FLAGS:] and head[WEBP_FLAGS] & WEBP_ANIMATED)


def _alone(path: Path) -> dict[str, str]:
    """The demuxers that read this file and no other."""
    return ONE_FILE if "%" in str(path.absolute()) else ONE_PICTURE


def _of_ours(pictures: tuple[Path, ...]) -> dict[str, str]:
    """The options of a list of these: it may hold no further list."""
    numbered = any("%" in picture.name for picture in pictures) or "%" in str(pictures[0].absolute().parent)
    formats = (ONE_FILE if numbered else ONE_PICTURE)["format_whitelist"]
    return {**LIST_OF_OURS, "format_whitelist": f"concat,{formats}"}


def _in_folder(folder: Path) -> tuple[Path, ...]:
    """The pictures of a folder, by name, numbers in it by their value."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
    if not found:
        raise VideoError(
            f"{folder}: is a folder without pictures, expected a video file or a folder of {', '.join(sorted(PICTURES))}"
        )
    kinds = {SAME_KIND.get(path.suffix.lower(), path.suffix.lower()) for path in found}
    if len(kinds) > 1:
        raise VideoError(
            f"{folder}: has pictures of several kinds ({', '.join(sorted(kinds))}), expected all of one: move the others elsewhere"
        )
    return tuple(sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]))


def missing_numbers(pictures: tuple[Path, ...]) -> list[str]:
    """A note where pictures of a folder, most of which are numbered one by one, lack numbers."""
    named = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in pictures]
    found = [each for each in named if each]
    if len(found) < len(named) or len({(each[1], each[3]) for each in found}) > 1:
        return []
    steps = [int(later[2]) - int(earlier[2]) for earlier, later in pairwise(found)]
    gaps = [number for number, step in enumerate(steps) if step > 1]
    if not gaps or 2 * steps.count(1) < len(steps):
        return []
    missing, (before, after) = sum(steps[gap] - 1 for gap in gaps), pictures[gaps[0] : gaps[0] + 2]
    where = f"{after.name} follows {before.name}"
    return [
        f"numbers are missing among the pictures ({missing} in all), which are shown one after another: the first where {where}"
    ]


def _numbered(path: Path) -> tuple[Path, ...]:
    """The pictures of a sequence, from the lowest number on. Raises VideoError where one is missing."""
    folder = path.parent.iterdir() if path.parent.is_dir() else iter(())
    numbers = sorted(number for number in (number_in(path, file.name) for file in folder) if number is not None)
    if not numbers:
        raise VideoError(f"{path}: there is no such picture, expected files such as {with_number(path, 1).name}")
    pictures = tuple(with_number(path, number) for number in range(numbers[0], numbers[-1] + 1))
    for picture in pictures:
        if not picture.is_file():
            raise VideoError(f"{picture} is missing in a sequence that goes to {pictures[-1].name}: bring it, or renumber them")
    return pictures


def _open(path: Path, target: Any, kind: str | None = None, options: dict[str, str] | None = None) -> InputContainer:
    said: list[str] = []
    try:
        with ffmpeg_says(said):
            known = {**WITH_XMP, **(options or {})}
            opened: InputContainer = av.open(target, "r", format=kind, options=known, metadata_errors="surrogateescape")
            for stream in opened.streams.video:
                if stream.codec_context:  # else columns that are hidden at the left are shown, where rows would begin unaligned
                    stream.codec_context.flags |= Flags.unaligned
            return opened
    except (av.FFmpegError, OSError) as error:
        if kind is None and any("not on whitelist" in line for line in said):
            remedy = (
                "name the list itself instead of a pipe" if path == STANDARD else "videodeblur run --playlist reads what it lists"
            )
            raise VideoError(f"{path}: is a list of other files (as of HLS, DASH, concat), expected a video: {remedy}") from error
        reason = (said or [error.strerror or str(error)])[-1].partition(" on whitelist")[0]
        raise VideoError(f"{path}: not a video that FFmpeg can read ({reason}): check the file") from error


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("'", "'\\''")
