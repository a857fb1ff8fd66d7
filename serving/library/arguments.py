"""What the commands on a library share: their options, the lock that keeps two of them apart, and how they tell what they do."""

from __future__ import annotations

import argparse
import fcntl
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import InputError
from runtime.run.arguments import LOG_LEVELS, add_encoder_arguments, add_network_arguments, encoder_options, network_options
from serving.library.plan import WORK
from serving.library.scan import LibraryRequest

LOCK = "lock"  # in WORK


def task_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for what is done to a planned library."""
    parser = argparse.ArgumentParser(prog=f"videodeblur {name}", description=description)
    parser.add_argument("output", type=Path, metavar="OUT_DIR", help="folder that was given to plan-library")
    return parser


def library_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with all that a LibraryRequest needs."""
    parser = argparse.ArgumentParser(prog=f"videodeblur {name}", description=description)
    add = parser.add_argument
    add("source", type=Path, metavar="IN_DIR", help="folder with videos, and with folders of them")
    add("output", type=Path, metavar="OUT_DIR", help="folder for the results, visible under the same path on all machines")
    add("--segment", type=int, default=250, metavar="N", help="frames of a segment, about (default: %(default)s)")
    add("--suffix", help="suffix of all outputs, such as .mkv (default: the source's where it is .mp4, .m4v, .mov or .mkv)")
    add_network_arguments(parser, server=False)
    add_encoder_arguments(parser)
    add("--log-level", choices=LOG_LEVELS, default="warning", help="level of Python's log on stderr (default: %(default)s)")
    return parser


def request_of(arguments: argparse.Namespace) -> LibraryRequest:
    """What `library_parser` has read."""
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return LibraryRequest(
        source=arguments.source,
        output=arguments.output,
        segment=arguments.segment,
        suffix=arguments.suffix,
        encoder=encoder_options(arguments),
        **network_options(arguments),
    )


@contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Raises InputError when another process plans or drives the library whose results go to `output`."""
    work = output / WORK
    work.mkdir(parents=True, exist_ok=True)
    with (work / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{work}: another process is at this library: wait for it, or choose another output folder") from error
        except OSError as error:  # some network file systems have no locks
            say(f"note: {work} cannot be locked ({error.strerror}): see to it that no other process plans or drives this library")
        yield


def say(line: str) -> None:
    """Tells a person, who may have redirected the result."""
    print(line, file=sys.stderr, flush=True)
