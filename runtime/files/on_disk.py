"""Files and folders that appear under their name whole or not at all; the SHA-256 of a file; the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import DeployError, InputError

PART_ONNX = ".part.onnx"  # of one that is opened before it is complete


@contextmanager
def partial_file(path: Path, flag: str | None = None, suffix: str = ".part") -> Iterator[Path]:
    """An empty file beside `path` which becomes `path` when the block ends well and is gone otherwise.

    It is made at once, so that a place that cannot be written to is told before the work is done. Raises OSError; where the user
    named the file with a `flag`, InputError, as for a folder: then what writes in the block has `refusals` around it.
    """
    if flag and path.is_dir():
        raise InputError(f"output is {path}, which is a folder, expected a file's name")
    partial = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    with refusals(path.parent, flag):
        partial.touch()
    try:
        yield partial
        with refusals(path.parent, flag):
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


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
    partial, old = (path.with_name(f".{path.name}.{os.getpid()}.{ending}") for ending in ("part", "old"))
    partial.mkdir(parents=True)
    try:
        yield partial
        if overwrite and path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            with suppress(FileNotFoundError):
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
