"""Checkpoints: what is written is read back, what does not fit is refused by name."""

import os

import pytest
import torch

from model.checkpoint import CheckpointError, default_checkpoint, load_checkpoint, save_checkpoint
from model.config import NetworkConfig
from model.network import DeblurNetwork
from model.widths import PAPER

TINY = NetworkConfig(widths=PAPER.divided(16), generator_skips=True)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = DeblurNetwork(TINY)
    save_checkpoint(network, tmp_path / "tiny.safetensors", torch.float32, {"note": "kept"})
    return network, tmp_path / "tiny.safetensors"


def test_round_trip_keeps_weights_and_configuration(saved):
    network, path = saved
    loaded = load_checkpoint(path)
    assert loaded.config == TINY
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_others_may_read_it_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        save_checkpoint(DeblurNetwork(TINY), tmp_path / "tiny.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "tiny.safetensors").stat().st_mode & 0o777 == 0o640


def test_shipped_checkpoint_is_the_default_network():
    assert load_checkpoint(default_checkpoint()).config.frames == 5


def test_state_dictionary_of_a_stranger(saved, tmp_path):
    network, _ = saved
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "stranger.pth")
    loaded = load_checkpoint(tmp_path / "stranger.pth", TINY)
    assert torch.equal(loaded.c1.weight, network.c1.weight)


def test_pickled_code_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"w": Attack()}, tmp_path / "attack.pth")
    with pytest.raises(CheckpointError, match="weights_only"):
        load_checkpoint(tmp_path / "attack.pth")
    assert not (tmp_path / "attacked").exists()


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_half_a_file(saved, tmp_path, suffix):
    _, path = saved
    half = tmp_path / f"half{suffix}"
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="half"):
        load_checkpoint(half)


def test_another_configuration_is_named(saved):
    with pytest.raises(CheckpointError, match="generator_skips is True, asked False"):
        load_checkpoint(saved[1], NetworkConfig(widths=PAPER.divided(16)))


def test_weights_that_do_not_fit(tmp_path):
    torch.save(DeblurNetwork(TINY).state_dict(), tmp_path / "skips.pth")
    with pytest.raises(CheckpointError, match="does not fit the configuration"):
        load_checkpoint(tmp_path / "skips.pth", NetworkConfig(widths=PAPER.divided(16)))


def test_configuration_of_a_newer_version():
    with pytest.raises(ValueError, match=r"unknown fields \['attention'\]"):
        NetworkConfig.from_dict({"attention": True})
