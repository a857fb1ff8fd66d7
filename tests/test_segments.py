"""A run that is killed goes on, and its output is that of a run that was not."""

import json
import os
import random
import resource
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
from video_clips import VARIABLE, Clip, read, same

from runtime import Engine
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, VideoError
from runtime.files.on_disk import file_sha256
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader, VideoWriter
from runtime.video.segments import ResumableWriter

ROOT = Path(__file__).resolve().parents[1]
B_FRAMES = EncoderOptions(options={"crf": "20", "preset": "ultrafast", "bf": "3", "b_strategy": "0"})
LOSSLESS = EncoderOptions(options={"qp": "0", "preset": "ultrafast"})
NO_PACKETS = 200_000  # bytes; FFmpeg looks for the next packet in 65536


def rich(path, frames=47, **more):
    """Variable rate with B-frames, a start that is not zero, and sound that starts before and ends after."""
    times = [1000 + cycle * 17020 + time for cycle in range(10) for time in VARIABLE][:frames]
    clip = Clip(times=times, moving=True, audio=["aac"], audio_after=Fraction(1, 2), color=(1, 1, 1, 1), **more)
    return clip.write(path)


@pytest.fixture
def engine(tiny_model):
    with Engine(tiny_model, "onnxruntime", threads=1) as opened:
        yield opened


def assert_equal(left, right):
    assert (left.times, left.duration, left.packets, left.tags) == (right.times, right.duration, right.packets, right.tags)
    assert same(left.pictures, right.pictures)
    assert left.streams == right.streams


class StopError(Exception):
    pass


def stop_after(frames):
    def progress(done, _):
        if done >= frames:
            raise StopError

    return progress


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("suffix", "encoder"),
    [(".mp4", LOSSLESS), (".mkv", LOSSLESS), (".mkv", EncoderOptions("ffv1")), (".mp4", EncoderOptions("libx265"))],
)
def test_segments_join_to_what_one_file_would_be(suffix, encoder, engine, tmp_path):
    source = rich(tmp_path / "in.mp4", options={"bf": "3"}, aspect=Fraction(4, 3), rotation=90, metadata={"title": "Title"})
    if encoder.codec == "libx265":
        encoder = EncoderOptions("libx265", options={"x265-params": "log-level=none:lossless=1", "preset": "ultrafast"})
    for name, resume in (("plain", False), ("joined", True)):
        options = DeblurOptions(source, tmp_path / f"{name}{suffix}", resume=resume, resume_every=10, encoder=encoder)
        summary = deblur_video(options, engine=engine)
        assert summary.frames == 47
    before, after = read(tmp_path / f"plain{suffix}"), read(tmp_path / f"joined{suffix}")
    assert (after.times, after.packets, after.tags, after.streams) == (before.times, before.packets, before.tags, before.streams)
    assert same(after.pictures, before.pictures)
    if suffix == ".mp4" and encoder.codec == "libx264":  # Matroska has none, and reordered pictures have another in MP4
        assert after.duration == read(source).duration
    assert (after.aspect, after.matrix, after.container.get("title")) == (
        before.aspect,
        before.matrix,
        before.container.get("title"),
    )
    assert names(tmp_path) == sorted(["in.mp4", f"joined{suffix}", f"plain{suffix}"])


def test_a_link_may_lead_to_another_file_system(engine, tmp_path):
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as elsewhere:
        (tmp_path / "out.mp4").symlink_to(Path(elsewhere) / "real.mp4")
        options = DeblurOptions(rich(tmp_path / "in.mp4"), tmp_path / "out.mp4", resume=True, resume_every=10, encoder=B_FRAMES)
        deblur_video(options, engine=engine)
        assert (tmp_path / "out.mp4").is_symlink()
        assert (names(tmp_path), names(Path(elsewhere))) == (["in.mp4", "out.mp4"], ["real.mp4"])


def test_times_of_decoding_rise_and_never_pass_those_of_showing(engine, tmp_path):
    options = DeblurOptions(rich(tmp_path / "in.mp4"), tmp_path / "out.mp4", resume=True, resume_every=10, encoder=B_FRAMES)
    deblur_video(options, engine=engine)
    with av.open(str(tmp_path / "out.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    decoded = [packet.dts for packet in packets]
    assert decoded == sorted(set(decoded))
    assert all(packet.dts <= packet.pts for packet in packets)
    assert [packet.pts for packet in packets] != sorted(packet.pts for packet in packets)
    assert sum(packet.is_keyframe for packet in packets) == 5


@pytest.mark.parametrize("stop", [1, 9, 10, 26, 47])
@pytest.mark.parametrize("stride", [None, 2])
def test_an_interrupted_run_goes_on_where_it_was(stop, stride, engine, tmp_path):
    source, said = rich(tmp_path / "in.mp4"), []
    encoder = replace(B_FRAMES, format="mov", leave_out=("subtitle",))
    common = {"stride": stride, "resume": True, "resume_every": 10, "encoder": encoder, "compare": "wipe"}
    whole, output = DeblurOptions(source, tmp_path / "whole.mp4", **common), DeblurOptions(source, tmp_path / "out.mp4", **common)
    deblur_video(whole, engine=engine)
    with pytest.raises(StopError):
        deblur_video(output, stop_after(stop), engine=engine)
    assert not (tmp_path / "out.mp4").exists()
    assert (tmp_path / "out.mp4.resume").exists() == (stop > 20 or (stop > 10 and stride is None))
    summary = deblur_video(output, say=said.append, engine=engine)
    assert summary.frames == 47
    assert any("frames are done already" in line for line in said) == (stop > 20)
    assert_equal(read(tmp_path / "out.mp4"), read(tmp_path / "whole.mp4"))
    assert names(tmp_path) == ["in.mp4", "out.mp4", "whole.mp4"]


@pytest.mark.parametrize("frames", [41, 42])
def test_a_last_segment_shorter_than_a_window_mirrors_into_the_one_before(frames, engine, tmp_path):
    source = rich(tmp_path / "in.mp4", frames)
    whole = DeblurOptions(source, tmp_path / "whole.mp4", encoder=LOSSLESS)
    deblur_video(whole, engine=engine)
    resumed = replace(whole, output=tmp_path / "out.mp4", resume=True, resume_every=10)
    with pytest.raises(StopError):
        deblur_video(resumed, stop_after(41), engine=engine)
    said = []
    deblur_video(resumed, say=said.append, engine=engine)
    assert "40 frames are done already" in said
    assert same(read(resumed.output).luma, read(whole.output).luma)


def start(source, output, model, *arguments):
    command = [sys.executable, "-m", "runtime.deblur_video", source, output, "--model", model, "--threads", "1", "--no-progress"]
    options = ["--backend", "onnxruntime", "--resume", "--resume-every", "10", "-e", "preset=ultrafast", "-e", "crf=20", *arguments]
    return subprocess.Popen([*map(str, command), *options], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_at_ten_random_moments(tiny_model, engine, tmp_path):
    """Every process is killed from outside at a moment drawn by lot, after it has begun to work."""
    source = rich(tmp_path / "in.mp4", frames=120, size=(192, 128))
    deblur_video(DeblurOptions(source, tmp_path / "whole.mp4", resume=True, resume_every=10, encoder=B_FRAMES), engine=engine)
    lot, done, kills = random.Random(0), [], 0
    while kills < 10:
        with start(source, tmp_path / "out.mp4", tiny_model, "-e", "bf=3", "-e", "b_strategy=0") as process:
            process.stderr.readline()  # it says what was chosen, and starts
            if kills % 2:  # every second one gets a segment done before
                wait_for_another_segment(process, tmp_path / "out.mp4.resume", max(done, default=0))
            time.sleep(lot.uniform(0, 0.3))
            killed = process.poll() is None
            process.kill()
        if not killed or (tmp_path / "out.mp4").exists():
            (tmp_path / "out.mp4").unlink()  # it was over; once more
            done.clear()
            continue
        kills += 1
        done.append(journalled(tmp_path / "out.mp4.resume"))
        assert done == sorted(done), "finished segments were lost"
    with start(source, tmp_path / "out.mp4", tiny_model, "-e", "bf=3", "-e", "b_strategy=0", "--log-level", "info") as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "INFO videodeblur.run: " in err
    assert "out.mp4: 120 frames in " in err
    assert_equal(read(tmp_path / "out.mp4"), read(tmp_path / "whole.mp4"))
    parts = [name for name in names(tmp_path) if name.startswith(".out.")]  # of joins that were killed; gone after a minute's run
    assert [name for name in names(tmp_path) if name not in parts] == ["in.mp4", "out.mp4", "whole.mp4"]


def wait_for_another_segment(process, folder, done):
    while journalled(folder) <= done and process.poll() is None:
        time.sleep(0.01)


def journalled(folder):
    path = folder / "journal.jsonl"
    return (
        sum(json.loads(line)["frames"] for line in path.read_text().splitlines()[1:] if line.endswith("}")) if path.exists() else 0
    )


@pytest.fixture
def stopped(engine, tmp_path):
    """A run that was stopped after 27 frames, and the options to go on with."""
    options = DeblurOptions(
        rich(tmp_path / "in.mp4"), tmp_path / "out.mp4", resume=True, resume_every=10, encoder=B_FRAMES, scene_threshold=0
    )
    with pytest.raises(StopError):
        deblur_video(options, stop_after(27), engine=engine)
    return options


def test_a_broken_journal_costs_what_it_broke(stopped, engine, tmp_path):
    journal = tmp_path / "out.mp4.resume" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    assert len(lines) == 3
    journal.write_text("\n".join([*lines[:2], lines[2][:20]]))
    said = []
    deblur_video(stopped, say=said.append, engine=engine)
    assert "10 frames are done already" in said
    assert len(read(stopped.output).times) == 47


@pytest.mark.parametrize(
    "line", ['{"file": "000001.nut", "bytes": 9}\n', "[]\n", '{"file": 1, "frames": 1, "bytes": 1}\n', "\x00" * 40]
)
def test_a_line_of_the_journal_that_is_no_segment_costs_what_comes_after(line, stopped, engine, tmp_path):
    journal = tmp_path / "out.mp4.resume" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:2], line, lines[2]]))
    said = []
    deblur_video(stopped, say=said.append, engine=engine)
    assert "10 frames are done already" in said
    assert len(read(stopped.output).times) == 47


@pytest.mark.parametrize("before", ["", '{"source": "in.mp4", "by'])
def test_a_first_line_that_was_not_written_whole_is_no_run(before, engine, tmp_path):
    options = DeblurOptions(rich(tmp_path / "in.mp4"), tmp_path / "out.mp4", resume=True, resume_every=10, encoder=B_FRAMES)
    (tmp_path / "out.mp4.resume").mkdir()
    (tmp_path / "out.mp4.resume" / "journal.jsonl").write_text(before)
    assert deblur_video(options, engine=engine).frames == 47
    assert names(tmp_path) == ["in.mp4", "out.mp4"]


def test_going_on_writes_nothing_that_is_written_already(stopped, tmp_path):
    """On a full disk too, where a journal that is begun anew would be lost."""
    journal = tmp_path / "out.mp4.resume" / "journal.jsonl"
    whole, limits = journal.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with VideoReader(stopped.source) as reader:
        writer = ResumableWriter(stopped.output, reader, B_FRAMES)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # bytes of a file
        try:
            assert writer.begin(json.loads(whole.splitlines()[0]), (8, 8)) == (20, (48, 64))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            writer.close()
    assert journal.read_bytes() == whole
    assert names(tmp_path / "out.mp4.resume") == ["000000.nut", "000001.nut", "journal.jsonl"]


def damaged(path, target, packet):
    """A file whose picture packet of this number holds zeros."""
    with av.open(str(path)) as container:
        at = [(each.pos, each.size) for each in container.demux(video=0) if each.size][packet]
    data = bytearray(path.read_bytes())
    data[at[0] : sum(at)] = bytes(at[1])
    target.write_bytes(data)
    return target


def test_what_is_salvaged_has_the_sound_up_to_the_damage(engine, tmp_path):
    source = damaged(rich(tmp_path / "in.mp4", options={"g": "10", "bf": "2"}), tmp_path / "cut.mp4", 30)
    common = {"salvage": True, "encoder": LOSSLESS}
    plain = DeblurOptions(source, tmp_path / "plain.mp4", **common)
    resumed = DeblurOptions(source, tmp_path / "resumed.mp4", resume=True, resume_every=10, **common)
    frames = {deblur_video(options, engine=engine).frames for options in (plain, resumed)}
    left, right = read(plain.output), read(resumed.output)
    assert len(frames) == 1
    assert (left.times, len(left.times)) == (right.times, *frames)
    end = right.times[-1] + Fraction(1, 10)
    for contents in (left, right):
        (sound,) = contents.packets.values()
        assert end - Fraction(1, 5) < sound[-1][1] < end
    (whole,) = read(tmp_path / "in.mp4").packets.values()
    assert whole[-1][1] > end + Fraction(1, 2)


@pytest.fixture
def unreadable(tmp_path):
    """A transport stream whose second half is none: FFmpeg cannot find the next packet."""
    data = rich(tmp_path / "whole.ts", options={"g": "10", "bf": "0"}).read_bytes()
    (tmp_path / "in.ts").write_bytes(data[: len(data) // 2] + bytes(NO_PACKETS))
    (tmp_path / "whole.ts").unlink()
    return tmp_path / "in.ts"


@pytest.mark.parametrize("more", [{"frames": 11}, {"salvage": True}])
def test_damage_that_a_run_does_not_look_at_does_not_stop_its_join(more, unreadable, engine, tmp_path):
    options = DeblurOptions(unreadable, tmp_path / "out.mp4", resume=True, resume_every=10, encoder=LOSSLESS, **more)
    frames = deblur_video(options, engine=engine).frames
    assert 11 <= frames < 40
    assert len(read(options.output).times) == frames
    assert names(tmp_path) == ["in.ts", "out.mp4"]


def test_a_source_that_cannot_be_read_again_is_an_error_of_ours(unreadable):
    with (
        VideoReader(unreadable) as reader,
        pytest.raises(VideoError, match=r"in\.ts: cannot be read to its end \(.*\): get a whole"),
    ):
        list(reader.skim())


def test_a_trial_leaves_no_sound_to_be_kept(tmp_path):
    """What the reader sets aside is decided before its thread begins, and for segments it is nothing."""
    source = rich(tmp_path / "in.mp4")
    with VideoReader(source) as reader, ResumableWriter(tmp_path / "out.mp4", reader, B_FRAMES):
        assert len(list(reader)) == 47
        assert list(reader.take_packets()) == []


def test_the_rate_of_a_run_that_goes_on_is_of_its_own_frames(stopped, engine):
    summary = deblur_video(stopped, engine=engine)
    assert summary.frames == 47
    assert summary.fps == pytest.approx(27 / summary.seconds)


def test_a_segment_that_was_cut_off_is_done_again(stopped, engine, tmp_path):
    segment = tmp_path / "out.mp4.resume" / "000000.nut"
    segment.write_bytes(segment.read_bytes()[:-10])
    said = []
    deblur_video(stopped, say=said.append, engine=engine)
    assert not [line for line in said if "already" in line]
    assert len(read(stopped.output).times) == 47


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 3}, "--stride was not given, is 3"),
        (
            {"encoder": EncoderOptions("ffv1")},
            "-c was libx264, is ffv1; -e was crf=20 preset=ultrafast bf=3 b_strategy=0, is not given",
        ),
        (
            {"encoder": replace(B_FRAMES, crf=None, options={"crf": "21"})},
            "-e was crf=20 preset=ultrafast bf=3 b_strategy=0, is crf=21",
        ),
        ({"scene_threshold": 0.25}, "--scene-thresh was 0, is 0.25"),
        ({"tile": 64}, "--tile was not given, is 64"),
        ({"memory": 0.5}, None),
    ],
)
def test_another_run_does_not_go_on_with_it(change, message, stopped, engine):
    other = DeblurOptions(**{**vars(stopped), **change})
    if message is None:
        assert deblur_video(other, engine=engine).frames == 47
        return
    with pytest.raises(
        InputError, match=rf"out\.mp4\.resume holds a run that was begun differently \({message}.*delete the folder"
    ):
        deblur_video(other, engine=engine)
    assert deblur_video(stopped, engine=engine).frames == 47  # which it left alone


@pytest.mark.parametrize(
    "change",
    [
        {"format": "mov"},
        {"leave_out": ("audio",)},
        {"drop_unsupported": True},
        {"options": {**B_FRAMES.options, "tag": "avc3"}},
    ],
)
def test_what_only_concerns_the_join_may_be_another(change, stopped, engine):
    said = []
    other = replace(stopped, encoder=replace(stopped.encoder, **change))
    assert deblur_video(other, say=said.append, engine=engine).frames == 47
    assert "20 frames are done already" in said
    found = read(stopped.output)
    assert len(found.times) == 47
    assert len(found.packets) == ("leave_out" not in change)


def test_a_run_whose_join_failed_can_go_on_with_another(engine, tmp_path, monkeypatch):
    """The work is not lost, and is not done again."""
    options = DeblurOptions(rich(tmp_path / "in.mp4"), tmp_path / "out.mp4", resume=True, resume_every=10, encoder=B_FRAMES)
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write_coded", lambda *_: (_ for _ in ()).throw(VideoError("full")))
        with pytest.raises(VideoError, match="full"):
            deblur_video(options, engine=engine)
    said = []
    without = replace(options, encoder=replace(B_FRAMES, leave_out=("audio",)))
    assert deblur_video(without, say=said.append, engine=engine).frames == 47
    assert "47 frames are done already" in said


def test_a_journal_of_an_earlier_version_is_gone_on_with(stopped, engine, tmp_path):
    """Its encoder was one value, with what concerns the join, and its segments had no hashes."""
    journal = tmp_path / "out.mp4.resume" / "journal.jsonl"
    job, *segments = [json.loads(line) for line in journal.read_text().splitlines()]
    job["encoder"] = {name: job.pop(name) for name in ("codec", "crf", "options")}
    job["encoder"].update(format=None, leave_out=[], drop_unsupported=False)
    for segment in segments:
        del segment["sha256"]
    journal.write_text("".join(json.dumps(line) + "\n" for line in (job, *segments)))
    said = []
    assert deblur_video(stopped, say=said.append, engine=engine).notes == ()
    assert "20 frames are done already" in said


@pytest.mark.parametrize("damage", ["swapped lines", "swapped files", "flipped byte"])
def test_segments_are_checked_by_content(damage, stopped, engine, tmp_path):
    folder = tmp_path / "out.mp4.resume"
    journal, first, second = folder / "journal.jsonl", folder / "000000.nut", folder / "000001.nut"
    if damage == "swapped lines":
        job, *lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join([job, *reversed(lines)]))
    elif damage == "swapped files":
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    else:
        data = bytearray(second.read_bytes())
        data[len(data) // 2] ^= 1
        second.write_bytes(data)
    done = 10 if damage == "flipped byte" else 0
    said = []
    summary = deblur_video(stopped, say=said.append, engine=engine)
    assert [line for line in said if "already" in line] == [f"{done} frames are done already"] * bool(done)
    (note,) = summary.notes
    assert "out.mp4.resume was damaged (" in note
    assert f"all from segment {done // 10} on was done again" in note
    whole = replace(stopped, output=tmp_path / "whole.mp4")
    deblur_video(whole, engine=engine)
    assert_equal(read(stopped.output), read(whole.output))


def test_a_source_that_was_changed_is_another_run(stopped, engine):
    os.utime(stopped.source, ns=(1, 1))
    with pytest.raises(InputError, match=r"begun differently \(the input was changed since\)"):
        deblur_video(stopped, engine=engine)


def test_two_processes_at_one_run(stopped, engine, tmp_path):
    with VideoReader(stopped.source) as reader, ResumableWriter(stopped.output, reader, B_FRAMES) as writer:
        with pytest.raises(InputError, match="begun differently"):
            writer.begin({"source": "another"}, (48, 64))
        job = json.loads((tmp_path / "out.mp4.resume" / "journal.jsonl").read_text().splitlines()[0])
        assert writer.begin(job, (8, 8)) == (20, (48, 64))
        with pytest.raises(InputError, match="another process is at this run"):
            deblur_video(stopped, engine=engine)
        writer.close()
    assert deblur_video(stopped, engine=engine).frames == 47


def test_segments_of_another_encoder_are_not_joined(stopped, engine, tmp_path):
    """As after an update of FFmpeg in the middle of a run, which the journal does not tell."""
    folder = tmp_path / "out.mp4.resume"
    other, path = EncoderOptions(options={"qp": "0", "bf": "0"}), tmp_path / "other.nut"
    with VideoReader(stopped.source, 10) as reader, VideoWriter(path, reader, other, segment=True) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
    (tmp_path / "other.nut").replace(folder / "000000.nut")
    journal = folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[1].update(bytes=(folder / "000000.nut").stat().st_size, sha256=file_sha256(folder / "000000.nut"))
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(VideoError, match=r"000000\.nut: was encoded by another encoder: delete the folder"):
        deblur_video(stopped, engine=engine)


def test_a_first_error_leaves_no_folder(engine, tmp_path):
    source = rich(tmp_path / "in.mp4")
    with pytest.raises(StopError):
        deblur_video(DeblurOptions(source, tmp_path / "out.mp4", resume=True), stop_after(20), engine=engine)
    assert names(tmp_path) == ["in.mp4"]


def test_ctrl_c_says_how_to_go_on(tiny_model, tmp_path):
    source = rich(tmp_path / "in.mp4", frames=120, size=(192, 128))
    process = start(source, tmp_path / "out.mp4", tiny_model)
    while not (tmp_path / "out.mp4.resume" / "000000.nut").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "out.mp4.resume has what is done; the same command goes on from there" in err
    assert names(tmp_path) == ["in.mp4", "out.mp4.resume"]


def test_segments_that_are_too_short_are_refused(tmp_path):
    with pytest.raises(InputError, match="a segment has 4 frames, expected 10 or more"):
        DeblurOptions(tmp_path / "in.mp4", tmp_path / "out.mp4", resume=True, resume_every=4)


def test_a_run_keeps_its_tiles_when_memory_is_another(engine, tmp_path):
    source, said = rich(tmp_path / "in.mp4", frames=26, size=(496, 352)), []
    common = {"resume": True, "resume_every": 10, "encoder": B_FRAMES}
    with pytest.raises(StopError):
        deblur_video(DeblurOptions(source, tmp_path / "out.mp4", memory=0.42, **common), stop_after(16), said.append, engine)
    deblur_video(DeblurOptions(source, tmp_path / "out.mp4", memory=4, **common), say=said.append, engine=engine)
    first, done, again = said
    assert (first, done) == (again, "10 frames are done already")
    assert first.startswith("496x352 pixels in ")
