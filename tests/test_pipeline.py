"""Three overlapping stages: everything arrives in order, nobody runs far ahead, and any failure stops all of them once."""

import _thread
import threading
import time
from itertools import count

import pytest

from runtime.run.pipeline import overlap

STAGES = ("read", "work", "write")


def doubled(items):
    return (2 * item for item in items)


@pytest.mark.parametrize("length", [0, 1, 2, 100])
def test_everything_arrives_in_order(length):
    out = []
    overlap(range(length), doubled, out.append, depth=2)
    assert out == [2 * number for number in range(length)]


def test_work_may_give_back_later_and_more_at_the_end():
    out = []

    def pairs(items):
        for item in items:
            if item % 2:
                yield item - 1
                yield item
        yield "rest"

    overlap(range(7), pairs, out.append, depth=1)
    assert out == [0, 1, 2, 3, 4, 5, "rest"]


def test_the_stages_run_at_the_same_time():
    """Each waits until all three are busy, which happens only when none waits for another to end."""
    together, seen = threading.Barrier(3, timeout=30), []

    def source():
        for number in range(6):
            if number == 4:
                together.wait()
            yield number

    def work(items):
        for item in items:
            if item == 2:
                together.wait()
            yield item

    def sink(item):
        if item == 0:
            together.wait()
        seen.append(item)

    overlap(source(), work, sink, depth=2)
    assert seen == list(range(6))


def test_threads_are_those_promised():
    names = {}

    def noting(stage, items):
        for item in items:
            names[stage] = threading.current_thread()
            yield item

    overlap(
        noting("read", range(3)), lambda items: noting("work", items), lambda _: names.update(write=threading.current_thread()), 2
    )
    assert names["work"] is threading.current_thread()
    assert len(set(names.values())) == 3


def test_a_slow_sink_holds_back_the_source():
    read, written, lead = count(), count(), []
    done = [0, 0]

    def source():
        for _ in range(40):
            done[0] = next(read) + 1
            yield object()

    def sink(_):
        time.sleep(0.002)
        done[1] = next(written) + 1
        lead.append(done[0] - done[1])

    overlap(source(), lambda items: items, sink, depth=3)
    assert 6 <= max(lead) <= 3 + 3 + 3  # two queues, and an item in every stage's hands


@pytest.mark.parametrize("where", STAGES)
@pytest.mark.parametrize("at", [0, 30])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_anywhere_is_raised_here_and_leaves_no_thread(where, at, error):
    before, raised = threading.active_count(), error("at last")

    def failing(stage, items):
        for item in items:
            if stage == where and item == at:
                raise raised
            yield item

    def sink(item):
        list(failing("write", [item]))

    with pytest.raises(error) as caught:
        overlap(failing("read", count()), lambda items: failing("work", items), sink, depth=4)
    assert caught.value is raised
    assert threading.active_count() == before


def test_the_first_of_two_failures_is_reported():
    def source():
        yield 0
        raise ValueError("the cause")

    def work(items):
        try:
            yield from items
        finally:
            raise RuntimeError("a consequence")

    with pytest.raises(ValueError, match="the cause"):
        overlap(source(), work, lambda _: None, depth=1)


@pytest.mark.parametrize("where", STAGES)
def test_ctrl_c_while_a_stage_is_busy(where):
    """The main thread waits in a queue, or works; the signal comes when a stage has been slow for a while."""
    before = threading.active_count()

    def slow(stage, items):
        for item in items:
            if stage == where and item == 20:
                threading.Timer(0.05, _thread.interrupt_main).start()
                time.sleep(0.3)
            yield item

    with pytest.raises(KeyboardInterrupt):
        overlap(slow("read", count()), lambda items: slow("work", items), lambda item: list(slow("write", [item])), depth=2)
    time.sleep(0.1)  # the timer's own thread
    assert threading.active_count() == before


def test_items_are_let_go():
    """What has been written is not held by any stage: memory does not grow."""

    class Big:
        alive = 0

        def __init__(self):
            Big.alive += 1

        def __del__(self):
            Big.alive -= 1

    most = []
    overlap((Big() for _ in range(50)), lambda items: items, lambda _: most.append(Big.alive), depth=2)
    assert max(most) <= 2 + 2 + 4
    assert Big.alive == 0


def test_an_interruption_while_threads_start_leaves_none_at_work(monkeypatch):
    """As when Ctrl-C comes before the work has begun; the source was closed then while a thread decoded from it."""
    reading, start = threading.Event(), threading.Thread.start

    def source():
        for number in count():
            reading.set()
            yield number

    def interrupted(thread):
        if thread.name == "videodeblur-write":
            reading.wait(10)
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        overlap(source(), doubled, print, depth=2)
    left = [thread for thread in threading.enumerate() if thread.name == "videodeblur-read"]
    for thread in left:
        thread.join(5)  # it may be on its last line
    assert not [thread for thread in left if thread.is_alive()]
