"""FFmpeg's log, which is the process's: whoever listens leaves it as it was, in whatever order they end."""

import threading

import av
import pytest

from runtime.video.format import ffmpeg_says


@pytest.fixture
def quiet():
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.PANIC)
    yield
    av.logging.set_level(before[0])
    av.logging.set_skip_repeated(before[1])


def test_concurrent_listeners_leave_the_log_level_as_it_was(quiet):
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    both, first_left, heard = threading.Barrier(2), threading.Event(), [[], []]

    def first():
        with ffmpeg_says(heard[0]):
            both.wait(30)
            av.logging.log(av.logging.ERROR, "test", "one")
        first_left.set()

    def second():
        both.wait(30)
        with ffmpeg_says(heard[1]):
            first_left.wait(30)
            av.logging.log(av.logging.ERROR, "test", "two")

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before
    assert "one" in heard[0]
    assert heard[1][-1] == "two"


def test_listeners_end_in_any_order(quiet):
    before, outer, inner = av.logging.get_level(), [], []
    one, two = ffmpeg_says(outer), ffmpeg_says(inner)
    one.__enter__()
    two.__enter__()
    av.logging.log(av.logging.ERROR, "test", "both")
    one.__exit__(None, None, None)
    av.logging.log(av.logging.ERROR, "test", "inner")
    two.__exit__(None, None, None)
    assert (outer, inner, av.logging.get_level()) == (["both"], ["both", "inner"], before)
