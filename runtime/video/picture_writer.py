"""`PictureWriter`: sharpened frames as PNG pictures of 8 or 16 bits."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import av
import numpy as np

from runtime.errors import InputError, VideoError
from runtime.files.numbered_names import is_numbered, with_number
from runtime.files.on_disk import free_name, place_of
from runtime.pixels import rgb
from runtime.video.format import Frame, Plane, plane_of
from runtime.video.inventory import inventory_of
from runtime.video.output_place import refused
from runtime.video.output_writer import OutputWriter, own_part
from runtime.video.picture_facts import facts_of
from runtime.video.reader import VideoReader
from runtime.video.still_pictures import encode_picture

SUFFIX = ".png"
HDR_TRANSFERS = (16, 18)  # PQ and HLG, of AVColorTransferCharacteristic
WITH_ALPHA = 3  # planes beside luma
PNG_FORMATS = {  # (with alpha, more than 8 bits): of colour
    (False, False): "rgb24",
    (False, True): "rgb48be",
    (True, False): "rgba",
    (True, True): "rgba64be",
}


class PictureWriter(OutputWriter):
    """Writes a PNG for every frame, with the interface of `VideoWriter`; a context manager.

    `path` is a name with %d or %05d, numbered from 1 or as the source's pictures are, or a folder, in which pictures have the
    names of the source's, or numbers. Gray stays gray and RGB stays RGB; other YUV becomes RGB; alpha stays. 16 bits where the
    source has more than 8. They appear when all are complete; those of the same name that the folder had are replaced, what came
    there meanwhile is not. Sound and all else is left out.
    """

    def __init__(self, path: Path, reader: VideoReader, width: int | None = None) -> None:
        self.path, self.frames = path, 0
        self.notes: list[str] = []
        self._reader, self._width = reader, width or reader.info.width
        self._sequence = is_numbered(path)
        self._target = (path.parent if self._sequence else path).absolute()  # whatever the working directory is by then
        if self._sequence and path.suffix.lower() != SUFFIX:
            found = path.suffix or "without a suffix"
            raise InputError(f"{path}: %d numbers pictures, and pictures are written as {SUFFIX}, not {found}: change the name")
        if not self._target.parent.is_dir():
            raise VideoError(f"{path}: there is no folder {self._target.parent}: make it first")
        self._own_folder = not self._target.exists()
        with self._explained():
            self._target.mkdir(exist_ok=True)
            self._there = {path.name for path in self._target.iterdir()}
        self._part = own_part(path, self._target / "pictures", ".part", folder=True)  # in the folder, which may be a mount point
        self._open = True
        reader.set_aside(set())
        if len(reader.container.streams) > 1:
            self.notes.append("all but the picture is left out: pictures have no sound")
        if not reader.even:
            self.notes.append("the times of the frames are not in the output: pictures have none")
        beside = inventory_of(reader)
        told = [*sorted(beside.tags), *([f"{beside.chapters} chapters"] if beside.chapters else [])]
        if told:
            self.notes.append(f"metadata is not in the output: pictures cannot hold {', '.join(told)}")
        aspect, (*_, transfer) = reader.info.sample_aspect_ratio, reader.info.color_tags
        if aspect not in (None, 0, 1):
            self.notes.append(f"the sample aspect ratio {aspect} is not in the output: scale the pictures, or take a video")
        if transfer in HDR_TRANSFERS:
            self.notes.append("the colour tags are not in the output: the pictures are HDR, and PNG does not say so")
        if reader.info.rotation:
            self.notes.append(
                f"the rotation by {reader.info.rotation} degrees is not in the output: turn the pictures, or take a video"
            )

        self._lost = set(reader.info.side_data) | facts_of(reader.first_file)
        self._note_lost(self._lost)

    def write(self, frame: Frame, luma: Plane, chroma: tuple[Plane, ...] | None = None) -> None:
        """See `VideoWriter.write`."""
        picture = _picture(frame, luma, frame.chroma if chroma is None else chroma, self._reader)
        with self._explained():
            (self._part.path / self._name(frame.number)).write_bytes(encode_picture(picture))
        self.frames += 1

    def finish(self) -> None:
        """Gives the pictures their place; afterwards the writer is closed."""
        if not self._open:
            return
        with self._explained():
            self._own_folder = False
            self._check_names()
            for picture in sorted(self._part.path.iterdir()):
                picture.replace(place_of(self._target / picture.name))
        self._note_lost((set(self._reader.side_data) | self._reader.messages) - self._lost)
        self.close()

    def close(self) -> None:
        """Deletes what is not finished; calling it again does nothing."""
        if self._open:
            self._open = False
            self._part.drop()
            if self._own_folder:
                with suppress(OSError):  # what others put there meanwhile stays
                    self._target.rmdir()

    def _check_names(self) -> None:
        """What came into the folder since the run began stays; the pictures are kept in a folder of their own then."""
        for picture in sorted(self._part.path.iterdir()):
            if picture.name not in self._there and os.path.lexists(self._target / picture.name):
                kept = free_name(self._part.path, self._target / "pictures")
                self.close()
                raise VideoError(
                    f"{self.path}: {picture.name} has appeared since the run began, and stays as it is: the result is in {kept}"
                )

    def _note_lost(self, lost: set[str]) -> None:
        if lost:
            self.notes.append(f"side data is not in the output: {SUFFIX} as it is written here lost {', '.join(sorted(lost))}")

    def _name(self, number: int) -> str:
        pictures = self._reader.pictures
        if not self._sequence:
            return f"{pictures[number].stem if pictures else f'{number + 1:08d}'}{SUFFIX}"
        return with_number(self.path, number + _first_number(pictures)).name

    def _explained(self) -> _Explained:
        return _Explained(self.path)


class _Explained:
    """Turns errors of the file system and of FFmpeg into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (av.FFmpegError, OSError)):
            raise refused(self._path, "cannot be written", error) from error


def _first_number(pictures: tuple[Path, ...]) -> int:
    digits = "".join(letter if letter.isdigit() else " " for letter in pictures[0].stem).split() if pictures else []
    return int(digits[-1]) if digits else 1


def _picture(frame: Frame, luma: Plane, chroma: tuple[Plane, ...], reader: VideoReader) -> av.VideoFrame:
    deep, transparent = luma.dtype == np.uint16, len(chroma) == WITH_ALPHA
    if reader.info.rgb_bits:
        deep = reader.info.rgb_bits > 8
        pixels = rgb.to_rgb(luma, chroma[0], chroma[1], np.uint16 if deep else np.uint8)
        if transparent:
            pixels = np.dstack([pixels, chroma[2] if deep else (chroma[2] // 257).astype(np.uint8)])
        return av.VideoFrame.from_ndarray(pixels, PNG_FORMATS[transparent, deep])
    whole = av.VideoFrame(luma.shape[1], luma.shape[0], reader.info.pixel_format)
    for index, plane in enumerate((luma, *chroma)):
        plane_of(whole, index)[:] = plane
    whole.color_range, whole.colorspace = 2 if reader.info.color_range == "full" else 1, frame.decoded.colorspace
    gray = "gray16be" if deep else "gray"
    return whole.reformat(format=PNG_FORMATS[transparent, deep] if chroma else gray)
