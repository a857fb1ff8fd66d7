"""`TrtexecLog`: lines as trtexec writes them, so that scripts that read them go on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import datetime

PROGRAM = "TensorRT.trtexec"
LETTERS = {logging.DEBUG: "V", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E"}


class TrtexecLog:
    """Information goes to standard output, warnings and errors to standard error; each line has the time and the letter of its
    level."""

    def __init__(self, verbose: bool = False, clock: Callable[[], datetime] = datetime.now) -> None:
        self._verbose, self._clock = verbose, clock

    def info(self, text: str = "") -> None:
        """A line, or several."""
        self._write(logging.INFO, text)

    def warn(self, text: str) -> None:
        """What the user should know."""
        self._write(logging.WARNING, text)

    def error(self, text: str) -> None:
        """Why it failed, and what to do."""
        self._write(logging.ERROR, text)

    def detail(self, text: str) -> None:
        """What only --verbose shows."""
        if self._verbose:
            self._write(logging.DEBUG, text)

    def library_said(self, level: int, message: str) -> None:
        """Takes what TensorRT says. An error is quoted by the one that ends the command, so that it is told once."""
        if self._verbose:
            self._write(logging.DEBUG if level < logging.WARNING else level, f"[TRT] {message}")
        elif level == logging.WARNING:
            self._write(level, f"[TRT] {message}")

    def banner(self, state: str, version: str, command: Sequence[str]) -> None:
        """`state` is RUNNING, PASSED or FAILED."""
        print(f"&&&& {state} {PROGRAM} {_version_words(version)} # {' '.join(command)}", flush=True)

    def _write(self, level: int, text: str) -> None:
        stream = sys.stdout if level < logging.WARNING else sys.stderr
        stamp = f"[{self._clock():%m/%d/%Y-%H:%M:%S}] [{LETTERS.get(level, 'E')}] "
        for line in text.split("\n"):
            print(stamp + line, file=stream, flush=True)


def _version_words(version: str) -> str:
    """11.4.0.106 is [TensorRT v110400] [b106]; up to 9 the number has four digits and no build."""
    numbers = [int(part) for part in version.split(".")[:4] if part.isdigit()] + [0, 0, 0, 0]
    major, minor, patch, build = numbers[:4]
    if 8 <= major <= 9:
        return f"[TensorRT v{1000 * major + 100 * minor + patch}]"
    return f"[TensorRT v{10000 * major + 100 * minor + patch}] [b{build}]"
