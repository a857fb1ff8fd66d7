"""What every command shares: how an error leaves the process."""

from __future__ import annotations

import errno
import functools
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, TextIO, cast

from runtime.errors import DeployError

USER_ERROR = 1  # also when a gate such as a PSNR threshold fails
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TOLD = {  # errors of the system that are the user's to mend
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
}


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end; its argument is the exit status that shells report for it."""


_told: list[int] = []  # signals that asked this command to end

Main = Callable[[Optional[Sequence[str]]], int]


def command(main: Main) -> Main:
    """Decorates `main(argv) -> exit status`: a user's error ends in one line on stderr and status 1, Ctrl-C in status 130,
    a signal of `clean_up_when_stopped` in its own.

    Bugs keep their traceback.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        _told.clear()
        _open_standard_streams()
        try:
            return main(argv)
        except DeployError as error:
            return _report(str(error))
        except KeyboardInterrupt as error:
            print("interrupted", file=sys.stderr)
            return int(error.args[0]) if isinstance(error, Stopped) else INTERRUPTED
        except BrokenPipeError:
            return USER_ERROR
        except OSError as error:
            if error.errno not in TOLD:
                raise
            return _report(f"{error.filename or 'writing'}: {error.strerror}")

    return guarded


def clean_up_when_stopped() -> None:
    """From here on a scheduler's stop, or a terminal that is closed, cleans up as Ctrl-C does; `nohup` still holds.

    The process ends in status 143 or 129.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    hangup = getattr(signal, "SIGHUP", None)  # a Unix has it
    if hangup and signal.getsignal(hangup) == signal.SIG_DFL:
        signal.signal(hangup, _stop)


def stop_if_told() -> None:
    """Raises Stopped where a signal came and nothing did: libraries that are being loaded swallow exceptions."""
    if _told:
        raise Stopped(128 + _told[-1])


def _stop(number: int, _: object) -> None:
    _told.append(number)
    raise Stopped(128 + number)


def quoted(*words: object) -> str:
    """A command as a shell takes it, for those who paste what we print."""
    return shlex.join(str(word) for word in words)


def _open_standard_streams() -> None:
    """Gives those that the caller closed (2>&-) to the null device, before a file of ours gets their numbers, and messages.

    What an encoding has no letters for is written as its number: the work is done by then, and must not fail over its own report.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w" if number else "r", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, _Lenient):
        sys.stderr = cast("TextIO", _Lenient(sys.stderr))


class _Lenient:
    """Standard error, whose reader may leave, or whose disk be full, without an end to the work; used as the stream that it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def print_summary(line: str, to: TextIO) -> None:
    """Prints the last line of work that is done, which nobody's leaving undoes: then a note on standard error says so."""
    try:
        print(line, file=to, flush=True)
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())  # else the interpreter fails over it once more when it ends
        print(f"note: all is done, but its summary could not be printed ({error.strerror}): {line}", file=sys.stderr)


def _report(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR
