"""`OutputWriter`: what every writer of an output takes, and does at the end of its `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from runtime.errors import VideoError
from runtime.files.on_disk import Part
from runtime.video.format import Frame, Plane
from runtime.video.output_place import refused

Writer = TypeVar("Writer", bound="OutputWriter")


class OutputWriter(ABC):
    """A context manager: leaving the `with` block finishes the output, leaving it by an exception does not; both close it."""

    frames: int  # written so far, earlier processes' included
    notes: list[str]  # what could not be copied, a line each

    def begin(self, job: Mapping[str, Any], tile: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """(frames that an earlier run of the same job has finished, height and width of its tiles); here none, and `tile`."""
        return 0, tile

    @abstractmethod
    def write(self, frame: Frame, luma: Plane, chroma: tuple[Plane, ...] | None = None) -> None:
        """Takes a frame's sharp luma, with `chroma`, or with the frame's own planes."""

    @abstractmethod
    def finish(self) -> None:
        """Completes the output and gives it its name; calling it again does nothing."""

    @abstractmethod
    def close(self) -> None:
        """Frees what is held, and deletes what is not finished; calling it again does nothing."""

    def __enter__(self: Writer) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()


def own_part(path: Path, place: Path, ending: str | None = None, folder: bool = False) -> Part:
    """The unfinished output, beside the `place` that the user calls `path`. Raises VideoError where nothing can be written."""
    if not place.parent.is_dir():
        raise VideoError(f"{path}: there is no folder {place.parent}: make it first")
    try:
        return Part(place, f".part{place.suffix}" if ending is None else ending, folder)
    except OSError as error:
        raise refused(path, "cannot be written", error) from error
