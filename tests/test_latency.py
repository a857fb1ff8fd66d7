"""A bounded delay: which frames wait for which, what is chosen, and what is told of frames that are late."""

import re
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from test_pipes import ROOT, produce, run
from test_streaming import Recorder
from video_clips import VARIABLE, Clip, read, same

from benchmarks.studies import delay as study
from runtime import Engine, StreamDeblurrer
from runtime.errors import InputError
from runtime.run.latency import ROOM, Punctuality, longest_delay, told
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader


@pytest.mark.parametrize("delay", range(5))
@pytest.mark.parametrize("count", [*range(12), 40])
def test_no_frame_waits_longer_than_asked(count, delay):
    engine, out = Recorder(), []
    stream = StreamDeblurrer(engine, delay=delay)
    for number in range(count):
        out += stream.push(np.full((2, 3), number, np.uint8))
        assert number + 1 - len(out) <= delay
    assert [int(frame[0, 0]) for frame in out + stream.flush()] == list(range(count))
    assert len(engine.windows) == -(-count // (delay + 1))
    for window in engine.windows[: count // (delay + 1)]:
        assert window[-1] == max(window)  # nothing from behind the newest frame


def test_the_longest_delay_is_the_usual_stream():
    engines = [Recorder(offset=1), Recorder(offset=1)]
    for engine, options in zip(engines, ({}, {"delay": 4})):
        stream = StreamDeblurrer(engine, **options)
        engine.out = [sharp for number in range(13) for sharp in stream.push(np.full((2, 3), number, np.uint8))] + stream.flush()
    assert engines[0].windows == engines[1].windows
    assert same(engines[0].out, engines[1].out)


def test_the_first_windows_are_filled_up_by_mirroring():
    engine = Recorder()
    stream = StreamDeblurrer(engine, delay=1)
    for number in range(7):
        stream.push(np.full((2, 3), number, np.uint8))
    stream.flush()
    assert engine.windows == [[1, 0, 1, 0, 1], [1, 0, 1, 2, 3], [1, 2, 3, 4, 5], [3, 4, 5, 6, 5]]


@pytest.mark.parametrize("delay", [-1, 5, 1.5, True])
def test_other_delays_are_refused(delay):
    with pytest.raises(InputError, match="expected 0 to 4 frames"):
        StreamDeblurrer(Recorder(), delay=delay)
    with pytest.raises(InputError, match="expected one"):
        StreamDeblurrer(Recorder(), 3, delay=2)


@pytest.mark.parametrize(("latency", "delay"), [(0.06, 0), (0.08, 0), (0.1, 1), (0.18, 3), (0.22, 4), (9.0, 4)])
def test_the_longest_delay_that_fits_is_chosen(latency, delay):
    assert longest_delay(latency, 0.05 / ROOM, Fraction(25), 5) == delay


def test_what_cannot_be_kept_is_told():
    with pytest.raises(InputError, match=r"--latency is 50 ms, a window alone takes 100 ms here, expected 120 ms or more"):
        longest_delay(0.05, 0.1, 25, 5)
    assert len(told(0.2, 0.04, 25, 0)) == 1
    assert "a window is due every 40 ms and takes 100" in told(0.2, 0.1, 25, 0)[1]


def test_late_frames_are_counted_by_the_clock_of_the_source():
    now = [0.0]
    watch = Punctuality(0.1, Fraction(1, 100), lambda: now[0])
    frames = [SimpleNamespace(pts=number * 4, number=number) for number in range(5)]
    for frame, came, out in zip(frames, (10.0, 10.04, 10.2, 10.22, 10.24), (10.05, 10.13, 10.25, 10.3, 10.25)):
        now[0] = came
        assert next(iter(watch.watch([frame]))) is frame
        now[0] = out
        watch.out(frame)
    assert list(watch.notes()) == ["2 of 5 frames were out later than 100 ms, the latest after 180 ms; none was left out"]


def test_a_pipe_with_a_bound_gives_every_frame_of_its_delay(tiny_model, tmp_path):
    source = Clip("ffv1", times=VARIABLE).write(tmp_path / "in.mkv")
    with (
        produce(source, "yuv4mpegpipe") as producer,
        run(tiny_model, "-", "-", "--latency", "60s", stdin=producer.stdout) as process,
    ):
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert "a window every 5 frames is within 60000 ms" in err.decode()
    (tmp_path / "out.y4m").write_bytes(out)
    with VideoReader(source) as reader, Engine(tiny_model, precision="fp32", threads=1) as engine:
        stream = StreamDeblurrer(engine, None, 8, reader.info.color_range, delay=4)
        expected = [sharp for frame in reader for sharp in stream.push(frame.luma)] + stream.flush()
    assert same(read(tmp_path / "out.y4m").luma, expected)


LIVE = """
import sys, subprocess
header, picture = b"YUV4MPEG2 W64 H48 F1:5 C420jpeg\\n", b"FRAME\\n" + bytes(range(256)) * 18
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
process.stdin.write(header)
for number in range(12):
    process.stdin.write(picture)
    process.stdin.flush()
    if number == 3:
        process.stdout.readline()
    for _ in range(0 if number < 3 else 4 if number == 3 else 1):  # the first four may be looked at together
        assert process.stdout.read(len(picture)).startswith(b"FRAME")
    print(number, flush=True)
process.stdin.close()
assert not process.stdout.read()
sys.exit(process.wait())
"""


def test_a_frame_comes_out_before_the_next_goes_in(tiny_model):
    """With a delay of no frame the process that writes waits for each frame, or for ever."""
    line = [sys.executable, "-m", "runtime.deblur_video", "-", "-", "--model", str(tiny_model), "--precision", "fp32"]
    line += ["--threads", "1", "--scene-thresh", "0", "--no-progress", "--latency", "4.9s"]
    done = subprocess.run([sys.executable, "-c", LIVE, *line], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == [str(number) for number in range(12)], done.stderr
    assert "a frame waits for 0 others" in done.stderr


def test_frames_that_come_sooner_than_they_are_shown_are_not_late():
    now = [0.0]
    watch = Punctuality(0.1, Fraction(1), lambda: now[0])
    frames = [SimpleNamespace(pts=5 * number, number=number) for number in range(4)]
    for _ in watch.watch(frames):
        now[0] += 0.01
    for frame in frames:
        watch.out(frame)
    assert list(watch.notes()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"latency": 0.0}, "expected more than 0"),
        ({"latency": float("nan")}, "expected more than 0"),
        ({"latency": 61.0}, "at most 60"),
        ({"latency": 0.2, "stride": 1}, "leave out one of them"),
        ({"latency": 0.2, "resume": True}, "leave out --resume"),
        ({"latency": 0.2}, "libx264 holds frames back"),
    ],
)
def test_options_that_contradict_a_bound(more, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)):
        DeblurOptions(tmp_path / "in.mkv", tmp_path / "out.mkv", **more)


def test_the_study_prints_a_row_for_a_stride(tiny_model, capsys):
    line = [str(tiny_model), "--size", "64x48", "--rate", "20", "--strides", "5", "--frames", "20", "--threads", "1"]
    assert study.main(line) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.startswith("64x48 through a y4m pipe")
    assert re.fullmatch(r"\s+\d\s+20\.0\s+\d+ ms\s+\d+ ms\s+\d+ ms\s+\d+ ms\s+[\d.]+ dB   10(, too slow for the rate)?", row)
