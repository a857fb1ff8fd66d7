"""Tasks are handed out, tried again elsewhere, and given up; pools here are lists of what workers do."""

import pytest

from runtime.errors import BackendError
from serving.library.dispatcher import Dispatcher, Event
from serving.library.worker import JOINING, PLANNING, SEGMENT, Outcome, Task


class Pool:
    """Workers that do tasks one after the other; each is a function, or an error that it is lost with."""

    def __init__(self, *workers):
        self.workers, self.asked, self.log = dict(enumerate(workers)), [], []

    def idle(self):
        return [worker for worker in self.workers if worker not in {at for at, _ in self.asked}]

    def present(self):
        return list(self.workers)

    def give(self, worker, task):
        self.asked.append((worker, task))

    def wait(self, seconds):
        if not self.asked:
            return None
        worker, task = self.asked.pop(0)
        self.log.append((worker, task))
        outcome = self.workers[worker](task)
        if isinstance(outcome, str):
            del self.workers[worker]
            return Event(worker, task, lost=outcome)
        return Event(worker, task, outcome)


def works(task):
    return Outcome(10)


def fails(task):
    return Outcome(error=f"no luck with {task.number}")


def segments(count):
    return [Task(SEGMENT, "a", number) for number in range(count)]


def run(pool, tasks, tries=3, patience=0.0, follow=lambda task, outcome: []):
    done, said = [], []

    def finished(task, outcome):
        done.append(task)
        return follow(task, outcome)

    dispatcher = Dispatcher(pool, finished, tries, patience, said.append)
    dispatcher.run(tasks)
    return dispatcher, done, said


def test_a_worker_on_which_everything_fails_uses_up_no_tries():
    pool = Pool(works, fails)
    dispatcher, done, _ = run(pool, segments(20))
    assert sorted(task.number for task in done) == list(range(20))
    assert not dispatcher.failures
    for task in segments(20):
        assert [worker for worker, each in pool.log if each == task] in ([0], [1, 0])


def test_a_task_that_fails_everywhere_is_given_up_with_all_its_errors():
    def picky(task):
        return fails(task) if task.number == 2 else works(task)

    dispatcher, done, said = run(Pool(picky, picky), segments(4))
    assert sorted(task.number for task in done) == [0, 1, 3]
    [failure] = dispatcher.failures
    assert (failure.task.number, failure.errors, dispatcher.retries) == (2, ("no luck with 2",) * 3, 2)
    assert said[-1] == "given up: a (segment 2): no luck with 2 (3 tries)"


def test_what_would_fail_again_is_tried_once():
    dispatcher, _, _ = run(Pool(lambda task: Outcome(error="no video", final=True)), [Task(PLANNING, "a")])
    assert [len(failure.errors) for failure in dispatcher.failures] == [1]


def test_a_lost_worker_s_task_goes_to_another():
    pool = Pool(lambda task: "killed", works)
    dispatcher, done, said = run(pool, segments(4))
    assert sorted(task.number for task in done) == [0, 1, 2, 3]
    assert dispatcher.retries == 1
    assert said == ["a (segment 0) is tried again: its worker was lost (killed)"]


def test_seconds_begin_with_the_first_worker(monkeypatch):
    now, there = 0.0, Pool(works)

    class Late(Pool):
        def wait(self, seconds):
            nonlocal now
            if not self.workers:
                now += 100.0  # until it has opened its engine
                self.workers = there.workers
                return None
            now += 1.0
            return super().wait(seconds)

    monkeypatch.setattr("time.monotonic", lambda: now)
    for pool, begin in ((Late(), 100.0), (Late(works), 0.0)):
        now = 0.0
        dispatcher, done, _ = run(pool, segments(3), patience=1000.0)
        assert (len(done), now, dispatcher.seconds) == (3, begin + 3.0, 3.0)


def test_without_any_worker_it_ends():
    with pytest.raises(BackendError, match=r"no worker has been there for 0 s, 3 tasks are left: start machines"):
        run(Pool(lambda task: "killed"), segments(3))


def test_videos_are_planned_before_segments_are_done_and_joined_first():
    def follow(task, outcome):
        return {PLANNING: [Task(SEGMENT, task.file)], SEGMENT: [Task(JOINING, task.file)]}.get(task.kind, [])

    _, done, _ = run(Pool(works), [Task(PLANNING, "a"), Task(PLANNING, "b")], follow=follow)
    assert [(task.kind, task.file) for task in done] == [
        (PLANNING, "a"),
        (PLANNING, "b"),
        (SEGMENT, "a"),
        (JOINING, "a"),
        (SEGMENT, "b"),
        (JOINING, "b"),
    ]
