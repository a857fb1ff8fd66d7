"""`videodeblur plan`: the numbers that a run then has."""

import json

import pytest
from video_clips import Clip

from runtime import network_memory
from runtime.contract import read_contract
from runtime.errors import InputError
from runtime.forecast import main


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


def test_an_error_is_one_line(plan, tmp_path):
    status, out, err = plan(tmp_path / "in.mp4")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_memory_and_pixels_agree(tiny_model):
    contract = read_contract(tiny_model)
    for pixels in (1, 100_000, 8_000_000):
        assert network_memory.pixels_within(network_memory.bytes_for(pixels, contract, "bf16"), contract, "bf16") == pixels
    with pytest.raises(InputError, match=r"there are 0\.1 GB for the network, expected 0\.35"):
        network_memory.pixels_within(100_000_000, contract, "fp32")


def test_memory_at_hand_is_less_than_the_machine_has(tmp_path, monkeypatch):
    at_hand = network_memory.memory_at_hand()
    assert 0 < at_hand < 2**50
    (tmp_path / "limit").write_text("300000000\n")
    (tmp_path / "used").write_text("100000000\n")
    monkeypatch.setattr(network_memory, "CGROUP_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(network_memory, "CGROUP_USED", tmp_path / "used")
    assert network_memory.memory_at_hand() == 200_000_000
    (tmp_path / "limit").write_text("max\n")
    assert network_memory.memory_at_hand() > 200_000_000
    monkeypatch.setattr(network_memory, "MEMINFO", tmp_path / "missing")
    assert network_memory.memory_at_hand() is None
