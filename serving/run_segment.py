"""`videodeblur run-segment`: the second of three commands that deblur a folder of videos on many machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import USER_ERROR, clean_up_when_stopped, command
from runtime.errors import InputError
from runtime.run.metrics_file import FLAG, HELP
from serving.library.arguments import say, task_parser
from serving.library.plan import load_library


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = task_parser(
        "run-segment", "Deblurs one segment of a planned library, or one task's share of all; what is done is skipped."
    )
    add = parser.add_argument
    add("index", type=int, metavar="INDEX", help="number of the segment among all, from 0; with --of, number of the task")
    add("--of", type=int, metavar="TASKS", help="do every TASKS-th segment from INDEX on, with one engine for all")
    add("--model", type=Path, metavar="PATH", help="copy of the planned model on this machine")
    add("--threads", type=int, metavar="N", help="CPU cores for the network (default: all)")
    add(FLAG, type=Path, metavar="FILE", help=HELP)
    arguments = parser.parse_args(argv)
    segments = load_library(arguments.output).segments
    chosen = _chosen(arguments.index, arguments.of, len(segments))
    from serving.library.worker import SEGMENT, Task, Worker  # here, so that help needs no PyAV

    clean_up_when_stopped()
    failed = 0
    with Worker(arguments.output, arguments.threads, arguments.model, arguments.metrics) as worker:
        for index in chosen:
            entry, number = segments[index]
            task = Task(SEGMENT, entry.file, number)
            outcome = worker.do(task)
            failed += bool(outcome.error)
            say(f"{index}: {task}: {outcome.error.strip() or f'{outcome.frames} frames'}")
    print(f"{len(chosen) - failed} of {len(chosen)} segments are done")
    return USER_ERROR if failed else 0


def _chosen(index: int, tasks: int | None, count: int) -> range:
    if not count:
        raise InputError("the plan has no segments: do plan-library again, to its end")
    if tasks is None:
        if not 0 <= index < count:
            raise InputError(f"the index is {index}, expected 0 to {count - 1}: the library has {count} segments")
        return range(index, index + 1)
    if not 0 <= index < tasks:
        raise InputError(f"the index is {index} of {tasks} tasks, expected 0 to {tasks - 1}")
    return range(index, count, tasks)


if __name__ == "__main__":
    raise SystemExit(main(None))
