"""The progress bar on a terminal, and its lines elsewhere."""

import io

import pytest

from runtime.progress import LINE_EVERY, REDRAW_EVERY, ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def run(stream, frames, seconds_each, total):
    clock = Clock()
    with ProgressBar(stream, clock) as bar:
        for done in range(1, frames + 1):
            clock.now += seconds_each
            bar(done, total)
    return stream.getvalue()


def test_a_log_gets_a_line_every_ten_seconds():
    lines = run(io.StringIO(), frames=60, seconds_each=0.5, total=120).splitlines()
    assert len(lines) == 3  # in 30 s
    assert lines[1] == " 33 % 40/120 frames  2.0 fps  0:40 left"


def test_a_quick_run_logs_nothing():
    assert run(io.StringIO(), frames=9, seconds_each=LINE_EVERY / 10, total=9) == ""


def test_a_terminal_shows_one_line_that_is_redrawn_and_wiped():
    written = run(Terminal(), frames=40, seconds_each=0.5, total=80)
    assert "\n" not in written
    parts = written.split("\r")
    assert parts[20].strip() == "25 % ######------------------ 20/80 frames  2.0 fps  0:30 left"
    assert parts[-2].strip() == parts[-1] == ""


def test_redraws_are_limited():
    assert len(run(Terminal(), frames=1000, seconds_each=REDRAW_EVERY / 50, total=None).split("\r")) <= 22 + 2


@pytest.mark.parametrize("total", [None, 5])
def test_without_a_known_total_frames_are_counted(total):
    """Also when the total was an estimate that turned out too small."""
    lines = run(io.StringIO(), frames=20, seconds_each=1.0, total=total).splitlines()
    assert lines[-1] == "20 frames  1.0 fps"


def test_a_line_is_cut_to_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert all(len(part) < 20 for part in run(Terminal(), frames=30, seconds_each=1.0, total=1000).split("\r"))


def test_hours_are_shown():
    assert "2:46:30 left" in run(io.StringIO(), frames=10, seconds_each=1.0, total=10000)


def test_a_slow_first_window_says_nothing_about_the_rest():
    """Five frames that took a minute, most of it to load the network, then five every half second."""
    clock, stream = Clock(), io.StringIO()
    bar = ProgressBar(stream, clock)
    for window in range(100):
        clock.now += 60 if window == 0 else 0.5
        for frame in range(5):
            bar(5 * window + frame + 1, 500)
    first, second, *_ = stream.getvalue().splitlines()
    assert first == "  0 % 1/500 frames"
    assert second == " 20 % 101/500 frames  10.0 fps  0:40 left"
