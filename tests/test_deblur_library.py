"""A folder of videos, cut, deblurred piece by piece and joined, is what `videodeblur run` makes of each."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import pytest
from video_clips import VARIABLE, Clip

from export import to_bundle, to_onnx
from runtime import BackendError, Engine
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.run.options import DeblurOptions
from serving import deblur_library, join_library, plan_library, run_segment
from serving.library import video_joiner
from serving.library.plan import load_library, save

ROOT = Path(__file__).resolve().parents[1]
LOSSLESS = EncoderOptions(options={"qp": "0", "preset": "ultrafast", "threads": "4"})
NETWORK = ["--backend", "onnxruntime", "--threads", "1", "--segment", "10", "-e", "qp=0", "-e", "preset=ultrafast"]


def CLIPS(frames, size):  # noqa: N802
    """Six, of different kinds: B-frames and sound, keyframes that need what is before them, an odd number of frames."""
    times = [1000 + cycle * 17020 + time for cycle in range(9) for time in VARIABLE]
    open_groups = "log-level=none:keyint=12:open-gop=1"
    common = {"moving": True, "size": size}
    return {
        "a.mp4": Clip(times=times[:frames], options={"bf": "3", "g": "12"}, audio=["aac"], audio_after=Fraction(1, 2), **common),
        "b.mkv": Clip(times=times[: frames - 5], options={"g": "12"}, subtitles=("one", "two"), **common),
        "c d/c.mp4": Clip(times=times[: frames - 4], codec="libx265", options={"x265-params": open_groups}, **common),
        "c d/d.mov": Clip(times=times[: frames - 1], codec="mpeg4", options={"g": "12"}, **common),
        "e.mkv": Clip(times=times[: frames - 6], codec="ffv1", metadata={"title": "E"}, **common),
        "short.mp4": Clip(times=times[:7], **common),
    }


def packets(path):
    """Every packet of every stream; of the picture with all its times."""
    with av.open(str(path)) as container:
        return [(p.stream_index, bytes(p), p.pts, p.dts, p.duration) for p in container.demux() if p.size]


def single_run(source, output, model, encoder=LOSSLESS, **more):
    with Engine(model, "onnxruntime", threads=1) as engine:
        deblur_video(
            DeblurOptions(source, output, resume=True, resume_every=10, encoder=encoder, overwrite=True, **more), engine=engine
        )
    return output


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library") / "in"
    for name, clip in CLIPS(47, (64, 48)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        clip.write(folder / name)
    (folder / "notes.txt").write_text("not a video")
    (folder / ".hidden.mp4").write_text("not one of the user's")
    return folder


@pytest.fixture(scope="module")
def alone(videos, tiny_model, tmp_path_factory):
    """What one machine makes of each, by name."""
    folder = tmp_path_factory.mktemp("alone")
    return {
        name: packets(single_run(videos / name, folder / f"{number}{Path(name).suffix}", tiny_model))
        for number, name in enumerate(CLIPS(47, (64, 48)))
    }


@pytest.fixture
def output(videos, tiny_model, tmp_path):
    """A planned library of short.mp4 and b.mkv, four and a half segments each, and its output folder."""
    source = tmp_path / "in"
    source.mkdir()
    for name in ("short.mp4", "b.mkv"):
        (source / name).write_bytes((videos / name).read_bytes())
    assert plan_library.main([str(source), str(tmp_path / "out"), "--model", str(tiny_model), *NETWORK]) == 0
    return tmp_path / "out"


def work_of(output, name):
    [folder] = (output / ".videodeblur").glob(f"{name}-*")
    return folder


def drive(output, model, *more):
    return deblur_library.main([str(output.parent / "in"), str(output), "--model", str(model), *NETWORK, "--no-progress", *more])


def test_three_commands_make_what_one_machine_makes(videos, alone, tiny_model, tmp_path, capsys):
    output = tmp_path / "out"
    assert plan_library.main([str(videos), str(output), "--model", str(tiny_model), *NETWORK]) == 0
    assert "6 videos, 26 segments, 0 are done already" in capsys.readouterr().out
    assert run_segment.main([str(output), "25"]) == 0
    assert join_library.main([str(output)]) == 1
    assert "a.mp4: segments 0, 1, 2, 3, 4 of 5 are not finished" in capsys.readouterr().err
    for task in range(3):
        assert run_segment.main([str(output), str(task), "--of", "3", "--threads", "1"]) == 0
    assert join_library.main([str(output)]) == 0
    for name, expected in alone.items():
        assert packets(output / name) == expected, name
    assert not list((output / ".videodeblur").glob("*/*.nut"))


def test_one_command_does_the_same_and_then_nothing(videos, alone, tiny_model, tmp_path, capsys):
    arguments = [str(videos), str(tmp_path / "out"), "--model", str(tiny_model), *NETWORK, "--json", "--no-progress"]
    assert deblur_library.main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["videos"], summary["joined"], summary["segments"], summary["failures"]) == (6, 6, 26, [])
    for name, expected in alone.items():
        assert packets(tmp_path / "out" / name) == expected, name
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("**/*.m??")}
    assert deblur_library.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert join_library.main([str(tmp_path / "out")]) == 0
    assert run_segment.main([str(tmp_path / "out"), "0"]) == 0


@pytest.mark.parametrize("stride", [None, 2])
def test_segments_are_those_of_a_resumable_run_with_scenes_and_overlap(stride, videos, tiny_model, tmp_path):
    """Scenes end in the middle of windows; what a window mirrors into lies in the segment before."""
    source = tmp_path / "in"
    source.mkdir()
    times = [1000 + number * 1001 for number in range(41)]
    Clip(times=times, size=(64, 48), options={"g": "12"}).write(source / "noise.mp4")  # every frame a new scene, to the filter
    Clip(times=times, size=(64, 48), moving=True, options={"g": "12"}).write(source / "glide.mp4")
    more = [] if stride is None else ["--stride", str(stride)]
    assert drive(tmp_path / "out", tiny_model, "--scene-thresh", "0.02", *more) == 0
    for name in ("noise.mp4", "glide.mp4"):
        one = single_run(source / name, tmp_path / name, tiny_model, stride=stride, scene_threshold=0.02)
        assert packets(tmp_path / "out" / name) == packets(one)


@pytest.mark.slow
def test_a_model_of_one_size_gets_its_tiles_as_in_a_single_run(tiny_checkpoint, tmp_path):
    model, source = tmp_path / "fixed.onnx", tmp_path / "in" / "x.mkv"
    assert to_onnx.main([str(tiny_checkpoint), "-o", str(model), "--height", "336", "--width", "344"]) == 0
    source.parent.mkdir()
    Clip("ffv1", size=(360, 344), times=[1000 * number for number in range(11)], moving=True).write(source)
    assert drive(tmp_path / "out", model) == 0
    plan = json.loads((work_of(tmp_path / "out", "x") / "plan.json").read_text())
    assert (plan["tile_height"], plan["tile_width"], len(plan["segments"])) == (336, 344, 2)
    assert packets(tmp_path / "out" / "x.mkv") == packets(single_run(source, tmp_path / "x.mkv", model))


def test_a_driver_that_is_killed_goes_on(videos, alone, tiny_model, tmp_path):
    arguments = [str(videos), str(tmp_path / "out"), "--model", str(tiny_model), *NETWORK]
    for stop in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "videodeblur", "library", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        known = set((tmp_path / "out").glob(".videodeblur/*/0*.json"))
        while not set((tmp_path / "out").glob(".videodeblur/*/0*.json")) - known:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
        assert process.returncode == (-signal.SIGKILL if stop == signal.SIGKILL else 128 + stop)
        assert ("has what is done; the same command goes on from there" in err) == (stop != signal.SIGKILL)
    assert deblur_library.main([*arguments, "--no-progress"]) == 0
    for name, expected in alone.items():
        assert packets(tmp_path / "out" / name) == expected, name
    assert not list((tmp_path / "out").glob("**/.*.part*"))


def test_a_segment_that_keeps_failing_is_given_up_and_the_rest_goes_on(output, tiny_model, capsys):
    plan = work_of(output, "b") / "plan.json"
    values = json.loads(plan.read_text())
    right = values["segments"][2]["digest"]
    values["segments"][2]["digest"] = "0" * 16  # as if it had been decoded by another FFmpeg
    plan.write_text(json.dumps(values))
    assert drive(output, tiny_model, "--tries", "2") == 1
    told = capsys.readouterr()
    assert "1 of 2 videos are done" in told.out
    assert "b.mkv (segment 2): " in told.out
    assert "frames 20 to 29 are not decoded here as they were when they were planned" in told.out
    assert "(2 tries)" in told.out
    [failure] = json.loads((output / ".videodeblur" / "failures.json").read_text())["failures"]
    assert (failure["task"], len(failure["errors"])) == ({"kind": "segment", "file": "b.mkv", "number": 2}, 2)
    assert len(list(work_of(output, "b").glob("0*.nut"))) == 4
    assert (output / "short.mp4").exists()
    values["segments"][2]["digest"] = right
    plan.write_text(json.dumps(values))
    assert drive(output, tiny_model) == 0
    assert not (output / ".videodeblur" / "failures.json").exists()


def test_a_file_that_is_no_video_is_told_and_the_rest_goes_on(output, tiny_model, capsys):
    (output.parent / "in" / "broken.mov").write_bytes(b"no video")
    assert drive(output, tiny_model) == 1
    told = capsys.readouterr().out
    assert "2 of 3 videos are done" in told
    assert "broken.mov (plan): " in told
    assert "(1 try)" in told
    assert join_library.main([str(output)]) == 1
    assert "broken.mov: not a video" in capsys.readouterr().err


def test_where_seeking_goes_wrong_decoding_begins_at_the_start(output, alone, capsys):
    plan = work_of(output, "b") / "plan.json"
    values = json.loads(plan.read_text())
    values["segments"][1]["pts"] += 1  # no frame is shown then
    plan.write_text(json.dumps(values))
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    records = [json.loads(path.read_text()) for path in sorted(work_of(output, "b").glob("0*.json"))]
    assert [record["sought"] for record in records] == [False, False, True, True, True]
    assert join_library.main([str(output)]) == 0
    assert packets(output / "b.mkv") == alone["b.mkv"]


def test_a_segment_that_was_cut_off_is_done_again(output, alone):
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    segment = work_of(output, "b") / "000001.nut"
    segment.write_bytes(segment.read_bytes()[:-10])
    assert join_library.main([str(output)]) == 1
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    assert join_library.main([str(output)]) == 0
    assert packets(output / "b.mkv") == alone["b.mkv"]


def test_a_segment_whose_content_is_another_is_done_again(output, alone, capsys):
    """Of the same size, as after a fault of the disk."""
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    segment = work_of(output, "b") / "000001.nut"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert join_library.main([str(output)]) == 1
    assert "segments 1 of 5 are not finished" in capsys.readouterr().err
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    assert join_library.main([str(output)]) == 0
    assert packets(output / "b.mkv") == alone["b.mkv"]


def test_what_only_concerns_the_join_of_a_library_may_be_another(output, tiny_model):
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    assert drive(output, tiny_model, "--drop-unsupported", "--no-copy-audio-streams") == 0
    with av.open(str(output / "b.mkv")) as container:
        assert not container.streams.audio


def test_another_model_is_refused(output, tmp_path, tiny_model, capsys):
    other = tmp_path / "other.onnx"
    other.write_bytes(tiny_model.read_bytes() + b"\0")
    assert run_segment.main([str(output), "0", "--model", str(other)]) == 1
    assert "other.onnx is not the model of the plan: its sha256 is " in capsys.readouterr().err
    (tmp_path / "copy.onnx").write_bytes(tiny_model.read_bytes())
    assert run_segment.main([str(output), "0", "--model", str(tmp_path / "copy.onnx")]) == 0


def test_a_bundle_is_held_to_the_planned_one(videos, tiny_model, tmp_path, capsys):
    bundle, copy, output = tmp_path / "x.bundle", tmp_path / "copy.bundle", tmp_path / "out"
    assert to_bundle.main(["--onnx", str(tiny_model), "--output", str(bundle)]) == 0
    assert plan_library.main([str(videos), str(output), "--model", str(bundle), *NETWORK]) == 0
    shutil.copytree(bundle, copy)
    assert run_segment.main([str(output), "25", "--model", str(copy)]) == 0
    (copy / tiny_model.name).write_bytes(tiny_model.read_bytes() + b"\0")
    assert run_segment.main([str(output), "24", "--model", str(copy)]) == 1
    assert f"{tiny_model.name} was changed" in capsys.readouterr().err
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert run_segment.main([str(output), "24", "--model", str(copy)]) == 1
    assert "copy.bundle is not the model of the plan" in capsys.readouterr().err


def test_a_library_keeps_the_shipped_model_that_it_was_begun_with(output, tiny_model, tmp_path, monkeypatch):
    arguments = [str(output.parent / "in"), str(tmp_path / "other"), *NETWORK]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    to_bundle.write_bundle(to_bundle.BundleRequest(tiny_model, (), tmp_path / "shipped.bundle"))
    monkeypatch.setattr("serving.library.scan.default_model", lambda: tmp_path / "shipped.bundle")
    assert plan_library.main(arguments) == 0
    own = tmp_path / "other" / ".videodeblur" / "model.onnx"
    assert load_library(tmp_path / "other").model == str(own)
    assert own.read_bytes() == tiny_model.read_bytes()
    shutil.rmtree(tmp_path / "shipped.bundle")  # another release ships another
    assert plan_library.main(arguments) == 0
    assert run_segment.main([str(tmp_path / "other"), "0"]) == 0


def test_a_name_may_be_as_long_as_the_file_system_takes(output, tiny_model):
    name = 251 * "s" + ".mp4"
    (output.parent / "in" / "short.mp4").rename(output.parent / "in" / name)
    assert drive(output, tiny_model) == 0
    assert {path.name for path in output.iterdir()} == {name, "b.mkv", ".videodeblur"}


def test_another_run_does_not_go_on_with_it(output, tiny_model, capsys):
    assert drive(output, tiny_model, "--stride", "3") == 1
    assert "begun differently (--stride was not given, is 3): go on as it was, or delete" in capsys.readouterr().err


def test_a_source_that_was_changed_is_refused(output, tiny_model, capsys):
    os.utime(output.parent / "in" / "b.mkv", ns=(1, 1))
    assert run_segment.main([str(output), "0"]) == 1
    assert "b.mkv was changed after it was planned (the input was changed since): delete " in capsys.readouterr().err
    assert drive(output, tiny_model) == 1
    assert "1 of 2 videos are done" in capsys.readouterr().out


def test_a_file_that_is_not_ours_is_not_replaced(output, tiny_model, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.mkv").write_text("precious")
    assert drive(tmp_path / "other", tiny_model) == 1
    assert "b.mkv exists already: delete it, or choose another output folder" in capsys.readouterr().out
    assert (tmp_path / "other" / "b.mkv").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["6"], "the index is 6, expected 0 to 5: the library has 6 segments"),
        (["3", "--of", "3"], "the index is 3 of 3 tasks, expected 0 to 2"),
    ],
)
def test_an_index_that_is_none(arguments, message, output, capsys):
    assert run_segment.main([str(output), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_folders_that_do_not_do(videos, tmp_path, capsys):
    for source, output, message in (
        (tmp_path / "none", tmp_path / "out", "none is no folder"),
        (videos, videos, "is the input too"),
        (tmp_path, tmp_path / "out", "has no videos"),
        (videos, videos / "a.mp4", "a.mp4 is a file, expected a folder"),
        (videos, videos.parent, f"{videos} lies inside {videos.parent}, expected a folder for the results beside it"),
    ):
        assert plan_library.main([str(source), str(output)]) == 1
        assert message in capsys.readouterr().err
    assert plan_library.main([str(videos), str(tmp_path / "out"), "--suffix", "mkv"]) == 1
    assert "the suffix is 'mkv', expected one with its dot" in capsys.readouterr().err
    assert run_segment.main([str(tmp_path), "0"]) == 1
    assert "plan the library with `videodeblur plan-library`" in capsys.readouterr().err


def test_a_plan_that_leads_elsewhere_or_is_not_ours_is_refused(output, tmp_path, capsys):
    path = output / ".videodeblur" / "plan.json"
    text = path.read_text()
    for wrong, message in (
        (text.replace('"folder": "b-', '"folder": "../b-'), "names '../b-"),
        (text.replace('"file": "b.mkv"', '"file": "/etc/passwd"'), "names '/etc/passwd', expected what is below its folders"),
        (text.replace('"stride": null', '"stride": 4'), "was changed by hand"),
        (text.replace(str(output), str(tmp_path / "elsewhere")), "mount the folder under one path everywhere"),
        (text.replace('"schema": 1', '"schema": 2'), "of schema 2, this version reads 1"),
        (text[:-40], "is not readable"),
    ):
        assert wrong != text
        path.write_text(wrong)
        assert run_segment.main([str(output), "0"]) == 1
        assert message in capsys.readouterr().err


def test_another_suffix_is_another_run_and_two_sources_never_share_an_output(output, tiny_model, capsys):
    source = output.parent / "in"
    (source / "short.mp4").rename(source / "b.mp4")
    arguments = [str(source), str(output.parent / "other"), "--model", str(tiny_model), *NETWORK]
    (source / "b.mkv").rename(output.parent / "b.mkv")
    assert plan_library.main([*arguments, "--suffix", ".mkv"]) == 0
    (output.parent / "b.mkv").rename(source / "b.mkv")
    assert plan_library.main([*arguments, "--suffix", ".mkv"]) == 1
    assert "b.mkv and b.mp4 would both become b.mkv: rename one" in capsys.readouterr().err
    assert plan_library.main(arguments) == 1
    assert "begun differently (the output of b.mp4 was 'b.mkv', is 'b.mp4': look at --suffix)" in capsys.readouterr().err
    assert [entry.output for entry in load_library(output.parent / "other").videos] == ["b.mkv"]


def test_segments_that_are_too_short_are_refused_at_once(output, tiny_model, capsys):
    assert drive(output, tiny_model, "--segment", "4") == 1
    assert "a segment has 4 frames, expected 10 or more" in capsys.readouterr().err


def test_a_library_may_reach_into_another_file_system(videos, tiny_model, tmp_path):
    """Nothing can be renamed into it: a join is written beside its output."""
    if not os.access("/dev/shm", os.W_OK) or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    shutil.copy(videos / "short.mp4", tmp_path / "in" / "sub")
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "sub").symlink_to(elsewhere)
        assert drive(tmp_path / "out", tiny_model) == 0
        assert [path.name for path in Path(elsewhere).iterdir()] == ["short.mp4"]


def test_two_processes_at_one_library(output, tiny_model, capsys):
    from serving.library.arguments import only_one

    with only_one(output):
        assert drive(output, tiny_model) == 1
    assert "another process is at this library" in capsys.readouterr().err


def test_outputs_lie_as_the_sources_do_and_never_on_each_other(tmp_path):
    from serving.library.scan import LibraryRequest, _entries

    for name in ("x.mp4", "x.avi", "deep/y.TS", "out/z.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    request = LibraryRequest(tmp_path, tmp_path / "out")
    assert [(entry.file, entry.output) for entry in _entries(request)] == [
        ("deep/y.TS", "deep/y.TS.mkv"),
        ("x.avi", "x.avi.mkv"),
        ("x.mp4", "x.mp4"),
    ]
    with pytest.raises(ValueError, match=r"x\.avi and x\.mp4 would both become x\.mkv"):
        list(_entries(LibraryRequest(tmp_path, tmp_path / "out", suffix=".mkv")))
    (tmp_path / "X.mp4").touch()
    assert len(list(_entries(request))) == 4
    (tmp_path / "out" / ".VIDEODEBLUR").mkdir()  # as a file system shows .videodeblur to which it is the same name
    with pytest.raises(ValueError, match=r"X\.mp4 and x\.mp4 would both become x\.mp4"):
        list(_entries(request))


def test_results_inside_the_source_are_not_taken_for_videos_by_any_name_of_theirs(tmp_path, monkeypatch):
    from serving.library.scan import LibraryRequest, _entries

    for name in ("in/x.mp4", "in/out/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "in" / "out")
    monkeypatch.chdir(tmp_path / "in")
    for output in (Path("out"), Path("../in/out"), tmp_path / "link"):
        assert [entry.file for entry in _entries(LibraryRequest(tmp_path / "in", output))] == ["x.mp4"]


def test_a_library_is_known_by_any_name_of_its_folder(output, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(output)
    monkeypatch.chdir(output)
    for name in (Path(), Path("../out"), tmp_path / "link"):
        assert load_library(name).output == str(output)


@pytest.mark.parametrize("other_is", ["faster", "a little faster"])
def test_two_joins_at_once(other_is, output, alone, monkeypatch):
    """The other one begins when this one has found all segments, and ends before this one reads them or names its output."""
    library, join = load_library(output), video_joiner.join
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    entry = library.entry("b.mkv")

    def join_beside_another(*arguments):
        monkeypatch.setattr(video_joiner, "join", join)
        if other_is == "a little faster":
            join(*arguments)
        records.append(video_joiner.join_video(library, entry))
        if other_is == "faster":
            join(*arguments)

    records = []
    monkeypatch.setattr(video_joiner, "join", join_beside_another)
    records.append(video_joiner.join_video(library, entry))
    assert records[0] == records[1]
    assert packets(output / "b.mkv") == alone["b.mkv"]
    assert sorted(path.name for path in work_of(output, "b").iterdir()) == ["joined.json", "plan.json"]


def test_a_segment_whose_video_was_joined_meanwhile(output, monkeypatch):
    """As when a worker that was given up for lost comes back."""
    from serving.library import segment_maker

    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    (work_of(output, "short") / "000000.json").rename(output / "record")
    library, overlap = load_library(output), segment_maker.overlap
    entry = library.entry("short.mp4")

    def overlap_and_then_a_join(*arguments):
        overlap(*arguments)
        (output / "record").rename(work_of(output, "short") / "000000.json")
        video_joiner.join_video(library, entry)

    monkeypatch.setattr(segment_maker, "overlap", overlap_and_then_a_join)
    with Engine(library.model, "onnxruntime", threads=1) as engine:
        assert segment_maker.make_segment(library, entry, 0, engine) is None


def test_an_output_that_cannot_be_written_does_not_keep_others_from_it(output, capsys):
    assert run_segment.main([str(output), "0", "--of", "1"]) == 0
    (output / "b.mkv").mkdir()
    assert join_library.main([str(output)]) == 1
    told = capsys.readouterr()
    assert "error: b.mkv: " in told.err
    assert "short.mp4: 7 frames" in told.out


def test_what_is_known_is_written_when_the_run_ends_early(output):
    """A pool that has no workers any more when the first video is planned, and a segment has failed for good."""
    from serving.library.dispatcher import Event
    from serving.library.run import RunOptions, run_library
    from serving.library.worker import PLANNING, Outcome

    class Pool:
        def __init__(self):
            self.left, self.task = [Event(0, outcome=Outcome(7, 1)), Event(0, outcome=Outcome(error="no luck"))], None

        def idle(self):
            return [] if self.task or not self.left else [0]

        def present(self):
            return [0] if self.left else []

        def give(self, worker, task):
            self.task = task

        def wait(self, seconds):
            if not self.left:
                return None
            event, task, self.task = self.left.pop(0), self.task, None
            return Event(0, task, event.outcome)

    library = load_library(output)
    unknown = replace(library, videos=(*library.videos, replace(library.videos[0], file="c.mkv", output="c.mkv", segments=9)))
    with pytest.raises(BackendError, match="no worker has been there"):
        run_library(unknown, Pool(), RunOptions(tries=1, patience=0.0, only_plan=True))
    [failure] = json.loads((output / ".videodeblur" / "failures.json").read_text())["failures"]
    assert (failure["task"]["kind"], failure["errors"]) == (PLANNING, ["no luck"])
    found = [(entry.file, entry.segments, entry.refused) for entry in load_library(output).videos]
    assert found == [("b.mkv", 1, ""), ("short.mp4", 0, "no luck"), ("c.mkv", 9, "")]


def test_a_plan_that_was_not_finished_has_nothing_to_do(output, capsys):
    library = load_library(output)
    save(replace(library, videos=tuple(replace(entry, segments=0) for entry in library.videos)), library.work / "plan.json")
    for more in ([], ["--of", "3"]):
        assert run_segment.main([str(output), "0", *more]) == 1
        assert "the plan has no segments: do plan-library again, to its end" in capsys.readouterr().err


def test_workers_share_the_cores_that_this_process_may_use():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert deblur_library._share(1) == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert deblur_library._share(len(cores)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "1"], "--gpus is of each worker: say how many --workers"),
        (["--tries", "0"], "--tries is 0, expected 1 or more"),
        (["--threads", "0"], "the network has 0 threads, expected 1 or more"),
        (["--patience", "5"], "--patience is for the workers of a cluster: say how many --workers"),
        (["--patience", "nan"], "--patience is nan, expected 0 or more"),
    ],
)
def test_options_that_do_not_do(arguments, message, output, tiny_model, capsys):
    assert drive(output, tiny_model, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    from serving.library import arguments as library_arguments

    def fails(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(library_arguments.fcntl, "flock", fails)
    with library_arguments.only_one(tmp_path):
        assert "cannot be locked (Function not implemented): see to it" in capsys.readouterr().err


def test_without_ray_the_pip_line_is_told(output, tiny_model):
    code = """
import sys
sys.modules["ray"] = None
import videodeblur
sys.exit(videodeblur.main(sys.argv[1:]))
"""
    arguments = ["library", output.parent / "in", output, "--model", tiny_model, *NETWORK, "--workers", "2"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: a cluster needs a package that is not installed: pip install 'ray==2.60.0'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_workers_of_this_machine(output, alone, tiny_model):
    pytest.importorskip("ray", reason="needs Ray: pip install '.[cluster]'")
    command = [
        "videodeblur",
        "library",
        output.parent / "in",
        output,
        "--model",
        tiny_model,
        *NETWORK,
        "--workers",
        "2",
        "--json",
    ]
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 workers of 1 cores" in done.stderr
    assert json.loads(done.stdout)["joined"] == 2
    assert packets(output / "b.mkv") == alone["b.mkv"]
