"""What every command shares: how an error leaves the process."""

from __future__ import annotations

import errno
import functools
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Optional

from runtime.errors import DeployError

USER_ERROR = 1  # also when a gate such as a PSNR threshold fails
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end; its argument is the exit status that shells report for it."""


Main = Callable[[Optional[Sequence[str]]], int]


def command(main: Main) -> Main:
    """Decorates `main(argv) -> exit status`: a user's error ends in one line on stderr and status 1, Ctrl-C in status 130,
    a signal of `clean_up_when_stopped` in its own.

    Bugs keep their traceback.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
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
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EISDIR):
                raise
            return _report(f"{error.filename or 'writing'}: {error.strerror}")

    return guarded


def clean_up_when_stopped() -> None:
    """From here on a scheduler's stop cleans up as Ctrl-C does, and ends in status 143."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: object) -> None:
    raise Stopped(128 + number)


def quoted(*words: object) -> str:
    """A command as a shell takes it, for those who paste what we print."""
    return shlex.join(str(word) for word in words)


def _report(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR
