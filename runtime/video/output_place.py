"""`PlaceError`: where an output goes cannot take it, whatever its format; and what to do about each reason."""

from __future__ import annotations

import errno
from pathlib import Path

import av

from runtime.errors import VideoError

OTHER = "choose another output"
REMEDIES = {  # of errors of a disk, a folder or a name
    errno.ENOSPC: f"make room there, or {OTHER}",
    errno.EDQUOT: f"make room in your quota there, or {OTHER}",
    errno.EFBIG: f"raise the limit of a file's size (ulimit -f), or {OTHER} on a file system for large files",
    errno.EIO: f"see to the disk, or {OTHER} on another",
    errno.EROFS: f"make it writable, or {OTHER} elsewhere",
    errno.EACCES: f"ask for the right to write there, or {OTHER}",
    errno.EPERM: f"ask for the right to write there, or {OTHER}",
    errno.ENAMETOOLONG: "take a shorter name",
}


class PlaceError(VideoError):
    """Another format would fare no better."""


def refused(path: Path, what: str, error: OSError | av.FFmpegError) -> VideoError:
    """What to raise for an error of the system or of FFmpeg on the way to `path`; `what` says what could not be done."""
    kind = PlaceError if error.errno in REMEDIES else VideoError
    return kind(f"{path}: {what} ({error.strerror or error}): {REMEDIES.get(error.errno or 0, OTHER)}")
