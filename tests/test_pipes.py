"""Standard input and output, with a real second process at each end."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import av
import pytest
from video_clips import VARIABLE, Clip, read, same

from runtime import Engine, StreamDeblurrer
from runtime.errors import InputError
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader

ROOT = Path(__file__).resolve().parents[1]
PRODUCE = """
import sys, av
from fractions import Fraction
with av.open(sys.argv[1]) as source, av.open("pipe:1", "w", format=sys.argv[2], options={"strict": "-1"}) as target:
    video = source.streams.video[0]
    if sys.argv[2] == "yuv4mpegpipe":
        stream = target.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, video.pix_fmt
        for number, frame in enumerate(source.decode(video)):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    else:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
"""


def run(tiny_model, *arguments, stdin=subprocess.DEVNULL):
    command = [
        sys.executable,
        "-m",
        "runtime.deblur_video",
        *map(str, arguments),
        "--model",
        str(tiny_model),
        "--precision",
        "fp32",
    ]
    options = ["--threads", "1", "--scene-thresh", "0", "--no-progress"]
    return subprocess.Popen([*command, *options], cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def produce(source, kind):
    return subprocess.Popen([sys.executable, "-c", PRODUCE, str(source), kind], stdout=subprocess.PIPE)


def sharp_luma(source, model):
    with VideoReader(source) as reader, Engine(model, precision="fp32", threads=1) as engine:
        stream = StreamDeblurrer(engine, None, reader.info.bits, reader.info.color_range)
        return [sharp for frame in reader for sharp in stream.push(frame.luma)] + stream.flush()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gray", "yuv444p16le"])
def test_y4m_through_pipes_at_both_ends(pixel_format, tiny_model, tmp_path):
    source = Clip("ffv1", pixel_format, times=VARIABLE[:7]).write(tmp_path / "in.mkv")
    with produce(source, "yuv4mpegpipe") as producer, run(tiny_model, "-", "-", stdin=producer.stdout) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert out.startswith(b"YUV4MPEG2 ")
    assert b"-: 7 frames, " in err
    (tmp_path / "out.y4m").write_bytes(out)
    before, after = read(source), read(tmp_path / "out.y4m")
    assert same(after.luma, sharp_luma(source, tiny_model))
    assert same(after.chroma, before.chroma)
    assert after.pixel_format == pixel_format


@pytest.mark.parametrize("kind", ["y4m", "nut"])
def test_pipes_that_do_not_wait(kind, tiny_model, tmp_path):
    """As event loops make them for their children."""
    source = Clip("ffv1", size=(128, 96), times=VARIABLE[:7]).write(tmp_path / "in.mkv")
    with produce(source, {"y4m": "yuv4mpegpipe"}.get(kind, kind)) as producer:
        data = producer.communicate()[0]
    (ours, out), (given, theirs) = os.pipe(), os.pipe()
    for end in (out, given):
        os.set_blocking(end, False)
    command = [sys.executable, "-m", "runtime.deblur_video", "-", "-", "-f", kind, "--model", str(tiny_model), "--no-progress"]
    with subprocess.Popen(command, cwd=ROOT, stdin=given, stdout=out, stderr=subprocess.PIPE) as process:
        for end in (out, given):
            os.close(end)
        feeder = Thread(target=feed, args=(theirs, data))
        feeder.start()
        time.sleep(2)  # until the pipe is full
        with os.fdopen(ours, "rb") as pipe:
            (tmp_path / f"out.{kind}").write_bytes(pipe.read())
        feeder.join()
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 0, err.decode()
    assert len(read(tmp_path / f"out.{kind}").luma) == 7


def feed(end, data):
    with os.fdopen(end, "wb", buffering=0) as pipe:
        for part in range(0, len(data), 20_000):
            pipe.write(data[part : part + 20_000])
            time.sleep(0.02)


def test_nut_keeps_times_and_sound(tiny_model, tmp_path):
    source = Clip(audio=["flac"], times=VARIABLE[:7]).write(tmp_path / "in.mkv")
    with produce(source, "nut") as producer, run(tiny_model, "-", "-", "-f", "nut", stdin=producer.stdout) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    (tmp_path / "out.nut").write_bytes(out)
    before, after = read(source), read(tmp_path / "out.nut")
    assert same(after.luma, sharp_luma(source, tiny_model))
    assert same(after.chroma, before.chroma)
    assert [time - after.times[0] for time in after.times] == [time - before.times[0] for time in before.times]
    assert [payload for payload, _ in after.packets["audio1"]] == [payload for payload, _ in before.packets["audio1"]]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_an_mp4_whose_sound_comes_after_the_first_picture(suffix, tiny_model, tmp_path):
    """No packet of the sound has been read when the output is rehearsed, and a pipe cannot be read twice."""
    source = Clip(audio=["aac"], times=list(range(0, 30000, 1000))).write(tmp_path / "in.mp4")
    with av.open(str(source)) as late, av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in late.streams}
        packets = [packet for packet in late.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.stream_index):  # the picture first
            packet.stream = copies[packet.stream_index]
            target.mux_one(packet)
    with run(tiny_model, "-", tmp_path / f"out{suffix}", stdin=subprocess.PIPE) as process:
        _, err = process.communicate((tmp_path / "fast.mp4").read_bytes(), timeout=120)
    assert process.returncode == 0, err.decode()
    before, after = read(tmp_path / "fast.mp4"), read(tmp_path / f"out{suffix}")
    assert len(after.luma) == 30
    assert [payload for payload, _ in after.packets["audio1"]] == [payload for payload, _ in before.packets["audio1"]]


def test_a_file_to_y4m_leaves_out_its_sound_and_says_so(tiny_model, tmp_path):
    source = Clip(audio=["aac"], times=VARIABLE[:5]).write(tmp_path / "in.mp4")
    with run(tiny_model, source, "-") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert b"note: audio stream 1 (aac) is not in the output" in err
    (tmp_path / "out.y4m").write_bytes(out)
    assert same(read(tmp_path / "out.y4m").luma, sharp_luma(source, tiny_model))


@pytest.mark.parametrize(
    ("kind", "codec", "lost"),
    [
        ("matroska", "libx264", []),
        ("nut", "ffv1", ["colour tags"]),  # FFV1 has a matrix alone
        ("yuv4mpegpipe", "wrapped_avframe", ["metadata", "colour tags", "2 chapters"]),
    ],
)
def test_what_a_pipe_does_not_hold_is_told(kind, codec, lost, tiny_model, tmp_path):
    said = {"color": (1, 1, 1, 1), "metadata": {"title": "mine"}, "chapters": [(0, 100, "one"), (100, 266, "two")]}
    source = Clip(times=list(range(0, 8000, 1000)), **said).write(tmp_path / "in.mp4")
    with run(tiny_model, source, "-", "-f", kind, "-c", codec) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    notes = [line for line in err.decode().splitlines() if line.startswith("note: ")]
    assert len(notes) == len(lost), notes
    assert all(any(what in note for note in notes) for what in lost), notes


def test_a_reader_that_leaves_ends_the_run_with_one_line(tiny_model, tmp_path):
    source = Clip(size=(320, 240), times=list(range(0, 60000, 1000)), moving=True).write(tmp_path / "in.mp4")
    with run(tiny_model, source, "-") as process:
        process.stdout.read(1000)
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: -: writing failed (Broken pipe)")
    assert "Traceback" not in err


@pytest.mark.parametrize("salvage", [False, True])
def test_a_producer_that_dies_within_a_picture_is_told(salvage, tiny_model, tmp_path):
    """One that dies between two cannot be told from one that ended, since y4m has no mark of the end: pipefail tells."""
    source = Clip("ffv1", times=VARIABLE[:7]).write(tmp_path / "in.mkv")
    with produce(source, "yuv4mpegpipe") as producer:
        data = producer.stdout.read()
    asked = ["--salvage"] if salvage else []
    with run(tiny_model, "-", tmp_path / "out.mkv", "-c", "ffv1", *asked, stdin=subprocess.PIPE) as process:
        _, err = process.communicate(data[: len(data) * 2 // 3], timeout=120)
    assert process.returncode == (0 if salvage else 1), err.decode()
    assert b"at frame 4 (it ends within a picture)" in err
    if salvage:
        assert same(read(tmp_path / "out.mkv").chroma, read(source).chroma[:4])


@pytest.mark.parametrize("data", [b"", b"no video" * 100])
def test_input_that_is_no_video(data, tiny_model, tmp_path):
    with run(tiny_model, "-", tmp_path / "out.mkv", stdin=subprocess.PIPE) as process:
        _, err = process.communicate(data, timeout=120)
    assert process.returncode == 1
    assert err.startswith(b"error: -: not a video that FFmpeg can read")


def test_formats_that_cannot_go_through_a_pipe(tiny_model, tmp_path):
    source = Clip(times=VARIABLE[:3]).write(tmp_path / "in.mp4")
    with run(tiny_model, source, "-", "-f", "mp4") as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"error: the format of standard output is mp4, expected one of yuv4mpegpipe, nut, matroska" in err


def test_a_pipe_cannot_be_resumed():
    with pytest.raises(InputError, match="leave out --resume"):
        DeblurOptions(Path("-"), Path("out.mp4"), resume=True)


@pytest.mark.parametrize("redirection", ["2>&1 >/dev/null | true", "2>/dev/full >/dev/null", "2</dev/null >/dev/null", "| true"])
def test_nobody_who_leaves_ends_the_work(redirection, tiny_model, tmp_path):
    """A collector of messages that died, its full disk, or `| head`; the shell tells the status of the first command."""
    source, target = Clip(times=VARIABLE[:5]).write(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    asked = ["run", source, target, "--model", tiny_model, "--precision", "fp32", "--threads", "1", "--no-progress", "-y"]
    command = shlex.join(map(str, [sys.executable, "-c", "import sys; from videodeblur import main; sys.exit(main())", *asked]))
    shell = ["bash", "-c", f"{command} {redirection}; exit ${{PIPESTATUS[0]}}"]
    for _ in range(2):
        ended = subprocess.run(shell, cwd=ROOT, capture_output=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        assert ended.stderr == b"" or b"note: all is done, but its summary could not be printed (Broken pipe)" in ended.stderr
        assert len(read(target).luma) == 5
        target.unlink()
