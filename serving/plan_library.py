"""`videodeblur plan-library`: the first of three commands that deblur a folder of videos on many machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import USER_ERROR, clean_up_when_stopped, command, quoted
from serving.library.arguments import library_parser, only_one, request_of, say


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = library_parser(
        "plan-library", "Decides how a folder of videos is cut into segments; videos planned already are skipped."
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    arguments = parser.parse_args(argv)
    request = request_of(arguments)
    from serving.library.dispatcher import LocalPool  # here, so that help needs no PyAV
    from serving.library.run import RunOptions, run_library, summary_record
    from serving.library.scan import begin_library
    from serving.library.worker import Worker

    clean_up_when_stopped()
    with only_one(request.output):
        library = begin_library(request, say)
        with Worker(request.output, request.threads) as worker:
            summary = run_library(library, LocalPool(worker.do), RunOptions(only_plan=True), say=say)
    if arguments.json:
        print(json.dumps(summary_record(summary)))
    else:
        refused = f", {len(summary.failures)} cannot be planned" if summary.failures else ""
        print(f"{summary.output}: {summary.videos} videos, {summary.segments} segments{refused}, {summary.joined} are done already")
        if summary.joined < summary.videos and summary.segments:
            every = f"for every INDEX from 0 to {summary.segments - 1}"
            run, join = quoted("run-segment", request.output), quoted("join", request.output)
            print(f"next: videodeblur {run} INDEX, {every}; then videodeblur {join}")
    return USER_ERROR if summary.failures else 0


if __name__ == "__main__":
    raise SystemExit(main(None))
