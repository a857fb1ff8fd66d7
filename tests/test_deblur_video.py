"""`videodeblur run` from end to end on a real, tiny network: what comes out, what is printed, and how it fails."""

import json
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from video_clips import VARIABLE, Clip, cut, read, same

from runtime import Engine, InputError, StreamDeblurrer
from runtime.deblur_video import deblur_video, main
from runtime.encoder_options import EncoderOptions
from runtime.run.arguments import read_arguments
from runtime.run.frames_in_step import sharpen
from runtime.run.options import DeblurOptions, open_engine
from runtime.video import VideoReader

ROOT = Path(__file__).resolve().parents[1]
LOSSLESS = ("-e", "qp=0", "-e", "preset=ultrafast")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Variable frame rate with sound, as phones record it."""
    return Clip(audio=["aac"], color=(1, 1, 1, 1)).write(tmp_path_factory.mktemp("clip") / "in.mp4")


@pytest.fixture
def run(tiny_model, capsys):
    """Runs the command; returns (exit status, stdout, stderr)."""

    def call(*arguments, model=True):
        chosen = ["--model", str(tiny_model), "--precision", "fp32"] if model else []
        status = main([*map(str, arguments), *chosen, "--threads", "1", "--scene-thresh", "0"])  # noise has cuts
        return status, *capsys.readouterr()

    return call


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def expected_luma(source, model, stride=None):
    """What the engine makes of the clip's luma, without the pipeline under test."""
    with VideoReader(source) as reader, Engine(model, precision="fp32", threads=1) as engine:
        stream = StreamDeblurrer(engine, stride, reader.info.bits, reader.info.color_range)
        return [sharp for frame in reader for sharp in stream.push(frame.luma)] + stream.flush()


def assert_one_error(status, stderr, *parts):
    """One line for the user, after what was said before the failure."""
    assert status == 1
    lines = stderr.strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], stderr
    assert "Traceback" not in stderr
    for part in parts:
        assert part in lines[-1]


@pytest.mark.parametrize("stride", [None, 2])
def test_luma_is_the_networks_and_all_else_the_sources(stride, clip, run, tiny_model, tmp_path):
    status, out, err = run(clip, tmp_path / "out.mp4", *LOSSLESS, *(["--stride", stride] if stride else []))
    before, after = read(clip), read(tmp_path / "out.mp4")
    assert status == 0
    assert same(after.luma, expected_luma(clip, tiny_model, stride))
    assert not same(after.luma, before.luma)
    assert same(after.chroma, before.chroma)
    assert (after.times, after.packets, after.tags) == (before.times, before.packets, before.tags)
    assert out.startswith(f"{tmp_path / 'out.mp4'}: 12 frames, ")
    assert "fp32" in out
    assert "fp32: asked for" in err or "fp32: the graph's own types" in err


@pytest.mark.parametrize("count", [1, 4, 6])
def test_short_clips_keep_every_frame(count, run, tiny_model, tmp_path):
    source = Clip(times=VARIABLE[:count]).write(tmp_path / "in.mp4")
    assert run(source, tmp_path / "out.mp4", *LOSSLESS)[0] == 0
    after = read(tmp_path / "out.mp4")
    assert same(after.luma, expected_luma(source, tiny_model))
    assert len(after.luma) == count


@pytest.mark.parametrize(
    ("codec", "pixel_format", "size", "suffix"),
    [
        ("ffv1", "gray", (65, 49), ".mkv"),
        ("ffv1", "yuv420p", (65, 49), ".mkv"),
        ("ffv1", "yuv422p10le", (66, 49), ".mkv"),
        ("mjpeg", "yuvj420p", (64, 48), ".mkv"),
    ],
)
def test_other_formats_and_sizes(codec, pixel_format, size, suffix, run, tiny_model, tmp_path):
    source = Clip(codec, pixel_format, size, times=VARIABLE[:6]).write(tmp_path / f"in{suffix}")
    assert run(source, tmp_path / f"out{suffix}", "-c", "ffv1")[0] == 0
    before, after = read(source), read(tmp_path / f"out{suffix}")
    assert same(after.luma, expected_luma(source, tiny_model))
    assert same(after.chroma, before.chroma)


@pytest.mark.parametrize(("kind", "width"), [("side", 128), ("wipe", 64), ("diff", 64)])
def test_comparisons_are_videos_too(kind, width, clip, run, tiny_model, tmp_path):
    assert run(clip, tmp_path / "out.mp4", "--compare", kind, *LOSSLESS)[0] == 0
    before, after, sharp = read(clip), read(tmp_path / "out.mp4"), expected_luma(clip, tiny_model)
    assert (after.times, after.duration, after.packets) == (before.times, before.duration, before.packets)
    assert after.luma[0].shape == (48, width)
    if kind == "side":
        assert same([luma[:, :64] for luma in after.luma], before.luma)
        assert same([luma[:, 64:] for luma in after.luma], sharp)
    if kind == "wipe":
        assert same([luma[:, :2] for luma in after.luma], [luma[:, :2] for luma in before.luma])
        assert same([luma[:, 62:] for luma in after.luma], [luma[:, 62:] for luma in sharp])
    if kind == "diff":
        assert all((plane == 128).all() for chroma in after.chroma for plane in chroma)


def test_side_of_an_odd_size(run, tiny_model, tmp_path):
    source = Clip("ffv1", size=(65, 49), times=VARIABLE[:3]).write(tmp_path / "in.mkv")
    assert run(source, tmp_path / "out.mkv", "--compare", "side", "-c", "ffv1")[0] == 0
    luma = read(tmp_path / "out.mkv").luma
    assert luma[0].shape == (49, 132)
    assert same([plane[:, 66:131] for plane in luma], expected_luma(source, tiny_model))


def test_frames_ends_early(clip, run, tmp_path):
    assert run(clip, tmp_path / "out.mp4", "--frames", 7)[0] == 0
    assert read(tmp_path / "out.mp4").times == read(clip).times[:7]


def test_json_is_all_of_stdout(clip, run, tmp_path):
    status, out, _ = run(clip, tmp_path / "out.mp4", "--json")
    summary = json.loads(out)
    assert status == 0
    assert (summary["frames"], summary["precision"], summary["notes"]) == (12, "fp32", [])
    assert summary["fps"] == pytest.approx(12 / summary["seconds"])


def test_progress_reaches_the_callback(clip, tiny_model, tmp_path):
    seen, said = [], []
    options = DeblurOptions(clip, tmp_path / "out.mp4", tiny_model, threads=1)
    summary = deblur_video(options, lambda done, total: seen.append((done, total)), said.append)
    assert seen == [(done, 12) for done in range(1, 13)]
    assert said == [summary.reason]


def test_frames_wait_no_longer_than_a_window(clip):
    """The memory of a run: decoded frames that are alive at once."""

    class Window:
        kept = ()

        def push(self, frame):
            self.kept = (*self.kept, frame)
            ready, self.kept = (self.kept, ()) if len(self.kept) == 5 else ((), self.kept)
            return list(ready)

        def flush(self):
            return list(self.kept)

    with VideoReader(clip) as reader:
        read_so_far = 0

        def counted():
            nonlocal read_so_far
            for frame in reader:
                read_so_far += 1
                yield frame

        lead = [read_so_far - frame.number for frame, _ in sharpen(counted(), Window())]
    assert len(lead) == 12
    assert max(lead) == 5


def test_a_deblurrer_that_loses_a_frame_is_noticed(clip):
    class Loses:
        def push(self, frame):
            return []

        def flush(self):
            return []

    with VideoReader(clip) as reader, pytest.raises(RuntimeError, match="kept 12 frames"):
        list(sharpen(reader, Loses()))


def test_an_existing_output_is_replaced_only_on_demand(clip, run, tmp_path):
    output = tmp_path / "out.mp4"
    output.write_text("precious")
    status, _, err = run(clip, output)
    assert_one_error(status, err, "out.mp4 exists already: add -y to overwrite it")
    assert output.read_text() == "precious"
    assert run(clip, output, "-y")[0] == 0
    assert len(read(output).times) == 12


def test_the_input_is_never_the_output(clip, run, tmp_path):
    (tmp_path / "link.mp4").symlink_to(clip)
    before = clip.read_bytes()
    for output in (clip, tmp_path / "link.mp4"):
        status, _, err = run(clip, output, "-y")
        assert_one_error(status, err, "is the input too")
    assert clip.read_bytes() == before


BAD_INPUT = {
    "a text file": (lambda path, clip: path.write_text("hello\n" * 100), "in.mp4: not a video that FFmpeg can read"),
    "an empty file": (lambda path, clip: path.write_bytes(b""), "in.mp4: not a video that FFmpeg can read"),
    "nothing": (lambda path, clip: None, "in.mp4: no such file"),
    "half a file": (lambda path, clip: cut(clip, path, 0.5), "in.mp4: not a video that FFmpeg can read"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_no_output(case, clip, run, tmp_path):
    make, message = BAD_INPUT[case]
    make(tmp_path / "in.mp4", clip)
    before = names(tmp_path)
    status, _, err = run(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert_one_error(status, err, message)
    assert names(tmp_path) == before


def test_a_file_that_breaks_off_midway_leaves_no_output(run, tmp_path):
    whole = Clip(times=list(range(0, 60000, 1000)), options={"g": "10"}).write(tmp_path / "in.mkv")
    cut(whole, tmp_path / "cut.mkv", 0.7)
    status, _, err = run(tmp_path / "cut.mkv", tmp_path / "out.mkv")
    assert_one_error(status, err, "cut.mkv: broken or cut off at frame ")
    assert names(tmp_path) == ["cut.mkv", "in.mkv"]


def lossy(path, target):
    """Three packets of a transport stream are lost on the air."""
    data = bytearray(path.read_bytes())
    del data[188 * 150 : 188 * 153]
    target.write_bytes(data)


@pytest.mark.parametrize(
    ("suffix", "damage", "least"),
    [
        (".mkv", lambda path, target: cut(path, target, 0.4), 10),
        (".mkv", lambda path, target: cut(path, target, 0.7), 30),
        (".ts", lossy, 10),
    ],
)
def test_what_is_before_the_damage_is_delivered_on_demand(suffix, damage, least, run, tmp_path):
    whole = Clip(times=list(range(0, 60000, 1000)), options={"g": "10", "bf": "2"}).write(tmp_path / f"in{suffix}")
    before = read(whole)
    damage(whole, tmp_path / f"cut{suffix}")
    assert run(tmp_path / f"cut{suffix}", tmp_path / "out.mkv", *LOSSLESS)[0] == 1
    status, _, err = run(tmp_path / f"cut{suffix}", tmp_path / "out.mkv", "--salvage", *LOSSLESS)
    after = read(tmp_path / "out.mkv")
    assert status == 0
    assert f"note: {tmp_path / 'cut'}{suffix}: broken or cut off at frame " in err
    assert least <= len(after.chroma) < 60
    assert same(after.chroma, before.chroma[: len(after.chroma)])


@pytest.mark.parametrize("folder", ["/proc", "{clip}", "{missing}"])
def test_a_folder_that_cannot_be_written(folder, clip, run, tmp_path):
    output = Path(folder.format(clip=clip, missing=tmp_path / "missing")) / "out.mp4"
    status, _, err = run(clip, output)
    assert_one_error(status, err, "out.mp4: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a model", "is not a whole ONNX file"), (None, "No such file"), (b"", "is not a whole ONNX file")],
)
def test_a_bad_model_leaves_no_output(content, message, clip, run, tmp_path):
    model = tmp_path / "model.onnx"
    if content is not None:
        model.write_bytes(content)
    status, _, err = run(clip, tmp_path / "out.mp4", "--model", model, model=False)
    assert_one_error(status, err, "model.onnx", message)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", "9"], "stride is 9, expected 1 to 5"),
        (["--backend", "magic"], "backend is 'magic', expected one of auto"),
        (["--frames", "0"], "the limit is 0 frames, expected 1 or more"),
        (["-e", "nosuch=1"], "libx264 has no option nosuch=1"),
        (["-c", "nosuch"], "there is no encoder 'nosuch'"),
        (["-f", "nosuch"], "out.mp4: -f nosuch is no video format: take -f mp4, matroska or mov"),
        (["-f", "mp3"], "out.mp4: mp3 has no place for video: take .mp4, .mkv or .mov"),
        (["--crf", "20", "-e", "qp=0"], "got --crf 20 and -e qp, expected one of them"),
    ],
)
def test_bad_options_are_one_line_and_no_output(arguments, message, clip, run, tmp_path):
    status, _, err = run(clip, tmp_path / "out.mp4", *arguments)
    assert_one_error(status, err, message)
    assert names(tmp_path) == []


def test_a_malformed_encoder_option_is_a_usage_error(clip, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(clip), str(tmp_path / "out.mp4"), "-e", "preset"])
    assert caught.value.code == 2
    assert "expected KEY=VALUE" in capsys.readouterr().err


def start(tiny_model, *arguments, before=""):
    """The command in a process of its own, after a line of shell."""
    command = [sys.executable, "-m", "runtime.deblur_video", *map(str, arguments), "--model", str(tiny_model), "--threads", "1"]
    shell = ["sh", "-c", f'{before}\nexec "$@"', "sh", *command]
    return subprocess.Popen(shell, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_leaves_nothing(suffix, clip, tiny_model, tmp_path):
    process = start(tiny_model, clip, tmp_path / f"out{suffix}", *LOSSLESS, before="ulimit -f 20")  # blocks of 512 or 1024 bytes
    _, err = process.communicate(timeout=60)
    assert_one_error(process.returncode, err, f"out{suffix}: ", "File too large")
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(number, tiny_model, tmp_path):
    source = Clip(size=(320, 240), times=list(range(0, 200000, 1000)), options={"preset": "ultrafast"}).write(tmp_path / "in.mp4")
    process = start(tiny_model, source, tmp_path / "out.mp4", "--stride", "1")
    process.stderr.readline()  # it says what was chosen, and starts
    time.sleep(0.5)
    assert process.poll() is None, "it was over too soon for this test"
    assert len(names(tmp_path)) == 2
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, "interrupted\n")
    assert names(tmp_path) == ["in.mp4"]


def test_a_missing_pyav_is_named_with_the_line_that_brings_it(tiny_model, clip, tmp_path):
    code = f"""
import sys
sys.modules["av"] = None
from runtime.deblur_video import main
sys.exit(main(["{clip}", "{tmp_path / "out.mp4"}", "--model", "{tiny_model}"]))
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert_one_error(found.returncode, found.stderr, "pip install 'av>=18,<19'")


def test_options_can_be_used_without_a_command(clip, tmp_path):
    with pytest.raises(InputError, match="is the input too"):
        DeblurOptions(clip, clip)


def test_an_open_engine_is_used_and_stays_open(clip, tiny_model, tmp_path):
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        for number in range(2):
            encoder = EncoderOptions(options={"qp": "0", "preset": "ultrafast"})
            summary = deblur_video(
                DeblurOptions(clip, tmp_path / f"{number}.mp4", scene_threshold=0, encoder=encoder), engine=engine
            )
            assert summary.precision == "fp32"
            assert same(read(tmp_path / f"{number}.mp4").luma, expected_luma(clip, tiny_model))


def test_tiles_change_nothing(run, tmp_path):
    source = Clip(size=(496, 352), moving=True, times=VARIABLE[:6]).write(tmp_path / "in.mp4")
    for name, arguments in {"whole": ("--tile", 0), "tiles": ("--tile", 64), "memory": ("--memory", 0.42)}.items():
        status, _, err = run(source, tmp_path / f"{name}.mp4", *LOSSLESS, *arguments)
        assert status == 0
        assert ("496x352 pixels in " in err) == (name != "whole")
    whole, *tiled = (read(tmp_path / f"{name}.mp4").luma for name in ("whole", "tiles", "memory"))
    for lumas in tiled:
        differences = np.abs(np.subtract(lumas, whole, dtype=np.int16))
        assert differences.max() <= 1  # a code may be rounded the other way
        assert (differences > 0).mean() < 1e-3


def test_sound_and_subtitles_can_be_left_out(run, tmp_path):
    clip = Clip(times=[0, 33, 83], time_base=Fraction(1, 1000), audio=["aac"], subtitles=("Hei",))
    source = clip.write(tmp_path / "in.mkv")
    for flags, kinds in {
        (): ["video", "audio", "subtitle"],
        ("--no-copy-audio-streams",): ["video", "subtitle"],
        ("--no-copy-audio-streams", "--no-copy-subtitle-streams"): ["video"],
    }.items():
        assert run(source, tmp_path / "out.mkv", "-y", *flags)[0] == 0
        assert [kind for kind, *_ in read(tmp_path / "out.mkv").streams] == kinds


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--memory", "nan"], "--memory is nan GB, expected a finite number above 0.35 GB"),
        (["--memory", "inf"], "--memory is inf GB, expected"),
        (["--memory", "1e300"], "--memory is 1e+300 GB, expected"),
        (["--memory", "0.0001"], "--memory is 0.0001 GB, expected"),
        (["--memory", "-1"], "--memory is -1 GB, expected"),
        (["--threads", "-5"], "--threads is -5, expected 1 or more"),
        (["--threads", "0"], "--threads is 0, expected 1 or more"),
        (["--tile", "-3"], "--tile is -3, expected pixels"),
        (["--stride", "0"], "--stride is 0, expected 1 to"),
        (["--scene-thresh", "30"], "--scene-thresh is 30, expected 0 (off) to 1"),
        (["--scene-thresh", "nan"], "--scene-thresh is nan, expected"),
        (["--crf", "999"], "the quality is crf 999, expected 0 (best) to 51 for libx264"),
        (["--crf", "-1"], "the quality is crf -1, expected 0 (best) to 51"),
        (["--crf", "nan", "-c", "libsvtav1"], "the quality is crf nan, expected 0 (best) to 63 for libsvtav1"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_opened(options, line, capsys):
    status = main(["no-such-video.mp4", "out.mp4", "--model", "no-such-model.onnx", *options])
    assert_one_error(status, capsys.readouterr().err, line)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--rate", "30"], "--rate 30 is for pictures, and no-such-video.mp4 is a video, which has its own: leave it out"),
        (["--resume-every", "20"], "--resume-every is for runs that can be resumed: add --resume"),
        (["--server-model", "deblur"], "--server-model is the network's name on a server: name its --server"),
        (["--memory", "2", "--tile", "100"], "got --memory 2 and --tile 100, which both say how large tiles are: drop one"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options, line, capsys):
    status = main(["no-such-video.mp4", "out.mp4", "--model", "no-such-model.onnx", *options])
    assert_one_error(status, capsys.readouterr().err, line)


@pytest.mark.parametrize("options", [["--crf", "20"], ["-c", "ffv1"], ["-e", "preset=slow"], ["-f", "mp4"]])
def test_pictures_have_no_encoder_to_choose(options, capsys):
    status = main(["no-such-video.mp4", "out%d.png", *options])
    assert_one_error(status, capsys.readouterr().err, "out%d.png is pictures, which are written as PNG: leave out -c, --crf")


def test_a_playlist_does_not_come_through_a_pipe(capsys):
    status = main(["-", "out.mp4", "--playlist"])
    assert_one_error(status, capsys.readouterr().err, "--playlist is for a file that lists others, and - is none")


def test_a_gpu_is_not_chosen_where_the_cpu_runs_the_network(clip, run, tmp_path):
    status, _, err = run(clip, tmp_path / "out.mp4", "--device", "3")
    assert_one_error(status, err, "device 3 is a GPU, and tiny.onnx runs on ")
    assert names(tmp_path) == []


def test_what_is_for_the_cpu_is_refused_on_a_gpu(clip, monkeypatch, tmp_path):
    """By the name of the backend alone, since there is no GPU here."""
    closed = []
    engine = SimpleNamespace(backend="onnxruntime-cuda", close=lambda: closed.append(True))
    monkeypatch.setattr("runtime.run.options.Engine", lambda *_: engine)
    for name, value in (("memory", 2.0), ("threads", 2)):
        with pytest.raises(InputError, match=rf"--{name} is for a network on the CPU, and this one runs on onnxruntime-cuda"):
            open_engine(DeblurOptions(clip, tmp_path / "out.mp4", model=Path("m.onnx"), **{name: value}), (64, 96), None)
    assert closed == [True, True]


@pytest.mark.parametrize("model", [None, "tiny"])
def test_a_stride_beyond_the_window_is_refused_before_frames_are_read(model, clip, tiny_model, tmp_path, capsys, monkeypatch):
    if model is None:
        monkeypatch.setattr("runtime.run.options.default_model", lambda *_: pytest.fail("the model was opened"))
    chosen = ["--model", str(tiny_model)] if model else []
    status = main([str(clip), str(tmp_path / "out.mp4"), "--stride", "9", *chosen])
    assert_one_error(status, capsys.readouterr().err, "--stride is 9, expected 1 to 5 (the frames of a window)")
    assert names(tmp_path) == []


SLIPS = [
    (["-crf20"], "--crf 20"),
    (["-c:a", "copy"], "-c:v (sound is always copied)"),
    (["-frames", "10"], "--frames or --rate"),
    (["-framerate", "10"], "--frames or --rate"),
]


@pytest.mark.parametrize(("slip", "meant"), [(["-crf", "20"], "--crf 20"), (["-crf=20.5"], "--crf 20.5"), *SLIPS])
def test_ffmpegs_crf_is_answered_with_ours(slip, meant, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["in.mp4", "out.mp4", *slip])
    assert f"did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/in.mp4", "https://host/%05d.png", "rtsp://host/live", "srt://host:9"])
def test_a_url_is_told_that_networks_are_not_read(url, run, tmp_path):
    status, _, err = run(url, tmp_path / "out.mp4")
    assert_one_error(status, err, "is a URL, expected a video file: networks are not read", url.partition("://")[2])


@pytest.mark.parametrize(
    ("given", "codec"),
    [("out.y4m", "wrapped_avframe"), ("OUT.Y4M", "wrapped_avframe"), ("out.mkv", "libx264"), ("-", "wrapped_avframe")],
)
def test_raw_outputs_are_raw_by_default(given, codec):
    options, _ = read_arguments(["in.mp4", given])
    assert options.encoder.codec == codec
    assert read_arguments(["in.mp4", given, "-c", "ffv1"])[0].encoder.codec == "ffv1"
