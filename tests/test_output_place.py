"""Where outputs go: links, devices and pipes, long names, what a kill leaves, streams that the caller closed."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from test_field_streams import LOSSLESS, copied
from test_pictures import save
from video_clips import VARIABLE, Clip, read

from runtime.errors import InputError, VideoError
from runtime.files import on_disk
from runtime.files.on_disk import Part, part_name, partial_file, partial_folder, place_of
from runtime.video import VideoReader, VideoWriter
from runtime.video.muxer import explained
from runtime.video.output_place import PlaceError
from runtime.video.picture_writer import PictureWriter
from runtime.video.segments import ResumableWriter

ROOT = Path(__file__).resolve().parents[1]
OLD = 3600  # seconds


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Clip(times=VARIABLE[:3]).write(tmp_path_factory.mktemp("clip") / "in.mp4")


def run(tiny_model, *arguments, **options):
    fixed = ["--model", str(tiny_model), "--precision", "fp32", "--threads", "1", "--no-progress"]
    command = [sys.executable, "-m", "runtime.deblur_video", *map(str, arguments), *fixed]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(there, clip, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.mp4").symlink_to(Path("disk") / "real.mp4")
    if there:
        (tmp_path / "disk" / "real.mp4").write_text("the one before")
    copied(clip, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").is_symlink()
    assert len(read(tmp_path / "disk" / "real.mp4").times) == 3
    assert names(tmp_path / "disk") == ["real.mp4"]


@pytest.mark.parametrize("make", [VideoWriter, ResumableWriter])
def test_what_appears_during_a_run_stays_and_so_does_the_result(make, clip, tmp_path):
    (tmp_path / "out.1.mp4").write_text("the result of another day")
    with VideoReader(clip) as reader, make(tmp_path / "out.mp4", reader) as writer:
        writer.begin({}, (0, 0))
        for frame in reader:
            writer.write(frame, frame.luma)
        (tmp_path / "out.mp4").write_text("another program's")
        with pytest.raises(VideoError, match=r"out\.mp4: has appeared since the run began, .* the result is .*out\.2\.mp4"):
            writer.finish()
        writer.close()
    assert [name for name in names(tmp_path) if name.endswith(".mp4")] == ["out.1.mp4", "out.2.mp4", "out.mp4"]
    assert (tmp_path / "out.mp4").read_text() == "another program's"
    assert (tmp_path / "out.1.mp4").read_text() == "the result of another day"
    assert len(read(tmp_path / "out.2.mp4").times) == 3


def test_a_file_system_without_links_tells_too(clip, tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    copied(clip, tmp_path / "out.mp4")
    (tmp_path / "part").write_text("whole")
    assert names(tmp_path) == ["out.mp4", "part"]
    assert not on_disk.take_name(tmp_path / "part", tmp_path / "out.mp4")
    assert on_disk.take_name(tmp_path / "part", tmp_path / "free")
    assert names(tmp_path) == ["free", "out.mp4"]


def test_pictures_that_appear_during_a_run_stay_and_so_do_the_results(clip, tmp_path):
    folder = tmp_path / "sharp"
    with VideoReader(clip) as reader, PictureWriter(folder, reader) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
        (folder / "00000002.png").write_text("another program's")
        with pytest.raises(VideoError, match=r"00000002\.png has appeared since the run began, .* the result is in .*pictures\.1"):
            writer.finish()
    assert names(folder) == ["00000002.png", "pictures.1"]
    assert (folder / "00000002.png").read_text() == "another program's"
    assert len(names(folder / "pictures.1")) == 3


@pytest.mark.parametrize("make", [VideoWriter, ResumableWriter, PictureWriter])
def test_another_working_directory_during_a_run_changes_nothing(make, clip, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    output = Path("%d.png" if make is PictureWriter else "out.mp4")
    with VideoReader(clip) as reader, make(output, reader) as writer:
        writer.begin({}, (0, 0))
        for frame in reader:
            writer.write(frame, frame.luma)
            monkeypatch.chdir(tmp_path / "other")
    assert names(tmp_path / "other") == []
    assert names(tmp_path) == (["1.png", "2.png", "3.png", "other"] if make is PictureWriter else ["other", "out.mp4"])


def make_special(path, kind):
    if kind == "a pipe":
        os.mkfifo(path)
        return
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices are root's to make")


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_devices_and_pipes_are_refused_and_stay(kind, linked, clip, tmp_path, tiny_model):
    (tmp_path / "there").mkdir()
    make_special(tmp_path / "there" / "special", kind)
    target = tmp_path / "there" / ("link" if linked else "special")
    if linked:
        target.symlink_to("special")
    before = names(tmp_path / "there")
    told = run(tiny_model, clip, target, "-y", "-f", "mp4")
    assert told.returncode == 1
    assert f"error: {target} is {kind}, which a file would replace: name a file" in told.stderr
    with pytest.raises(InputError, match=f"is {kind}"), partial_file(target):
        pytest.fail("the work was begun")
    assert names(tmp_path / "there") == before
    assert not target.is_file()


def test_a_place_without_anything_is_itself(tmp_path):
    assert place_of(tmp_path / "new") == tmp_path / "new"


@pytest.mark.parametrize("length", [244, 250, 255])
@pytest.mark.parametrize("letter", ["a", "ø"])
def test_names_as_long_as_the_disk_takes(letter, length, clip, tmp_path):
    stem = letter * ((length - 4) // len(letter.encode()))
    name = stem + "a" * (length - 4 - len(stem.encode())) + ".mp4"
    assert len(name.encode()) == length
    copied(clip, tmp_path / name)
    with partial_file(tmp_path / name) as partial, partial_folder(tmp_path / name[:-4]) as folder:
        assert len(os.fsencode(partial.name)) <= len(os.fsencode(name)) or len(os.fsencode(partial.name)) == 255
        assert len(os.fsencode(folder.name)) <= 255
    assert names(tmp_path) == sorted([name, name[:-4]])


@pytest.fixture
def limit_of_a_file():
    """Of its size, in bytes: what is written beyond is refused, as by a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_is_not_blamed_on_the_sound(suffix, tmp_path, limit_of_a_file):
    """Without the sound the trial would fit."""
    source = Clip(times=VARIABLE[:3], audio=["aac"]).write(tmp_path / "in.mkv")
    copied(source, tmp_path / f"whole{suffix}")
    for size in range(500, (tmp_path / f"whole{suffix}").stat().st_size, 500):
        limit_of_a_file(size)
        with pytest.raises(VideoError, match=r"out.*: writing failed \(File too large\): raise the limit of a file's size"):
            copied(source, tmp_path / f"out{suffix}")
    assert names(tmp_path) == ["in.mkv", f"whole{suffix}"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG])
def test_errors_of_a_place_are_told_as_such_whoever_meets_them(number):
    """FFmpeg's errors have the system's numbers."""
    for error in (OSError(number, os.strerror(number)), av.FFmpegError(number, os.strerror(number))):
        told = rf"^out\.mp4: writing failed \({os.strerror(number)}\): \w+ \w+"
        with pytest.raises(PlaceError, match=told), explained(Path("out.mp4"), "writing failed", "take another codec"):
            raise error


def test_a_name_without_room_for_what_resume_adds(clip, tmp_path):
    name = "a" * 251 + ".mp4"
    with VideoReader(clip) as reader, ResumableWriter(tmp_path / name, reader, LOSSLESS) as writer:
        with pytest.raises(VideoError, match=r"\.resume: the run cannot be kept there \(File name too long\): take a shorter name"):
            writer.begin({}, (8, 8))
        writer.close()
    assert names(tmp_path) == []


def test_a_name_that_no_disk_takes_is_an_error_in_one_line(clip, tmp_path, tiny_model):
    told = run(tiny_model, clip, tmp_path / ("a" * 300 + ".mp4"))
    assert told.returncode == 1
    assert "File name too long" in told.stderr.splitlines()[-1]
    assert "Traceback" not in told.stderr


def test_parts_of_one_process_id_are_not_shared(clip, tmp_path):
    """Containers whose only process has the id 1 may write to one folder."""
    with (
        VideoReader(clip) as reader,
        VideoReader(clip) as other,
        VideoWriter(tmp_path / "out.mp4", reader, LOSSLESS) as first,
        VideoWriter(tmp_path / "out.mp4", other, LOSSLESS) as second,
    ):
        assert len(names(tmp_path)) == 2
        for writer, source in ((first, reader), (second, other)):
            for frame in source:
                writer.write(frame, frame.luma)
        first.finish()
        with pytest.raises(VideoError, match=r"the result is .*out\.1\.mp4"):
            second.finish()
    assert names(tmp_path) == ["out.1.mp4", "out.mp4"]
    assert all(len(read(tmp_path / name).times) == 3 for name in names(tmp_path))


def test_a_planted_link_is_not_written_through(tmp_path, monkeypatch):
    (tmp_path / "victim").write_text("mine")
    monkeypatch.setattr(on_disk.secrets, "token_hex", lambda size: "0" * 2 * size)  # even if it could be guessed
    (tmp_path / part_name(tmp_path / "out", ".part")).symlink_to("victim")
    with pytest.raises(FileExistsError), partial_file(tmp_path / "out") as partial:
        partial.write_text("yours")
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_is_deleted_and_what_another_holds_is_not(folder, tmp_path):
    held, foreign = Part(tmp_path / "out.mp4", folder=folder), tmp_path / ".out.mp4.notes.part"
    left = tmp_path / part_name(tmp_path / "out.mp4", ".part")
    if folder:
        left.mkdir()
        (left / "1.png").touch()
    else:
        left.touch()
    foreign.touch()
    for path in (held.path, left, foreign):
        os.utime(path, (time.time() - OLD,) * 2)
    new = Part(tmp_path / "out.mp4", folder=folder)
    assert names(tmp_path) == sorted([held.path.name, new.path.name, foreign.name])
    for part in (held, new, new):
        part.drop()
    assert names(tmp_path) == [foreign.name]


def test_pictures_are_collected_in_the_folder_that_gets_them(tmp_path):
    """Which may be a mount point: nothing can be renamed into it from outside."""
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "1.png", np.zeros((48, 64), np.uint8), "gray")
    (tmp_path / "mounted").mkdir()
    with VideoReader(tmp_path / "in") as reader, PictureWriter(tmp_path / "mounted", reader) as writer:
        assert names(tmp_path) == ["in", "mounted"]
        for frame in reader:
            writer.write(frame, frame.luma)
    assert names(tmp_path / "mounted") == ["1.png"]


def test_a_terminal_that_is_closed_leaves_nothing_behind(tiny_model, tmp_path):
    source = Clip(size=(320, 240), times=list(range(0, 90000, 1000)), moving=True).write(tmp_path / "in.mp4")
    (tmp_path / "out").mkdir()
    command = [
        sys.executable,
        "-m",
        "runtime.deblur_video",
        str(source),
        str(tmp_path / "out" / "o.mp4"),
        "--model",
        str(tiny_model),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def listen():  # which whoever started these tests may have turned off
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with subprocess.Popen([*command, "--threads", "1"], cwd=ROOT, preexec_fn=listen, **quiet) as process:
        while process.poll() is None and not any((tmp_path / "out").iterdir()):
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) != 0
    assert names(tmp_path / "out") == []


def test_a_closed_stderr_is_no_error_and_gets_none_of_our_files(clip, tmp_path, tiny_model):
    def close():
        os.close(0)
        os.close(2)

    told = run(tiny_model, clip, tmp_path / "out.mp4", preexec_fn=close)
    assert told.returncode == 0
    assert "out.mp4: 3 frames" in told.stdout
    assert len(read(tmp_path / "out.mp4").times) == 3
