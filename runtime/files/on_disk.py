"""Files that appear under their name whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import InputError


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, with its suffix, which becomes `path` when the block ends well and is gone otherwise.

    It is made at once, so that a place that cannot be written to is told before the work is done. Raises InputError there, and
    where `path` is a folder; what writes in the block has `refusals` around it.
    """
    if path.is_dir():
        raise InputError(f"output is {path}, which is a folder, expected a file's name")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with refusals(path.parent):
        partial.touch()
    try:
        yield partial
        with refusals(path.parent):
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def partial_onnx(path: Path) -> Iterator[Path]:
    """The same for a model file. Raises InputError on another suffix than .onnx too."""
    if path.suffix != ".onnx":
        raise InputError(f"output is {path}, expected a name that ends with .onnx")
    with partial_file(path) as partial:
        yield partial


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """What the system refuses to write becomes an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder.resolve()}: {error.strerror}: name another with --output") from error
