"""The TensorRT libraries: full TensorRT 8.6 to 11, TensorRT-RTX and the lean runtime; the only file that imports them.

They share most of their Python API; where they differ, callers ask `hasattr`, not the version.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from runtime.errors import MissingPackageError
from runtime.machine.requirements import requirement

log = logging.getLogger("videodeblur.tensorrt")
log.addHandler(logging.NullHandler())  # failures reach the caller as errors that quote the messages


@dataclass(frozen=True)
class Library:
    """An imported TensorRT library and the one logger that a process may give it."""

    name: str  # the module's name, one of engine_record.LIBRARIES
    module: Any
    logger: Any  # a trt.ILogger

    @property
    def version(self) -> str:
        """For example "11.4.0.106"."""
        return str(self.module.__version__)

    @contextmanager
    def messages(self, verbose: bool = False) -> Iterator[Messages]:
        """Collects what the library says meanwhile, to any thread: warnings and errors, with `verbose` everything."""
        collected = Messages(logging.DEBUG if verbose else logging.WARNING)
        self.logger.sinks.append(collected)
        try:
            yield collected
        finally:
            self.logger.sinks.remove(collected)

    @contextmanager
    def told_to(self, listener: Callable[[int, str], None]) -> Iterator[None]:
        """Hands what the library says meanwhile to `listener`, as (level of `logging`, message), while it says it."""
        told = _Told(listener)
        self.logger.sinks.append(told)
        try:
            yield
        finally:
            self.logger.sinks.remove(told)


@dataclass(frozen=True)
class _Told:
    add: Callable[[int, str], None]


class Messages:
    """What a library said. Compared by identity: two that are equally empty are still two."""

    def __init__(self, level: int) -> None:
        self.level = level  # of `logging`; what is below is not kept
        self.all: list[str] = []
        self.errors: list[str] = []

    def add(self, level: int, message: str) -> None:
        """Keeps a message."""
        if level >= self.level:
            self.all.append(message)
        if level >= logging.ERROR:
            self.errors.append(message)

    def reason(self) -> str:
        """Why something failed, in the library's own words."""
        return " | ".join(dict.fromkeys(message.strip() for message in self.errors)) or "it gave no reason"


@functools.cache
def load_library(name: str) -> Library:
    """Imports one of `engine_record.LIBRARIES`. Raises MissingPackageError when it, or a library it links to, is missing."""
    try:
        module = import_module(name)
    except (ImportError, OSError) as error:
        raise MissingPackageError(requirement(name.replace("_", "-")), f"running {name} engines ({error})") from error
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
            self.sinks: list[Messages] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            log.log(level, message)
            for collected in tuple(self.sinks):
                collected.add(level, message)

    return Logger()
