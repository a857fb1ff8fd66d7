"""`CompiledFiles`: what a library compiled of a model, kept in the user's cache, so that the next start need not compile it.

OpenVINO takes a compiled model of which a byte was changed without a word, and computes something else. So every file here begins
with the SHA-256 of what it is of and of the rest, and one that does not fit is not handed out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.errors import DeployError
from runtime.files.on_disk import cache_folder, partial_file

FOLDER, SUFFIX = "compiled", ".bin"
MOST_BYTES = 256 << 20  # of all together; those that were not used for longest go
NAME_LENGTH = 16  # characters of a SHA-256

log = logging.getLogger("videodeblur.compiled")
log.addHandler(logging.NullHandler())


class CompiledFiles:
    """Those of one model, compiled in one way; `described` is all but the shape that they depend on, as JSON has it."""

    def __init__(self, described: Sequence[Any]) -> None:
        self._described = list(described)

    def load(self, shape: Sequence[int]) -> bytes | None:
        """The compiled model for an input shape; None where there is none, or it is not as it was written."""
        digest, path = self._place(shape)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        kept = data[digest.digest_size :]
        digest.update(kept)
        if digest.digest() != data[: digest.digest_size]:
            log.warning("%s was changed: it is compiled again", path)
            return None
        return kept

    def save(self, shape: Sequence[int], compiled: bytes) -> None:
        """Keeps it, where the cache can be written to."""
        digest, path = self._place(shape)
        digest.update(compiled)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial_file(path) as partial:
                partial.write_bytes(digest.digest() + compiled)
            _drop_old(path.parent)
        except (OSError, DeployError) as error:
            log.info("%s is not kept: %s", path, error)

    def _place(self, shape: Sequence[int]) -> tuple[Any, Path]:
        """The SHA-256 so far, of what it is of, and the file."""
        digest = hashlib.sha256(json.dumps([*self._described, list(shape)]).encode())
        return digest, cache_folder() / FOLDER / f"{digest.hexdigest()[:NAME_LENGTH]}{SUFFIX}"


def _drop_old(folder: Path) -> None:
    left = MOST_BYTES
    with suppress(FileNotFoundError):  # another process drops them too
        for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True):
            left -= path.stat().st_size
            if left < 0:
                path.unlink()
