"""What every command shares: how an error leaves the process."""

from __future__ import annotations

import errno
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Optional

from runtime.errors import DeployError

USER_ERROR = 1  # also when a gate such as a PSNR threshold fails
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

Main = Callable[[Optional[Sequence[str]]], int]


def command(main: Main) -> Main:
    """Decorates `main(argv) -> exit status`: a user's error ends in one line on stderr and status 1, Ctrl-C in status 130.

    Bugs keep their traceback.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except DeployError as error:
            return _report(str(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            return USER_ERROR
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EISDIR):
                raise
            return _report(f"{error.filename or 'writing'}: {error.strerror}")

    return guarded


def quoted(*words: object) -> str:
    """A command as a shell takes it, for those who paste what we print."""
    return shlex.join(str(word) for word in words)


def _report(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR
