"""What a program around the engine leans on: futures, threads, frames from anywhere, metrics, and the README's example."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from video_clips import Clip, read

from runtime import BackendError, Engine, InputError, StreamDeblurrer, Telemetry
from runtime.submissions import WAITING, Submissions

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


@pytest.fixture
def engine(tiny_model):
    with Engine(tiny_model, "onnxruntime", threads=1) as opened:
        yield opened


def windows(count, size=(16, 24), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 5, *size)).astype(np.uint8)


def test_futures_are_what_run_gives(engine):
    given = windows(9)
    futures = [engine.submit(window) for window in given]
    for window, future in zip(given, futures):
        np.testing.assert_array_equal(future.result(timeout=60), engine.run(window))


def test_a_future_raises_what_run_raises(engine):
    future = engine.submit(np.zeros((1, 4, 16, 16), np.uint8))
    with pytest.raises(InputError, match=r"expected \(N, 5, H, W\)"):
        future.result(timeout=60)
    assert engine.submit(windows(1)[0]).result(timeout=60).shape == (1, 5, 16, 24)


def test_a_closed_engine_takes_nothing(tiny_model):
    engine = Engine(tiny_model, "onnxruntime", threads=1)
    engine.submit(windows(1)[0]).result(timeout=60)
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="the engine is closed"):
        engine.submit(windows(1)[0])


def test_submit_blocks_when_enough_wait():
    gate, started = threading.Event(), threading.Semaphore(0)
    submissions, begin = Submissions(), lambda number: lambda: (gate.wait(30), number)[1]
    futures, overdue = [submissions.submit(begin, number) for number in range(WAITING)], []

    def one_more():
        started.release()
        overdue.append(submissions.submit(begin, WAITING))

    thread = threading.Thread(target=one_more)
    thread.start()
    started.acquire()
    time.sleep(0.1)
    assert overdue == []
    gate.set()
    thread.join(30)
    assert [future.result(30) for future in [*futures, *overdue]] == list(range(WAITING + 1))
    submissions.close()


def test_the_next_call_is_begun_before_the_last_one_ends():
    begun, submitted, gate = [], threading.Event(), threading.Event()

    def begin(number):
        submitted.wait(30)
        begun.append(number)
        if number == 1:
            gate.set()
        return lambda: (gate.wait(30), number)[1]

    submissions = Submissions(ahead=2)
    first, *rest = [submissions.submit(begin, number) for number in range(3)]
    submitted.set()
    assert (first.result(30), begun[:2]) == (0, [0, 1])
    assert [future.result(30) for future in rest] == [1, 2]
    submissions.close()


def test_a_call_that_fails_or_is_cancelled_does_not_hold_up_the_next():
    gate = threading.Event()

    def begin(kind):
        gate.wait(30)
        if kind == "begins badly":
            raise ValueError(kind)
        return lambda: 1 / 0 if kind == "ends badly" else kind

    submissions = Submissions(ahead=2)
    first, bad, worse, unwanted = [submissions.submit(begin, kind) for kind in ("first", "begins badly", "ends badly", "unwanted")]
    assert unwanted.cancel()
    gate.set()
    assert submissions.submit(begin, "last").result(30) == first.result(30).replace("first", "last")
    with pytest.raises(ValueError, match="begins badly"):
        bad.result(30)
    with pytest.raises(ZeroDivisionError):
        worse.result(30)
    submissions.close()


def test_closing_ends_the_one_at_work_and_fails_the_rest():
    gate, busy = threading.Event(), threading.Event()

    def work(number):
        busy.set()
        gate.wait(30)
        return lambda: number

    submissions = Submissions()
    first, *rest = [submissions.submit(work, number) for number in range(3)]
    assert busy.wait(30)
    threading.Timer(0.1, gate.set).start()
    submissions.close()
    assert first.result(0) == 0
    for future in rest:
        assert not future.cancelled()
        with pytest.raises(BackendError, match="the engine was closed before this window was run"):
            future.result(0)


def test_a_task_whose_engine_is_closed_does_not_take_itself_for_cancelled():
    gate, busy = threading.Event(), threading.Event()

    def work():
        busy.set()
        gate.wait(30)
        return lambda: 0

    async def awaits(future):
        try:
            await asyncio.wrap_future(future)
        except BackendError as error:
            return str(error)

    async def main():
        first, second = submissions.submit(work), submissions.submit(work)
        task = asyncio.ensure_future(awaits(second))
        await asyncio.sleep(0)
        assert busy.wait(30)
        threading.Timer(0.1, gate.set).start()
        submissions.close()
        assert first.result(0) == 0
        return await task

    submissions = Submissions()
    assert asyncio.run(main()).startswith("the engine was closed before this window was run")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_eight_threads_share_an_engine(backend, tiny_model):
    """Sizes, depths and ways of calling mixed; every result is that of a lone caller."""
    sizes = [(16, 24), (17, 33), (8, 8), (24, 16)]
    given = [windows(6, size, seed) for seed, size in enumerate(sizes * 2)]
    wrong, together = [], threading.Barrier(8)
    with Engine(tiny_model, backend, "fp32", threads=1) as engine:
        expected = [[engine.run(window, 8, "limited") for window in group] for group in given]

        def worker(number):
            together.wait(30)
            for _ in range(3):
                for window, sharp in zip(given[number], expected[number]):
                    run = engine.run if number % 2 else lambda *how: engine.submit(*how).result(60)
                    if not np.array_equal(run(window, 8, "limited"), sharp):
                        wrong.append(number)

        threads = [threading.Thread(target=worker, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_closing_under_load_fails_cleanly(tiny_model):
    engine, ends = Engine(tiny_model, "onnxruntime", threads=1), []

    def worker():
        try:
            while True:
                engine.run(windows(1)[0])
        except BackendError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    engine.close()
    for thread in threads:
        thread.join(60)
    assert ends == ["the engine is closed: open another"] * 8


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_latency_contract(stride, engine):
    """A frame is back at most 2F - 2 pushes after its own, F - 1 when windows do not overlap."""
    stream, returned, late = StreamDeblurrer(engine, stride), 0, []
    for number in range(23):
        for _ in stream.push(np.full((8, 8), number, np.uint8)):
            late.append(number - returned)
            returned += 1
    assert max(late) <= (4 if stride == 5 else 8)
    assert returned + len(stream.flush()) == 23


def test_frames_from_a_generator_and_from_torch(engine):
    torch = pytest.importorskip("torch")
    given = windows(1)[0, 0]
    expected = engine.run(given[None])[0]
    for frames in ((frame for frame in given), torch.from_numpy(given), list(given)):
        stream = StreamDeblurrer(engine)
        sharp = [luma for frame in frames for luma in stream.push(frame)]
        np.testing.assert_array_equal(sharp, expected)


def test_what_is_no_frame_is_refused(engine):
    class OnGpu:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(InputError, match=r"got OnGpu .*expected a frame in host memory: copy it there first"):
        StreamDeblurrer(engine).push(OnGpu())
    with pytest.raises(InputError, match=r"got a frame of shape \(8, 8, 3\), expected \(H, W\) luma"):
        StreamDeblurrer(engine).push(np.zeros((8, 8, 3), np.uint8))


def test_metrics_in_prometheus_text(engine, tmp_path):
    telemetry = Telemetry()
    engine.observe(telemetry)
    engine.run(windows(1)[0])
    engine.submit(np.concatenate(windows(2))).result(60)
    telemetry.write(tmp_path / "deblur.prom", engine)
    text = (tmp_path / "deblur.prom").read_text()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert [path.name for path in tmp_path.iterdir()] == ["deblur.prom"]
    assert (lines["deblur_frames_total"], lines["deblur_failures_total"]) == ("15", "0")
    assert lines["deblur_window_seconds_count"] == lines['deblur_window_seconds_bucket{le="+Inf"}'] == "2"
    buckets = [int(value) for name, value in lines.items() if "_bucket" in name]
    assert buckets == sorted(buckets)
    assert float(lines["deblur_window_seconds_sum"]) > 0
    assert [name for name in lines if name.startswith('deblur_engine_info{backend="onnxruntime",precision="fp32",checkpoint="')]
    for line in text.splitlines():
        metric = r'\w+(\{(\w+="[^"]*",?)+\})? [\d.]+'
        assert re.fullmatch(rf"# HELP \w+ [A-Z].*\.|# TYPE \w+ (histogram|counter|gauge)|{metric}", line), line


def test_every_metric_says_what_it_is_and_the_queue_is_one(engine):
    telemetry, gate = Telemetry(), threading.Event()
    engine.observe(lambda *_: gate.wait(30))
    engine.observe(telemetry)
    futures = [engine.submit(windows(1)[0]) for _ in range(3)]
    assert "deblur_queue_windows 3\n" in telemetry.prometheus(engine)
    gate.set()
    assert all(future.result(60) is not None for future in futures)
    text = telemetry.prometheus(engine)
    assert "deblur_queue_windows 0\n" in text
    typed, helped = (re.findall(rf"^# {word} (\w+) ", text, re.MULTILINE) for word in ("TYPE", "HELP"))
    assert typed == helped
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"^(\w+)", text, re.MULTILINE)} == set(typed)


def test_refused_windows_are_counted(engine):
    telemetry = Telemetry()
    engine.observe(telemetry)
    engine.observe(lambda *_: None)  # has no count of refused ones
    with pytest.raises(InputError):
        engine.run(windows(1)[0, 0])
    with pytest.raises(InputError):
        engine.submit(windows(1)[0], bits=9).result(60)
    engine.run(windows(1)[0])
    text = telemetry.prometheus()
    assert "deblur_refused_total 2\n" in text
    assert "deblur_failures_total 0\n" in text
    assert "deblur_window_seconds_count 1\n" in text


def test_failures_are_counted(tiny_model):
    telemetry, engine = Telemetry(), Engine(tiny_model, "onnxruntime", threads=1)
    engine.observe(telemetry)
    engine.close()
    with pytest.raises(BackendError):
        engine.run(windows(1)[0])
    assert "deblur_failures_total 1\n" in telemetry.prometheus()
    assert "deblur_window_seconds_count 0\n" in telemetry.prometheus()


def test_the_example_of_the_readme(tiny_model, tmp_path, monkeypatch, capsys):
    examples = [code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "StreamDeblurrer(" in code]
    assert len(examples) == 1
    (tmp_path / "model.onnx").write_bytes(tiny_model.read_bytes())
    monkeypatch.chdir(tmp_path)
    shown, frames = [], list(windows(7)[:, 0, 0])
    exec(compile(examples[0], "README.md", "exec"), {"window": windows(1)[0], "frames": iter(frames), "show": shown.append})
    assert len(shown) == len(frames)
    assert capsys.readouterr().out.startswith(("openvino ", "onnxruntime "))


IN_A_THREAD = """
import sys, threading
from runtime.deblur_video import deblur_video
from runtime.run.options import DeblurOptions

options = DeblurOptions(sys.argv[1], sys.argv[2], model=sys.argv[3], precision="fp32", threads=1)
begun = threading.Event()
run = threading.Thread(target=deblur_video, args=(options, lambda *_: begun.set()), daemon=sys.argv[4] == "daemon")
run.start()
if run.daemon:
    begun.wait()
"""


@pytest.mark.parametrize("kind", ["daemon", "thread"])
def test_a_program_that_ends_before_its_thread(kind, tiny_model, tmp_path):
    count = 3000 if kind == "daemon" else 7
    source = Clip(times=list(range(count)), time_base=Fraction(1, 25), options={"preset": "ultrafast"}).write(tmp_path / "in.mp4")
    command = [sys.executable, "-c", IN_A_THREAD, str(source), str(tmp_path / "out.mp4"), str(tiny_model), kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    if kind == "daemon":
        assert "VideoError: the program ended before the video did" in done.stderr
    else:
        assert done.stderr == ""
        assert len(read(tmp_path / "out.mp4").times) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"] + ["out.mp4"] * (kind == "thread")
