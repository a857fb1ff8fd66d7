"""Files and folders that appear under their name whole or not at all; the SHA-256 of a file; the user's cache."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import DeployError, InputError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

Read = Callable[[Path], bytes]  # all bytes of a file; of a bundle: the very bytes that its manifest vouches for

PART_ONNX = ".part.onnx"  # of one that is opened before it is complete
LONGEST = 255  # bytes of a name
TOKEN = 12  # letters that nobody can guess
JUST_MADE = 60.0  # seconds in which a part may not be locked yet
SPECIAL = {
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
}


@contextmanager
def partial_file(path: Path, flag: str | None = None, suffix: str = ".part") -> Iterator[Path]:
    """An empty file beside `path` which becomes `path` when the block ends well and is gone otherwise.

    It is made at once, so that a place that cannot be written to is told before the work is done. Raises OSError; where the user
    named the file with a `flag`, InputError, as for a folder: then what writes in the block has `refusals` around it. Raises
    InputError for a device or a pipe too.
    """
    if flag and path.is_dir():
        raise InputError(f"output is {path}, which is a folder, expected a file's name")
    place = place_of(path)
    with refusals(place.parent, flag):
        part = Part(place, suffix)
    try:
        yield part.path
        with refusals(place.parent, flag):
            part.path.replace(place)
    finally:
        part.drop()


@contextmanager
def partial_onnx(path: Path) -> Iterator[Path]:
    """The same for a model file that --output names. Raises InputError on another suffix than .onnx too.

    Errors of this project that the block raises name `path` where they named the unfinished file.
    """
    if path.suffix != ".onnx":
        raise InputError(f"output is {path}, expected a name that ends with .onnx")
    with partial_file(path, "--output", PART_ONNX) as partial:
        try:
            yield partial
        except DeployError as error:
            error.args = tuple(str(text).replace(partial.name, path.name) for text in error.args)
            raise


@contextmanager
def partial_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """The same for a folder. One of that name is in the way, or with `overwrite` gone, but not before the new one is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.absolute()
    part, old = Part(path, folder=True), path.with_name(part_name(path, ".old"))
    try:
        yield part.path
        if overwrite and path.exists():
            path.rename(old)
        try:
            part.path.rename(path)
        except OSError:
            with suppress(FileNotFoundError):
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        part.drop()


class Part:
    """An unfinished file or folder of our own beside `path`: no other process has it or its name, nor can have planted a link.

    What a killed process left there, for the same `path`, is deleted first. `drop` deletes it, unless it was renamed.
    """

    def __init__(self, path: Path, ending: str = ".part", folder: bool = False) -> None:
        _clear(path, ending)
        self.path = path.with_name(part_name(path, ending))
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            if folder:
                self.path.mkdir()
            self._held: int | None = os.open(self.path, flags, 0o666)
            with suppress(OSError):  # a file system without locks: there nobody takes it for left over
                _lock(self._held)
        except OSError:  # it is not ours
            raise
        except BaseException:  # Ctrl-C
            _delete(self.path)
            raise

    def drop(self) -> None:
        """Deletes it; calling it again does nothing."""
        if self._held is None:
            return
        os.close(self._held)
        self._held = None
        _delete(self.path)


def part_name(path: Path, ending: str) -> str:
    """A name for what is to be `path`, which nobody can guess, and no longer than a file system takes."""
    stem = path.stem if path.suffix and ending.endswith(path.suffix) else path.name
    rest = f".{secrets.token_hex(TOKEN // 2)}{ending}"
    return f".{_clipped(stem, LONGEST - 1 - len(os.fsencode(rest)))}{rest}"


def place_of(path: Path) -> Path:
    """Where a file that is to have this name goes: what a link leads to, so that the link stays.

    Raises InputError where a device, a pipe or a socket has the name, which a file would replace.
    """
    place = Path(os.path.realpath(path)) if path.is_symlink() else path.absolute()  # whatever the working directory is by then
    try:
        mode = path.stat().st_mode
    except OSError:  # there is none yet, or writing will tell
        return place
    found = [what for is_it, what in SPECIAL.items() if is_it(mode)]
    if found:
        raise InputError(
            f"{path} is {found[0]}, which a file would replace: name a file, or write to standard output where that is -"
        )
    return place


def take_name(part: Path, place: Path) -> bool:
    """Gives a finished `part` the name `place`, unless something has it by now, which stays. Whether it did. Raises OSError."""
    try:
        os.link(part, place)  # refused where the name is taken, without a moment between asking and taking
    except FileExistsError:
        return False
    except OSError:  # a folder, or a file system without links
        if os.path.lexists(place):
            return False
        part.rename(place)
    else:
        part.unlink()
    return True


def free_name(part: Path, place: Path) -> Path:
    """Gives a finished `part` the first free name beside `place`: clip.1.mp4, clip.2.mp4. Raises OSError."""
    for number in itertools.count(1):
        name = place.with_name(f"{place.stem}.{number}{place.suffix}")
        if take_name(part, name):
            return name
    raise AssertionError("numbers end")


def _clear(path: Path, ending: str) -> None:
    """Deletes parts whose process was killed: nobody holds them, and they are not just being made."""
    name = part_name(path, ending)
    before, after = name[: -len(ending) - TOKEN], name[len(name) - len(ending) :]
    with suppress(OSError):
        for left in path.parent.iterdir():
            token = left.name[len(before) : len(left.name) - len(after)]
            if left.name == f"{before}{token}{after}" and len(token) == TOKEN and not left.is_symlink():
                _delete_unheld(left)


def _delete_unheld(left: Path) -> None:
    with suppress(OSError):
        if time.time() - left.stat().st_mtime < JUST_MADE:
            return
        held = os.open(left, os.O_RDONLY)
        try:
            _lock(held)
            _delete(left)
        finally:
            os.close(held)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _lock(held: int) -> None:
    """Raises OSError where another process has it, or there are no locks."""
    if fcntl is None:
        raise OSError(errno.ENOLCK, "no locks on this system")
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _clipped(name: str, length: int) -> str:
    """Its beginning, of so many bytes at most."""
    while len(os.fsencode(name)) > length:
        name = name[:-1]
    return name


@contextmanager
def refusals(folder: Path, flag: str | None = "--output") -> Iterator[None]:
    """What the system refuses to write becomes an InputError, where there is a `flag` that names another place."""
    try:
        yield
    except OSError as error:
        if flag is None:
            raise
        raise InputError(f"cannot write to the folder {folder.resolve()}: {error.strerror}: name another with {flag}") from error


def check_not_input(output: Path | None, *inputs: Path | None) -> None:
    """Raises InputError where a file to be written is one of those it is made from, whatever path or link leads there."""
    for path in filter(None, inputs):
        if output and output.exists() and path.exists() and output.samefile(path):
            raise InputError(f"the output {output} is the input {path} too, which it would replace: name another output")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/videodeblur, by default ~/.cache/videodeblur."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videodeblur"
