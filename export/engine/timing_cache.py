"""TensorRT's timing cache: what its builder measured on a GPU, kept from build to build and shared by builds that run at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import BackendError
from runtime.files.on_disk import partial_file

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class TimingCache:
    """A timing cache file, handed to a builder's configuration; `keep` adds what the build measured.

    The file is locked only while it is read or written; two builds at once both keep what they found. A file of another GPU or
    version is not used, and is replaced.
    """

    def __init__(self, path: Path, config: Any) -> None:
        self._path, self._config = path, config
        with _locked(path):
            cache = _load(path, config)
        if not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            if not config.set_timing_cache(cache, False):
                raise BackendError("the library takes no timing cache: leave --timingCacheFile out")
        self._cache = cache  # the configuration does not own it

    def keep(self) -> None:
        """Merges the build's measurements into the file."""
        measured = self._config.get_timing_cache()
        with _locked(self._path):
            merged = _load(self._path, self._config)
            if not merged.combine(measured, False):
                merged = measured
            with partial_file(self._path) as partial:
                partial.write_bytes(memoryview(merged.serialize()))


def cache_name(library: str, version: str, gpu: str, compute_capability: tuple[int, int]) -> str:
    """The file name of the cache for a version and a GPU."""
    name = "".join(letter if letter.isalnum() else "-" for letter in gpu.lower()).strip("-")
    return f"{library}-{version}-{name}-sm{compute_capability[0]}{compute_capability[1]}.timing"


def _load(path: Path, config: Any) -> Any:
    return config.create_timing_cache(path.read_bytes() if path.is_file() else b"")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a+b") as file:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file unlocks it
