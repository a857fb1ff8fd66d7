"""Checkpoints: what is written is read back, what does not fit is refused by name."""

import os

import pytest
import torch
from safetensors.torch import save_file

from model.checkpoint import CheckpointError, default_checkpoint, load_checkpoint, read_notes, save_checkpoint
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


@pytest.mark.parametrize("key", ["params_ema", "params", "model", "model_state_dict", "ema", "state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "net.", "ema_model.", "module._orig_mod."])
def test_usual_holders_and_prefixes(saved, tmp_path, key, prefix):
    network, _ = saved
    named = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.save({key: named, "epoch": 3, "optimizer": {"lr": 1e-3}}, tmp_path / "usual.pth")
    assert torch.equal(load_checkpoint(tmp_path / "usual.pth", TINY).c1.weight, network.c1.weight)


def test_the_average_is_taken_before_the_weights(saved, tmp_path):
    network, _ = saved
    zeros = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    torch.save({"params": zeros, "params_ema": network.state_dict()}, tmp_path / "basicsr.pth")
    assert torch.equal(load_checkpoint(tmp_path / "basicsr.pth", TINY).c1.weight, network.c1.weight)


def test_an_average_counts_beside_its_weights(saved, tmp_path):
    network, _ = saved
    named = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({**named, "n_averaged": torch.tensor(7)}, tmp_path / "swa.pt")
    assert torch.equal(load_checkpoint(tmp_path / "swa.pt", TINY).c1.weight, network.c1.weight)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_prefixes_in_safetensors(saved, tmp_path, prefix):
    network, _ = saved
    save_file({f"{prefix}{name}": value for name, value in network.state_dict().items()}, tmp_path / "p.safetensors")
    assert torch.equal(load_checkpoint(tmp_path / "p.safetensors", TINY).c1.weight, network.c1.weight)


def test_a_holder_of_something_else_is_named(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"a dictionary of epoch, lr, expected tensors by name, or .* under params_ema"):
        load_checkpoint(tmp_path / "other.pth")


def test_another_network_is_not_a_variant_to_name(tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="it is of another network than this project's"):
        load_checkpoint(tmp_path / "other.pth", TINY)


NO_CHECKPOINTS = {
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 31000000\n",
    "a web page": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "empty": b"",
    "broken, cut off": b"hello world, this is a text\n",
    "or holds more than tensors": bytes(100),
}


@pytest.mark.parametrize("what", NO_CHECKPOINTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_told_in_our_words(tmp_path, what, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(NO_CHECKPOINTS[what])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert what in str(caught.value) or suffix == ".safetensors"
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_none_are_refused(saved, tmp_path):
    network, _ = saved
    with torch.no_grad():
        network.c2.weight[0, 0, 0, 0] = float("nan")
    save_checkpoint(network, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match=r"NaN or infinite numbers in 1 tensors \['c2.weight'\]"):
        load_checkpoint(tmp_path / "nan.safetensors")


def test_pickled_code_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"w": Attack()}, tmp_path / "attack.pth")
    with pytest.raises(CheckpointError, match="holds more than tensors, which could run code") as caught:
        load_checkpoint(tmp_path / "attack.pth")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "attacked").exists()


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="No such file"):
        read_notes(tmp_path / "none.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_half_a_file(saved, tmp_path, suffix):
    _, path = saved
    half = tmp_path / f"half{suffix}"
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="half"):
        load_checkpoint(half)
    if suffix == ".safetensors":
        with pytest.raises(CheckpointError, match="half"):
            read_notes(half)


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
