"""StreamDeblurrer: as many frames out as in, in order, whatever the length, with real frames in every window."""

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.errors import BackendError, InputError
from runtime.streaming import StreamDeblurrer

ROOT = Path(__file__).resolve().parents[1]


class Recorder:
    """Returns each window's frames plus `offset` per window, so that a frame's value tells where it came from."""

    contract = SimpleNamespace(frames=5)

    def __init__(self, offset=0):
        self.windows, self.offset = [], offset

    def run(self, window, bits=None, color_range=None):
        assert window.shape[:2] == (1, 5)
        self.windows.append([int(frame.flat[0]) for frame in window[0]])
        return window + np.asarray(self.offset * (len(self.windows) - 1)).astype(window.dtype)

    def submit(self, *arguments):
        future = Future()
        future.set_result(self.run(*arguments))
        return future


def stream(count, engine, **options):
    deblurrer = StreamDeblurrer(engine, **options)
    out, waiting = [], []
    for number in range(count):
        out += deblurrer.push(np.full((2, 3), number, np.uint8))
        waiting.append(number + 1 - len(out))
    return out + deblurrer.flush(), waiting


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("count", [*range(14), 50])
def test_as_many_out_as_in_and_in_order(count, stride):
    out, waiting = stream(count, Recorder(), stride=stride)
    assert [int(frame[0, 0]) for frame in out] == list(range(count))
    assert max(waiting, default=0) <= 4


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("stride", [2, 5])
def test_working_ahead_gives_the_same_frames_later(stride, ahead):
    for count in (0, 1, 4, 5, 6, 10, 23):
        now, later = Recorder(offset=1), Recorder(offset=1)
        expected, waiting = stream(count, now, stride=stride)
        found, longer = stream(count, later, stride=stride, ahead=ahead)
        assert np.array_equal(found, expected)
        assert later.windows == now.windows
        assert max(longer, default=0) <= max(waiting, default=0) + ahead * stride


def test_draining_leaves_the_stream_where_it_was():
    expected, _ = stream(12, Recorder(offset=1))
    deblurrer, out = StreamDeblurrer(Recorder(offset=1), ahead=2), []
    for number in range(12):
        assert deblurrer.between_windows == (number % 5 == 0)
        out += deblurrer.push(np.full((2, 3), number, np.uint8))
        out += deblurrer.drain()
    assert len(out) == 10
    assert np.array_equal(out + deblurrer.flush(), expected)


@pytest.mark.parametrize(
    ("count", "windows"),
    [
        (1, [[0, 0, 0, 0, 0]]),
        (2, [[0, 1, 0, 1, 0]]),
        (4, [[0, 1, 2, 3, 2]]),
        (5, [[0, 1, 2, 3, 4]]),
        (6, [[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]]),
        (7, [[0, 1, 2, 3, 4], [5, 6, 5, 4, 3]]),
    ],
)
def test_the_end_is_mirrored_in_time(count, windows):
    engine = Recorder()
    stream(count, engine)
    assert engine.windows == windows


def test_a_window_runs_as_soon_as_it_is_complete():
    deblurrer = StreamDeblurrer(Recorder())
    counts = [len(deblurrer.push(np.zeros((2, 2), np.uint8))) for _ in range(10)]
    assert counts == [0, 0, 0, 0, 5, 0, 0, 0, 0, 5]


def test_overlapping_windows_are_averaged():
    out, _ = stream(9, Recorder(offset=10), stride=2)  # windows 0-4, 2-6, 4-8 add 0, 10, 20
    added = [int(frame[0, 0]) - number for number, frame in enumerate(out)]
    assert added == [0, 0, 5, 5, 10, 15, 15, 20, 20]


def test_float_frames_are_averaged_without_rounding():
    deblurrer = StreamDeblurrer(Recorder(offset=1), stride=4)
    out = [deblurrer.push(np.full((1, 1), n, np.float32)) for n in range(9)]
    assert [float(f[0, 0]) for frames in (*out, deblurrer.flush()) for f in frames][4] == 4.5


def test_stream_can_start_again_after_flush():
    deblurrer = StreamDeblurrer(Recorder())
    for _ in range(2):
        frames = [deblurrer.push(np.full((2, 2), n, np.uint8)) for n in range(7)]
        assert sum(map(len, frames)) + len(deblurrer.flush()) == 7
    assert deblurrer.push(np.zeros((9, 9), np.float32)) == []


def test_frames_of_another_size_are_refused():
    deblurrer = StreamDeblurrer(Recorder())
    deblurrer.push(np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"got a frame \(4, 5\) uint8 after \(4, 4\) uint8"):
        deblurrer.push(np.zeros((4, 5), np.uint8))


@pytest.mark.parametrize("stride", [0, 6])
def test_stride_outside_the_window(stride):
    with pytest.raises(InputError, match="expected 1 to 5"):
        StreamDeblurrer(Recorder(), stride=stride)


class FailsOnce(Recorder):
    """Its second window fails, as a GPU without memory does."""

    failed = False

    def run(self, window, bits=None, color_range=None):
        if len(self.windows) == 1 and not self.failed:
            self.failed = True
            raise BackendError("no memory")
        return super().run(window, bits, color_range)

    def submit(self, *arguments):
        future = Future()
        try:
            future.set_result(self.run(*arguments))
        except BackendError as error:
            future.set_exception(error)
        return future


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_a_failed_window_shifts_no_other_and_flush_begins_anew(stride, ahead):
    """A caller that catches the error and goes on: frames stay in order, then all is refused until flush."""
    deblurrer, out, refused = StreamDeblurrer(FailsOnce(), stride, ahead=ahead), [], []
    for number in range(30):
        try:
            out += deblurrer.push(np.full((2, 3), number, np.uint8))
        except BackendError as error:
            refused.append(str(error))
    assert [int(frame[0, 0]) for frame in out] == list(range(stride))
    assert refused[0] == "no memory"
    assert set(refused[1:]) == {"a window of this stream failed (no memory): flush, then start a new stream"}
    for call in (deblurrer.drain, lambda: deblurrer.precede([])):
        with pytest.raises(BackendError, match="a window of this stream failed"):
            call()
    assert deblurrer.flush() == []
    again = [frame for number in range(12) for frame in deblurrer.push(np.full((4, 4), number, np.uint8))] + deblurrer.flush()
    assert [int(frame[0, 0]) for frame in again] == list(range(12))


def test_a_flush_that_fails_begins_anew_too():
    deblurrer = StreamDeblurrer(FailsOnce())
    for number in range(7):
        deblurrer.push(np.full((2, 3), number, np.uint8))
    with pytest.raises(BackendError, match="no memory"):
        deblurrer.flush()
    assert deblurrer.flush() == []
    assert deblurrer.push(np.zeros((9, 9), np.float32)) == []


def test_an_interrupted_window_is_a_failed_one():
    engine = Recorder()
    engine.run = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    deblurrer = StreamDeblurrer(engine)
    for _ in range(4):
        deblurrer.push(np.zeros((2, 3), np.uint8))
    with pytest.raises(KeyboardInterrupt):
        deblurrer.push(np.zeros((2, 3), np.uint8))
    with pytest.raises(BackendError, match=r"failed \(KeyboardInterrupt\): flush"):
        deblurrer.push(np.zeros((2, 3), np.uint8))


class Slow(Recorder):
    def run(self, *arguments):
        time.sleep(0.01)  # others come meanwhile
        return super().run(*arguments)


def test_threads_that_push_into_one_stream_lose_no_frame():
    deblurrer, out = StreamDeblurrer(Slow()), []

    def push(numbers):
        for number in numbers:
            out.extend(deblurrer.push(np.full((2, 3), number, np.uint8)))

    threads = [threading.Thread(target=push, args=(range(first, 40, 4),)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(frame[0, 0]) for frame in out + deblurrer.flush()) == list(range(40))


def test_a_masked_frame_is_refused_instead_of_losing_its_mask():
    with pytest.raises(InputError, match="got a masked array, expected a plain one: fill it first"):
        StreamDeblurrer(Recorder()).push(np.ma.masked_array(np.zeros((2, 3), np.uint8), mask=True))


@pytest.mark.parametrize("stride", [2.5, "a", True, 0, 6, np.float32(2)])
def test_a_stride_that_is_no_number_of_frames_is_refused_at_once(stride):
    with pytest.raises(InputError, match=r"stride is .*, expected 1 to 5"):
        StreamDeblurrer(Recorder(), stride=stride)


@pytest.mark.parametrize("ahead", [-1, -2, 1.5, "1", True, None])
def test_an_ahead_that_is_no_number_of_windows_is_refused_at_once(ahead):
    with pytest.raises(InputError, match=r"ahead is .*, expected 0 or more, a whole number of windows"):
        StreamDeblurrer(Recorder(), ahead=ahead)


def test_a_stride_of_numpys_is_a_stride():
    assert len(stream(7, Recorder(), stride=np.int64(2), ahead=np.int64(1))[0]) == 7


def test_push_keeps_the_array_it_is_given_as_the_pages_say():
    buffer, reused, copied = np.zeros((2, 3), np.uint8), Recorder(), Recorder()
    for engine, given in ((reused, lambda: buffer), (copied, buffer.copy)):
        stream = StreamDeblurrer(engine)
        for number in range(5):
            buffer[:] = number
            stream.push(given())
    assert (reused.windows, copied.windows) == ([[4] * 5], [[0, 1, 2, 3, 4]])
    for page in ("README.md", "docs/video.md"):
        text = " ".join((ROOT / page).read_text().split())
        assert "buffer that is used again" in text
        assert "results are not clipped to [0, 1]" in text


def test_frames_of_the_other_byte_order_are_taken_as_they_are_meant():
    deblurrer = StreamDeblurrer(Recorder())
    out = [sharp for number in range(5) for sharp in deblurrer.push(np.full((2, 3), 258 + number, ">u2"))]
    assert [int(sharp[0, 0]) for sharp in out + deblurrer.flush()] == [258, 259, 260, 261, 262]
    assert out[0].dtype == np.uint16
