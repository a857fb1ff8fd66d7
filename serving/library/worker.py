"""`Worker`: does tasks of a library one after the other with one open engine, and never raises for what is the task's own fault."""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from runtime.command_line import stop_if_told
from runtime.errors import DeployError, InputError
from runtime.run.metrics_file import metrics_file
from serving.library.plan import Entry, load_library
from serving.library.scan import open_engine
from serving.library.segment_maker import make_segment
from serving.library.video_joiner import join_video
from serving.library.video_planner import plan_video

PLANNING, SEGMENT, JOINING = "plan", "segment", "join"  # kinds of tasks


@dataclass(frozen=True)
class Task:
    """A piece of work, named, not handed over: paths and numbers only."""

    kind: str  # PLANNING, SEGMENT or JOINING
    file: str  # the video's path in the library
    number: int = 0  # of the segment

    def __str__(self) -> str:
        return f"{self.file} (segment {self.number})" if self.kind == SEGMENT else f"{self.file} ({self.kind})"


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    frames: int = 0  # planned, deblurred or joined
    segments: int = 0  # planned
    notes: tuple[str, ...] = ()  # what could not be copied, from a join
    error: str = ""  # empty when it is done
    final: bool = False  # whether another try would fail too


class Worker:
    """Holds one engine for the library whose results go to `output`; a context manager."""

    def __init__(self, output: Path, threads: int | None = None, model: Path | None = None, metrics: Path | None = None) -> None:
        """Opens the engine; `metrics` is as in `metrics_file`.

        Raises InputError where there is no plan, and the errors of `open_engine` and `metrics_file`.
        """
        self._library = load_library(output)
        with ExitStack() as opened:
            self._engine = opened.enter_context(open_engine(self._library, threads, model))
            opened.enter_context(metrics_file(self._engine, metrics))
            stop_if_told()
            self._opened = opened.pop_all()

    def do(self, task: Task) -> Outcome:
        """Does a task; errors come back as text, since they go to another process or machine."""
        try:
            return self._do(task, self._library.entry(task.file))
        except DeployError as error:
            return Outcome(error=str(error), final=task.kind == PLANNING and isinstance(error, InputError))
        except Exception:  # a bug or the machine's fault: reported with its traceback, while other tasks go on
            return Outcome(error=traceback.format_exc())

    def close(self) -> None:
        """Closes the engine; calling it again does nothing."""
        self._opened.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, task: Task, entry: Entry) -> Outcome:
        if task.kind == PLANNING:
            plan = plan_video(self._library, entry, self._engine)
            return Outcome(plan.frames, len(plan.segments))
        if task.kind == JOINING:
            joined = join_video(self._library, entry)
            return Outcome(joined.frames, notes=joined.notes)
        record = make_segment(self._library, entry, task.number, self._engine)
        return Outcome(record.frames if record else 0)
