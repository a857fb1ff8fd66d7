"""How other people's services run code: pools, prefork servers, event loops, exits of every kind. Each in a child with a watchdog.

A model passes, or is refused at once with a sentence. Forks, signal handlers and callbacks of one process are in test_life.py.
"""

import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from runtime import BackendError, Engine, errors

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120  # after which a child counts as hanging; most of it is the imports of a busy machine
PROMPT = 5  # seconds in which an end, or a refusal, must come
BACKENDS = ["openvino", "onnxruntime"]

START = """
import sys, time
import numpy as np
from runtime import BackendError, DeployError, Engine, StreamDeblurrer, Telemetry
window = np.zeros((1, 5, 16, 16), np.float32)

def opened():
    return Engine(sys.argv[1], sys.argv[2], "fp32", threads=1)

"""


def lines(tmp_path, code, *arguments, status=0):
    """What a program prints, which ends by itself with this status. It is a file, as what is spawned must be."""
    program = tmp_path / "program.py"
    program.write_text(START + textwrap.dedent(code))
    command = [sys.executable, str(program), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_pool_whose_workers_open_their_own(tmp_path, tiny_model, backend, method):
    """Prefork as Celery's: the parent has used an engine before, workers are replaced after a task."""
    code = f"""
    import multiprocessing

    def begin():
        global own
        own = opened()

    def work(number):
        return own.run(window + number / 10).shape, own.state

    if __name__ == "__main__":
        with opened() as engine:
            engine.run(window)
            engine.submit(window).result()
            with multiprocessing.get_context({method!r}).Pool(2, begin, maxtasksperchild=1) as pool:
                print(pool.map(work, range(3), chunksize=1) == [((1, 5, 16, 16), "open")] * 3)
            print(engine.run(window).shape)
    """
    assert lines(tmp_path, code, tiny_model, backend) == ["True", "(1, 5, 16, 16)"]


def test_a_fork_after_a_model_of_openvino_was_closed_is_told_at_once(tmp_path, tiny_model):
    """Its threads ended then, and a child that compiles a model waits for them for ever."""
    code = """
    import multiprocessing

    def work(number):
        try:
            opened()
        except BackendError as error:
            return str(error)

    if __name__ == "__main__":
        with opened() as engine:
            engine.run(window)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            print("has closed a model of OpenVINO" in pool.apply(work, (0,)))
    """
    assert lines(tmp_path, code, tiny_model, "openvino") == ["True"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pool_that_inherits_an_engine_is_told_at_once(tmp_path, tiny_model, backend):
    code = """
    import concurrent.futures, multiprocessing

    def work(number):
        return engine.run(window).shape

    engine = opened()
    engine.run(window)
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        began = time.monotonic()
        for future in [pool.submit(work, number) for number in range(3)]:
            print(type(future.exception()).__name__, future.exception())
        print(time.monotonic() - began < PROMPT)
    """.replace("PROMPT", str(PROMPT))
    told = "BackendError the engine was opened before a fork: open one in each worker"
    assert lines(tmp_path, code, tiny_model, backend) == [told] * 3 + ["True"]


def test_an_engine_is_not_sent_to_another_process(tiny_model):
    with (
        Engine(tiny_model, "onnxruntime", threads=1) as engine,
        pytest.raises(BackendError, match="an engine cannot be sent to another process: send its path, and open one there"),
    ):
        pickle.dumps(engine)


@pytest.mark.parametrize("kind", [value for value in vars(errors).values() if isinstance(value, type)])
def test_errors_come_back_from_other_processes(kind):
    """One that cannot be read from a pickle makes a pool's parent wait for ever."""
    error = kind("numpy>=1", "arithmetic") if kind is errors.MissingPackageError else kind("got 1, expected 2: take 2")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


SERVED = """
import os, sys
import numpy as np
from runtime import DeployError, Engine
WINDOW, OWN = np.zeros((1, 5, 16, 16), np.float32), {}

def opened():
    return Engine(os.environ["MODEL"], os.environ["BACKEND"], "fp32", threads=1)

def of_this_process():
    if os.getpid() not in OWN:
        OWN[os.getpid()] = opened()
    return OWN[os.getpid()]

if os.environ["WHERE"] == "module":
    shared = opened()
    shared.run(WINDOW)

def app(environment, respond):
    try:
        engine = shared if os.environ["WHERE"] == "module" else of_this_process()
        status, text = "200 OK", str(engine.run(WINDOW).shape)
    except DeployError as error:
        status, text = "500 Error", str(error)
    respond(status, [("Content-Type", "text/plain")])
    return [text.encode()]
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("preload", "where", "expected"),
    [
        (False, "module", (200, "(1, 5, 16, 16)")),
        (True, "worker", (200, "(1, 5, 16, 16)")),
        (True, "module", (500, "the engine was opened before a fork: open one in each worker")),
    ],
)
def test_gunicorn(tmp_path, tiny_model, backend, preload, where, expected):
    pytest.importorskip("gunicorn", reason="needs gunicorn")
    (tmp_path / "served.py").write_text(SERVED)
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", "--timeout", str(SECONDS), "served:app"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "MODEL": str(tiny_model), "BACKEND": backend, "WHERE": where}
    log = tmp_path / "log"
    with log.open("w") as told:
        server = subprocess.Popen([*command, *(["--preload"] if preload else [])], cwd=tmp_path, env=environment, stderr=told)
    try:
        address = listening(log, server)
        answers = [answer(address) for _ in range(4)]
        began = time.monotonic()
        answers.append(answer(address))
        assert (set(answers), time.monotonic() - began < PROMPT) == ({expected}, True)
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
    finally:
        server.kill()
        server.wait()


def listening(log, server):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"Listening at: (http://\S+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def answer(address):
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


ENDS = {
    "a with block that an exception leaves": """
        try:
            with opened() as engine:
                future = engine.submit(window)
                raise ZeroDivisionError
        except ZeroDivisionError:
            print(future.done(), engine.state)
    """,
    "atexit handlers that use and close it": """
        import atexit
        engine = opened()
        engine.run(window)
        atexit.register(lambda: print(engine.state))
        atexit.register(engine.close)
        atexit.register(lambda: print(engine.submit(window).result().shape))
    """,
    "SIGTERM whose handler closes what other threads use": """
        import os, signal, threading
        engine, ends = opened(), []

        def work():
            try:
                while True:
                    engine.run(window)
            except BackendError as error:
                ends.append(str(error))

        def handler(number, frame):
            engine.close()
            sys.exit(0)

        signal.signal(signal.SIGTERM, handler)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            for thread in threads:
                thread.join()
            print(ends == ["the engine is closed: open another"] * 4)
    """,
    "daemon threads in the middle of a window": """
        import threading
        engine, begun = opened(), threading.Event()

        def work():
            while True:
                engine.run(window)
                begun.set()

        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        print(begun.wait(60))
    """,
    "garbage in any order": """
        import gc, random

        class Holder:
            pass

        for seed in range(6):
            engine, telemetry = opened(), Telemetry()
            engine.observe(telemetry)
            stream = StreamDeblurrer(engine)
            stream.push(np.zeros((8, 8), np.uint8))
            parts = [engine, telemetry, stream, engine.submit(window), engine.run, engine.runner]
            random.Random(seed).shuffle(parts)
            holder = Holder()
            holder.parts, holder.itself = parts, holder
            engine.observe(lambda *_, holder=holder: None)
            if seed % 2:
                engine.close()
            del engine, telemetry, stream, parts, holder
            if seed < 3:
                gc.collect()
        gc.disable()  # the rest is left to the end of the interpreter
        print(True)
    """,
    "an event loop whose tasks are cancelled": """
        import asyncio

        async def main():
            with opened() as engine:
                tasks = [asyncio.create_task(awaited(engine)) for _ in range(3)]
                await asyncio.sleep(0)
                tasks[1].cancel()
                print([type(end).__name__ for end in await asyncio.gather(*tasks, return_exceptions=True)])

        async def awaited(engine):
            return await asyncio.wrap_future(engine.submit_nowait(window))

        asyncio.run(main())
    """,
    "threads that open, use and drop engines": """
        import threading
        wrong = []

        def work():
            for _ in range(3):
                with opened() as engine:
                    if engine.run(window).shape != window.shape:
                        wrong.append(1)
                opened()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(wrong)
    """,
}
SAID = {
    "a with block that an exception leaves": ["True closed"],
    "atexit handlers that use and close it": ["(1, 5, 16, 16)", "closed"],
    "an event loop whose tasks are cancelled": ["['ndarray', 'CancelledError', 'ndarray']"],
    "threads that open, use and drop engines": ["[]"],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("end", ENDS)
def test_the_process_ends_well(tmp_path, tiny_model, backend, end):
    assert lines(tmp_path, ENDS[end], tiny_model, backend) == SAID.get(end, ["True"])
