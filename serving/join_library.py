"""`videodeblur join`: the third of three commands that deblur a folder of videos on many machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import USER_ERROR, clean_up_when_stopped, command
from runtime.errors import DeployError
from serving.library.arguments import say, task_parser
from serving.library.plan import load_library


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = task_parser(
        "join", "Joins the finished segments of a library's videos without encoding them again; what is joined is skipped."
    )
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="paths in IN_DIR (default: all)")
    arguments = parser.parse_args(argv)
    library = load_library(arguments.output)
    entries = [library.entry(file) for file in arguments.videos] or library.videos
    from serving.library.video_joiner import join_video  # here, so that help needs no PyAV

    clean_up_when_stopped()
    failed = 0
    for entry in entries:
        try:
            if entry.refused:
                raise DeployError(entry.refused)
            record = join_video(library, entry)
        except (DeployError, OSError) as error:
            failed += 1
            say(f"error: {entry.file}: {error}")
        else:
            print(f"{Path(library.output) / entry.output}: {record.frames} frames")
            for note in record.notes:
                say(f"note: {entry.file}: {note}")
    print(f"{len(entries) - failed} of {len(entries)} videos are done")
    return USER_ERROR if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(None))
