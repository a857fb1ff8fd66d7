"""`run_library`: plans, deblurs and joins every video of a library with a pool of workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runtime.progress import Progress, Say
from serving.library.dispatcher import Dispatcher, Failure, Pool
from serving.library.plan import PLAN, Library, save
from serving.library.segment_maker import finished_output, load_video
from serving.library.video_joiner import missing_segments
from serving.library.worker import JOINING, PLANNING, SEGMENT, Outcome, Task

FAILURES = "failures.json"  # in WORK, while there are any


@dataclass(frozen=True)
class RunOptions:
    """How hard to try."""

    tries: int = 3  # of each task
    patience: float = 300.0  # seconds without any worker
    only_plan: bool = False


@dataclass(frozen=True)
class LibrarySummary:
    """What a run did."""

    output: str
    videos: int
    joined: int  # videos that are done, earlier runs' included
    segments: int
    frames: int  # deblurred in this run
    seconds: float  # from the first worker that was ready to the last task
    retries: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]  # what could not be copied, by video


@dataclass(frozen=True)
class _Failures:
    failures: tuple[Failure, ...]


def run_library(
    library: Library, pool: Pool, options: RunOptions, progress: Progress | None = None, say: Say | None = None
) -> LibrarySummary:
    """Does what is not done yet; what fails `tries` times is left out, with all its errors in failures.json.

    `progress` is called after every segment; `say` with a line for every video and every failure. Raises BackendError when there
    are no workers.
    """
    run = _Run(library, options, progress, say or (lambda _: None))
    dispatcher = Dispatcher(pool, run.done, options.tries, options.patience, run.say)
    try:
        dispatcher.run(Task(PLANNING, entry.file) for entry in library.videos)
        seconds = dispatcher.seconds
    finally:  # also when it was interrupted, or there are no workers
        planned = run.planned({each.task.file: each.errors[-1] for each in dispatcher.failures if each.task.kind == PLANNING})
        save(planned, library.work / PLAN)
        _tell_failures(library.work / FAILURES, dispatcher.failures)
    return LibrarySummary(
        output=library.output,
        videos=len(library.videos),
        joined=run.joined,
        segments=sum(entry.segments for entry in planned.videos),
        frames=run.frames - run.frames_before,
        seconds=seconds,
        retries=dispatcher.retries,
        failures=tuple(dispatcher.failures),
        notes=tuple(run.notes),
    )


class _Run:
    """What follows from a task, and what is counted."""

    def __init__(self, library: Library, options: RunOptions, progress: Progress | None, say: Say) -> None:
        self.say = say
        self.frames = self.frames_before = self.joined = 0
        self.notes: list[str] = []
        self._library, self._options, self._progress = library, options, progress
        self._entries = {entry.file: entry for entry in library.videos}
        self._counts: dict[str, tuple[int, int]] = {}  # frames and segments
        self._left: dict[str, int] = {}  # segments to do

    def done(self, task: Task, outcome: Outcome) -> Iterator[Task]:
        """The tasks that a finished one makes possible."""
        if task.kind == PLANNING:
            yield from self._planned(task.file, outcome)
        elif task.kind == SEGMENT:
            self.frames += outcome.frames
            self._left[task.file] -= 1
            if not self._left[task.file]:
                yield Task(JOINING, task.file)
        else:
            self.joined += 1
            self.notes += [f"{task.file}: {note}" for note in outcome.notes]
            self.say(f"{task.file}: done, {outcome.frames} frames ({self.joined} of {len(self._entries)} videos)")
        self._show()

    def planned(self, refused: dict[str, str]) -> Library:
        """The library with what is known of its videos, from earlier runs where this one did not come to them."""
        entries = []
        for entry in self._library.videos:
            if entry.file in self._counts or entry.file in refused:
                frames, segments = self._counts.get(entry.file, (0, 0))
                entry = replace(entry, frames=frames, segments=segments, refused=refused.get(entry.file, ""))
            entries.append(entry)
        return replace(self._library, videos=tuple(entries))

    def _planned(self, file: str, outcome: Outcome) -> Iterator[Task]:
        self._counts[file] = outcome.frames, outcome.segments
        entry = self._entries[file]
        if finished_output(self._library, entry):
            self.joined += 1
            self._count_before(outcome.frames)
            return
        if self._options.only_plan:
            return
        plan = load_video(self._library, entry)
        missing = missing_segments(self._library, entry, plan)
        self._count_before(plan.frames - sum(plan.segments[number].frames for number in missing))
        self._left[file] = len(missing)
        yield from (Task(SEGMENT, file, number) for number in missing)
        if not missing:
            yield Task(JOINING, file)

    def _count_before(self, frames: int) -> None:
        self.frames, self.frames_before = self.frames + frames, self.frames_before + frames

    def _show(self) -> None:
        if self._progress:
            known = len(self._counts) == len(self._entries)
            self._progress(self.frames, sum(frames for frames, _ in self._counts.values()) if known else None)


def _tell_failures(path: Path, failures: list[Failure]) -> None:
    if failures:
        save(_Failures(tuple(failures)), path)
    else:
        path.unlink(missing_ok=True)


def summary_text(summary: LibrarySummary) -> str:
    """The summary in a few lines."""
    rate = summary.frames / summary.seconds if summary.seconds else 0
    work = f"{summary.frames} frames in {summary.seconds:.1f} s ({rate:.1f} fps), {summary.retries} retries"
    lines = [f"{summary.output}: {summary.joined} of {summary.videos} videos are done, {work}"]
    if summary.failures:
        lines.append(f"{len(summary.failures)} failed, the same command tries them again:")
        lines += [f"  {failure}" for failure in summary.failures]
    return "\n".join(lines)


def summary_record(summary: LibrarySummary) -> dict[str, object]:
    """The summary for JSON."""
    return asdict(summary)
