"""`videodeblur library`: deblurs a folder of videos, on this machine or on a Ray cluster."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import USER_ERROR, clean_up_when_stopped, command
from runtime.errors import InputError
from runtime.machine.hardware import usable_cores
from runtime.progress import ProgressBar
from runtime.run.metrics_file import FLAG, HELP
from serving.library.access import Access, prepare_access
from serving.library.arguments import library_parser, only_one, request_of, say

if TYPE_CHECKING:
    from serving.library.dispatcher import Pool
    from serving.library.scan import LibraryRequest

PATIENCE = 300.0  # seconds, unless --patience says more or less
CORES = 4  # of a worker on a cluster, unless --threads says more or less


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = _parser().parse_args(argv)
    request = request_of(arguments)
    clustered = arguments.address is not None or arguments.workers > 0
    access = Access(arguments.address, arguments.token_file, arguments.no_token) if clustered else None
    _check(arguments)
    from serving.library.run import RunOptions, run_library, summary_record, summary_text
    from serving.library.scan import begin_library

    clean_up_when_stopped()
    options = RunOptions(arguments.tries, PATIENCE if arguments.patience is None else arguments.patience)
    with only_one(request.output), ProgressBar() as bar:
        library = begin_library(request, say)
        try:
            with _pool(request, access, arguments) as pool:
                clean_up_when_stopped()  # once more: Ray has put its own handler there
                summary = run_library(library, pool, options, None if arguments.no_progress else bar, say)
        except KeyboardInterrupt:
            say(f"{library.work} has what is done; the same command goes on from there")
            raise
    for note in summary.notes:
        say(f"note: {note}")
    print(json.dumps(summary_record(summary)) if arguments.json else summary_text(summary))
    return USER_ERROR if summary.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = library_parser("library", "Deblurs every video of a folder; what is done already is skipped.")
    cluster = parser.add_argument_group("the cluster, with Ray (pip install '.[cluster]')")
    add = cluster.add_argument
    add(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="engines at most (default: one, without Ray; on a cluster all that fit)",
    )
    add("--address", metavar="HOST:PORT", help="address of a Ray head (default: this machine alone, reachable from nowhere else)")
    add("--token-file", type=Path, metavar="FILE", help="token of the cluster, mode 0600")
    add("--no-token", action="store_true", help="join a cluster that has none: whoever reaches it can run code on it")
    add("--gpus", type=float, metavar="N", help="GPUs of each worker (default: 1 where the cluster has any, else 0)")
    add("--tries", type=int, default=3, metavar="N", help="failures before a segment is given up (default: %(default)s)")
    add(
        "--patience",
        type=float,
        metavar="SECONDS",
        help=f"seconds to wait while there is no worker (default: {PATIENCE:g})",
    )
    output = parser.add_argument_group("what is printed")
    output.add_argument("--no-progress", action="store_true", help="show no progress bar")
    output.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    output.add_argument(FLAG, type=Path, metavar="FILE", help=HELP)
    return parser


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (("workers", 0), ("tries", 1), ("patience", 0)):
        given = getattr(arguments, name)
        if given is not None and not given >= least:
            raise InputError(f"--{name} is {given}, expected {least} or more")
    if arguments.metrics and (arguments.address or arguments.workers):
        raise InputError("--metrics is of one engine in this process: leave out --workers and --address, or take run-segment")
    if arguments.address is None and not arguments.workers:
        if arguments.token_file or arguments.no_token:
            raise InputError("a token is for a cluster: name its --address")
        if arguments.patience is not None:
            raise InputError("--patience is for the workers of a cluster: say how many --workers, or name the cluster's --address")
        if arguments.gpus is not None:
            raise InputError("--gpus is of each worker: say how many --workers, or name the cluster's --address")


@contextmanager
def _pool(request: LibraryRequest, access: Access | None, arguments: argparse.Namespace) -> Iterator[Pool]:
    if access is None:
        from serving.library.dispatcher import LocalPool  # here, so that help needs no PyAV
        from serving.library.worker import Worker

        with Worker(request.output, request.threads, metrics=arguments.metrics) as worker:
            yield LocalPool(worker.do)
        return
    with prepare_access(access):
        from serving.library.ray_pool import RayPool, WorkerSize  # here, since it reads the environment, and few have Ray

        cores = request.threads or (CORES if access.address else _share(arguments.workers))
        size = WorkerSize(cores, arguments.gpus, arguments.workers or None)
        # Ray prints what happens to machines on stdout, which is for the result
        with redirect_stdout(sys.stderr), RayPool(request.output.absolute(), access, size) as pool:
            say(f"{pool.size} workers of {size.cores} cores")
            yield pool


def _share(workers: int) -> int:
    """CPU cores of each worker of this machine, of those that a scheduler left to this process."""
    return max(1, usable_cores() // workers)


if __name__ == "__main__":
    raise SystemExit(main(None))
