"""An engine's life in somebody's program: forks, signal handlers, observers, callbacks, its end. What could hang is in a child."""

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from runtime import BackendError, BusyError, Engine, InputError
from runtime.submissions import WAITING, Submissions

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60  # after which a child counts as hanging
BACKENDS = ["openvino", "onnxruntime"]

OPENED = """
import gc, os, signal, sys, threading, weakref
import numpy as np
from runtime import BackendError, Engine
window = np.zeros((1, 5, 16, 16), np.float32)
engine = Engine(sys.argv[1], sys.argv[2], "fp32", threads=2)

def refusal(call):
    try:
        call()
    except BackendError as error:
        return str(error)

def in_a_fork(child):
    sys.stdout.flush()
    if (number := os.fork()) == 0:
        child()
        sys.exit(7)  # the way a worker ends, Python's teardown included
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
"""


def lines(code, model, backend):
    """What a child prints that has an engine open."""
    command = [sys.executable, "-c", OPENED + textwrap.dedent(code), str(model), backend]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FORKED = """
    engine.run(window)
    pending = engine.submit(window)
    pending.result()
    waits = threading.Event()
    engine.observe(lambda *_: waits.wait(3))
    pending = engine.submit(window)

    def child():
        for call in (engine.run, engine.submit, engine.submit_nowait):
            print(refusal(lambda: call(window)))
        print(refusal(pending.result))
        print(engine.state)
        engine.close()
        with Engine(sys.argv[1], sys.argv[2], "fp32", threads=2) as own:
            print(own.run(window).shape)

    status = in_a_fork(child)
    waits.set()
    print(status, pending.result().shape, engine.run(window).shape, engine.state)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_opened_before_a_fork_is_refused_at_once_and_its_worker_ends(tiny_model, backend):
    refused, ended = "the engine was opened before a fork: open one in each worker", "(1, 5, 16, 16)"
    asked = "the window was submitted before a fork: ask for its result in the process that submitted it"
    assert lines(FORKED, tiny_model, backend) == [refused] * 3 + [asked, "forked", ended, f"7 {ended} {ended} open"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fork_right_after_opening_and_one_that_drops_the_engine(tiny_model, backend):
    code = """
    def child():
        global engine
        print(refusal(lambda: engine.run(window)))
        del engine
        gc.collect()

    print(in_a_fork(child), in_a_fork(lambda: None))
    """
    assert lines(code, tiny_model, backend) == ["the engine was opened before a fork: open one in each worker", "7 7"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ways", ["run", "submit"])
def test_a_signal_handler_closes_the_engine_that_it_interrupts(tiny_model, backend, ways):
    """The window at work ends well, the engine is closed after it."""
    code = """
    run, handled = engine.runner.run, []

    def handler(number, frame):
        handled.append(refusal(lambda: engine.run(window)))
        handled.append(refusal(lambda: engine.submit(window).result()))
        engine.close()

    signal.signal(signal.SIGTERM, handler)
    if WAYS == "run":
        engine.runner.run = lambda blurry: (os.kill(os.getpid(), signal.SIGTERM), run(blurry))[1]
        print(engine.run(window).shape)
    else:
        future = engine.submit(window)
        os.kill(os.getpid(), signal.SIGTERM)
        print(future.result().shape)
    print(engine.state, refusal(lambda: engine.run(window)))
    print(handled)
    """
    found = lines(code.replace("WAYS", repr(ways)), tiny_model, backend)
    assert found[:2] == ["(1, 5, 16, 16)", "closed the engine is closed: open another"]
    refused = "got a window while this thread is at one (a signal handler?): give it when that is done"
    assert found[2] == str([refused] * 2 if ways == "run" else [None] * 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_signal_handler_raises_is_not_the_backends_failure(tiny_model, backend):
    """Wherever in a window it comes; as Celery does when a task takes too long. The window has failed, the next is run."""
    code = """
    class TooLong(RuntimeError):
        pass

    def handler(number, frame):
        raise TooLong("of the caller")

    signal.signal(signal.SIGALRM, handler)
    window, found = np.zeros((1, 5, 64, 64), np.float32), set()
    engine.run(window)
    for number in range(40):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.002 + number / 10000)
            while True:
                engine.run(window)
        except Exception as error:
            found.add((type(error).__name__, str(error)))
    print(found, engine.state in ("open", "failed"), engine.run(window).shape, engine.state)
    """
    assert lines(code, tiny_model, backend) == ["{('TooLong', 'of the caller')} True (1, 5, 64, 64) open"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_backend_raises_is_its_failure(tiny_model, backend):
    """Its wrappers in Python, and those of Python's own library that they call, are not the caller."""
    with Engine(tiny_model, backend, "fp32", threads=1) as engine:
        name = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[backend]
        with pytest.raises(BackendError, match=rf"^{name} (failed on|cannot compile the model for) shape \(1, 3, 16, 16\): \S"):
            engine.runner.run(np.zeros((1, 3, 16, 16), np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_observers_use_and_close_the_engine(tiny_model, backend):
    code = """
    seen = []

    def observer(frames, seconds, failed):
        seen.append(failed)
        if len(seen) == 1:
            engine.run(window)
        if len(seen) == LAST:
            engine.close()

    engine.observe(observer)
    print(CALL.shape, len(seen), engine.state)
    """
    for call in ("engine.run(window)", "engine.submit(window).result()"):
        assert lines(code.replace("CALL", call).replace("LAST", "2"), tiny_model, backend) == ["(1, 5, 16, 16) 2 closed"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_callbacks_submit_more_and_close(tiny_model, backend):
    code = """
    done, ended = [], threading.Event()

    def callback(future):
        done.append(future)
        if len(done) <= 5:
            for _ in range(2):
                engine.submit(window).add_done_callback(callback)
        if len(done) == 7:
            later = engine.submit(window)
            print(refusal(later.result))
            engine.close()
            print(later.cancelled() or later.done(), engine.state)
            ended.set()

    engine.submit(window).add_done_callback(callback)
    print(ended.wait(30), refusal(lambda: engine.submit(window)))
    engine.close()
    """
    waits = "got a wait for a window in a callback of its engine, which it waits for: wait in another thread"
    assert lines(code, tiny_model, backend) == [waits, "True closed", "True the engine is closed: open another"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_that_were_submitted_are_done_when_the_program_ends(tiny_model, backend):
    code = """
    for number in range(3):
        engine.submit(window).add_done_callback(lambda future: print(future.result().shape))
    """
    assert lines(code, tiny_model, backend) == ["(1, 5, 16, 16)"] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_that_is_dropped_is_freed_at_once(tiny_model, backend):
    code = """
    gc.disable()
    engine.run(window)
    engine.submit(window).result()
    failed = engine.submit(window[0])
    try:
        failed.result()
    except ValueError:
        pass
    del failed
    runner = weakref.ref(engine.runner)
    del engine
    ended = threading.Event()
    while threading.active_count() > 1 and not ended.wait(0.01):
        pass
    print(runner())
    """
    assert lines(code, tiny_model, backend) == ["None"]


def test_an_observer_that_raises_is_logged_and_the_result_is_kept(tiny_model, caplog):
    with Engine(tiny_model, "onnxruntime", threads=1) as engine:
        engine.observe(lambda *_: 1 / 0)
        window = np.zeros((1, 5, 8, 8), np.uint8)
        with caplog.at_level(logging.ERROR, "videodeblur.engine"):
            assert engine.run(window).shape == engine.submit(window).result(60).shape == window.shape
    assert caplog.text.count("ZeroDivisionError") == 2


def test_the_states_of_an_engine(tiny_model):
    engine, seen = Engine(tiny_model, "onnxruntime", threads=1), []
    window = np.zeros((1, 5, 8, 8), np.uint8)
    run = engine.runner.run
    engine.runner.run = lambda blurry: (seen.append(engine.state), run(blurry))[1]
    assert engine.state == "open"
    engine.run(window)
    engine.runner.run = lambda blurry: 1 / 0
    with pytest.raises(ZeroDivisionError):
        engine.run(window)
    assert (seen, engine.state) == (["at work"], "failed")
    engine.runner.run = run
    engine.run(window)
    with pytest.raises(InputError):
        engine.run(window[0])
    assert engine.state == "open"
    engine.close()
    assert engine.state == "closed"


def test_submit_nowait_refuses_where_submit_blocks():
    gate, submissions = threading.Event(), Submissions()
    futures = [submissions.submit(lambda: lambda: gate.wait(30), wait=False) for _ in range(WAITING)]
    assert submissions.unfinished == WAITING
    with pytest.raises(BusyError, match="got a window while 4 are unfinished: wait for one of them, or use submit"):
        submissions.submit(lambda: lambda: None, wait=False)
    gate.set()
    assert all(future.result(30) for future in futures)
    submissions.submit(lambda: lambda: None, wait=False).result(30)
    submissions.close()


def test_an_event_loop_awaits_windows_and_stays_awake(tiny_model):
    async def served(engine):
        window = np.zeros((1, 5, 8, 8), np.uint8)
        first = [asyncio.wrap_future(engine.submit_nowait(window)) for _ in range(WAITING)]
        return [sharp.shape for sharp in await asyncio.gather(*first)]

    with Engine(tiny_model, "onnxruntime", threads=1) as engine:
        assert asyncio.run(served(engine)) == [(1, 5, 8, 8)] * WAITING
        assert engine.unfinished == 0


def test_closing_while_another_thread_waits_to_submit():
    gate, submissions, ends = threading.Event(), Submissions(), []
    for _ in range(WAITING):
        submissions.submit(lambda: lambda: gate.wait(30))

    def one_more():
        try:
            submissions.submit(lambda: lambda: None)
        except BackendError as error:
            ends.append(str(error))

    thread = threading.Thread(target=one_more)
    thread.start()
    threading.Timer(0.2, gate.set).start()
    submissions.close()
    thread.join(30)
    assert ends == ["the engine is closed: open another"]
