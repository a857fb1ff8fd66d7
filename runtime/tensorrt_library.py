"""The TensorRT libraries: full TensorRT 8.6 to 11, TensorRT-RTX and the lean runtime; the only file that imports them.

They share most of their Python API; where they differ, callers ask `hasattr`, not the version.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from runtime.errors import MissingPackageError

REQUIREMENTS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx>=1.7", "tensorrt_lean": "tensorrt-lean"}

log = logging.getLogger("videodeblur.tensorrt")
log.addHandler(logging.NullHandler())  # failures reach the caller as errors that quote the messages


@dataclass(frozen=True)
class Library:
    """An imported TensorRT library and the one logger that a process may give it."""

    name: str  # the module's name, a key of REQUIREMENTS
    module: Any
    logger: Any  # a trt.ILogger

    @property
    def version(self) -> str:
        """For example "11.4.0.106"."""
        return str(self.module.__version__)

    @contextmanager
    def messages(self, verbose: bool = False) -> Iterator[list[str]]:
        """Collects what the library says meanwhile: warnings and errors, with `verbose` everything."""
        collected: list[str] = []
        self.logger.sinks.append((collected, verbose))
        try:
            yield collected
        finally:
            self.logger.sinks.remove((collected, verbose))


@functools.cache
def load_library(name: str) -> Library:
    """Imports `name`, a key of REQUIREMENTS. Raises MissingPackageError when it, or a library it links to, is missing."""
    try:
        module = import_module(name)
    except (ImportError, OSError) as error:
        raise MissingPackageError(REQUIREMENTS[name], f"running {name} engines ({error})") from error
    return Library(name, module, _logger(module))


def _logger(trt: Any) -> Any:
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
        trt.ILogger.INFO: logging.DEBUG,
        trt.ILogger.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc] # a class of a module chosen at run time
        """Hands TensorRT's messages to `logging` and to whoever collects them."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.sinks: list[tuple[list[str], bool]] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            log.log(level, message)
            for collected, verbose in self.sinks:
                if verbose or level >= logging.WARNING:
                    collected.append(message)

    return Logger()
