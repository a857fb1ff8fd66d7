"""Whose an error is: a signal handler's exception comes up in the middle of a library's call, and is no failure of the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from runtime.errors import BackendError, DeployError

OURS = ("runtime", "numpy")  # what calls libraries, and what they call
PYTHONS = getattr(sys, "stdlib_module_names", {"functools", "contextlib", "concurrent", "threading", "typing", "collections"})


@contextmanager
def failures_of(library: str, what: str, kind: type[DeployError] = BackendError) -> Iterator[None]:
    """Turns what the library (the name of its package) raises into `kind`, "WHAT: its words".

    What the caller's signal handler raises meanwhile goes through as it is.
    """
    try:
        yield
    except Exception as error:  # of the libraries' errors there is no base but Exception
        if is_callers(error, library):
            raise
        raise kind(f"{what}: {error}") from error


def is_callers(error: BaseException, library: str) -> bool:
    """Whether an error that was caught around calls of `library` comes from code of others, as that of a signal handler."""
    return any(package not in (*OURS, library) and package not in PYTHONS for package in _packages(error.__traceback__))


def _packages(trace: TracebackType | None) -> Iterator[str]:
    """Of the frames from the one that caught the error to the one that raised it."""
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next
