"""`videodeblur plan`: the numbers that a run then has."""

import json

import pytest
from video_clips import Clip

from runtime.errors import InputError
from runtime.files.contract import read_contract
from runtime.machine import memory
from runtime.plan_video import main
from runtime.run import network_memory


@pytest.fixture
def plan(tiny_model, capsys):
    def call(source, *arguments):
        status = main([str(source), *map(str, arguments), "--model", str(tiny_model), "--precision", "fp32", "--threads", "1"])
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Clip(size=(496, 352), moving=True).write(tmp_path_factory.mktemp("clip") / "in.mp4")


def test_frames_windows_tiles_memory_and_time(clip, plan, tiny_model):
    status, out, _ = plan(clip, "--json", "--tile", 64)
    found = json.loads(out)
    assert status == 0
    assert (found["frames"], found["windows"], found["width"], found["height"]) == (12, 3, 496, 352)
    assert (found["tiles"], found["tile_width"], found["tile_height"]) == (3, 384, 352)
    assert found["memory"] == pytest.approx(network_memory.bytes_for(384 * 352, read_contract(tiny_model), "fp32") / 1e9)
    assert 0 < found["seconds_per_window"] < 60
    assert found["seconds"] == pytest.approx(3 * found["seconds_per_window"])


@pytest.mark.parametrize(("arguments", "frames", "windows"), [(("--frames", 4), 4, 1), (("--stride", 2), 12, 6)])
def test_options_of_a_run_count(arguments, frames, windows, plan, tmp_path):
    status, out, _ = plan(Clip().write(tmp_path / "in.mp4"), "--json", *arguments)
    found = json.loads(out)
    assert (status, found["frames"], found["windows"], found["tiles"]) == (0, frames, windows, 1)


def test_a_stream_of_unknown_length_says_so(plan, tmp_path):
    status, out, _ = plan(Clip(options={"bf": "0"}).write(tmp_path / "in.h264"))
    assert status == 0
    assert "frames   unknown of 64x48, whole" in out
    assert "time     unknown" in out


def test_what_the_output_cannot_hold_is_told(plan, tmp_path):
    """By the same trial as a run's, which leaves nothing."""
    source = Clip(audio=["aac"], subtitles=("Hei",)).write(tmp_path / "in.mkv")
    status, _, err = plan(source, tmp_path / "out.ts")
    assert status == 1
    assert "error: .ts cannot hold subtitle stream 2 of " in err
    status, out, _ = plan(source, tmp_path / "out.ts", "--drop-unsupported", "--json")
    assert (status, json.loads(out)["notes"]) == (0, ["subtitle stream 2 (srt) is not in the output: .ts cannot hold it"])
    status, out, _ = plan(source, tmp_path / "out.mkv", "-c", "ffv1")
    assert status == 0
    assert "note" not in out
    assert plan(source, "-", "-f", "nut", "--drop-unsupported")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize(
    ("output", "arguments", "message"),
    [
        ("out.mp4", ("-c", "nosuch"), "there is no encoder 'nosuch'"),
        ("missing/out.mp4", (), "there is no folder"),
        ("out.ts", ("-c", "ffv1"), "cannot be read back"),
    ],
)
def test_an_output_that_cannot_be_written_is_told(output, arguments, message, plan, tmp_path):
    status, out, err = plan(Clip().write(tmp_path / "in.mp4"), tmp_path / output, *arguments)
    assert (status, out) == (1, "")
    assert message in err


def test_an_error_is_one_line(plan, tmp_path):
    status, out, err = plan(tmp_path / "in.mp4")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_memory_and_pixels_agree(tiny_model):
    contract = read_contract(tiny_model)
    for pixels in (1, 100_000, 8_000_000):
        assert network_memory.pixels_within(network_memory.bytes_for(pixels, contract, "bf16"), contract, "bf16") == pixels
    with pytest.raises(InputError, match=r"there are 100 MB of memory for the network, expected more than 350"):
        network_memory.pixels_within(100_000_000, contract, "fp32")


def test_memory_at_hand_is_less_than_the_machine_has(tmp_path, monkeypatch):
    at_hand = memory.memory_at_hand()
    assert 0 < at_hand < 2**50
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "missing")
    assert memory.memory_at_hand() is None


MB = 1_000_000
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")
NO_LIMIT_V1 = 9223372036854771712


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        ("0::/", {"": (V2, 300, 100, 0)}, 200),  # a container with a namespace of its own
        ("0::/", {}, 8000),  # no limit anywhere: what the machine has
        ("0::/job_1/step_0", {"job_1": (V2, 2000, 500, 0), "job_1/step_0": (V2, "max", 400, 0)}, 1500),  # SLURM
        ("0::/user.slice/run-1.scope", {"user.slice": (V2, 4000, 100, 0), "user.slice/run-1.scope": (V2, 900, 100, 0)}, 800),
        ("0::/job", {"job": (V2, 2000, 1900, 1500)}, 1600),  # a large file was read: its pages give way
        ("0::/job", {"job": (V2, 2000, 2100, 0)}, 0),
        ("0::/job", {"other": (V2, 10, 0, 0)}, 8000),
        ("4:memory:/job\n0::/", {"memory": (V1, NO_LIMIT_V1, 1000, 0), "memory/job": (V1, 2000, 1900, 1500)}, 1600),
        ("3:cpu,memory:/docker/1", {"memory": (V1, 700, 200, 0)}, 500),  # as in a container that sees its own group alone
        ("12:cpu,cpuacct:/job\n4:memory:/", {"cpu,cpuacct/job": (V1, 5, 0, 0)}, 8000),
    ],
)
def test_memory_at_hand_is_within_every_control_group_around(own, groups, expected, tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 7812500 kB\n")
    (tmp_path / "own").write_text(f"{own}\n")
    for name, ((limit, used, droppable), *values) in groups.items():
        most, taken, files = (value * MB if isinstance(value, int) and value != NO_LIMIT_V1 else value for value in values)
        (tmp_path / "groups" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name / limit).write_text(f"{most}\n")
        (tmp_path / "groups" / name / used).write_text(f"{taken}\n")
        (tmp_path / "groups" / name / "memory.stat").write_text(f"anon 5\n{droppable} {files}\nactive_file 7\n")
    for constant, name in (("MEMINFO", "meminfo"), ("OWN_GROUPS", "own"), ("GROUPS", "groups")):
        monkeypatch.setattr(memory, constant, tmp_path / name)
    assert memory.memory_at_hand() == expected * MB
