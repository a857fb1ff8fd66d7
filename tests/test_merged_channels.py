"""merge-duplicates: a widened network becomes the narrow one again, others stay bit for bit, and export says what was saved."""

import dataclasses

import pytest
import torch

from export.export_options import ExportOptions
from export.network.exporter import export_onnx
from export.network.merged_channels import gflop_per_frame, merge_duplicates, merging_note
from export.to_onnx import main
from model import PAPER, VARIANTS, DeblurNetwork, NetworkConfig, save_checkpoint
from runtime.files.contract import MIN_PARITY, read_contract
from runtime.pixels.metrics import decibels
from training.growth import grown

WIDE = PAPER.divided(8)
GENERATORS = ("temporal_generator", "spatial_generator")
CHANGES = [{}, {"generator_skips": True}, {"tanh_before_conv": True}, {"residual": False}]


def drawn(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        torch.nn.init.normal_(parameter, std=fan_in**-0.5)
    return network.eval()


def narrow_and_wide(**changes):
    """A network with narrow generators, and the same function at full width."""
    narrow_widths = dataclasses.replace(WIDE, **dict(zip(GENERATORS, halved(WIDE))))
    narrow = drawn(DeblurNetwork(dataclasses.replace(NetworkConfig(widths=narrow_widths), **changes)))
    return narrow, grown(narrow, WIDE, noise=0.0)


@torch.inference_mode()
def parity(one, other):
    window = torch.rand(2, one.config.frames, 32, 48, generator=torch.Generator().manual_seed(1))
    return decibels(float((one(window).double() - other(window).double()).square().mean()))


def assert_unchanged(network):
    merged = merge_duplicates(network)
    assert merged.config == network.config
    before, after = network.state_dict(), merged.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def generator_widths(widths):
    return widths.temporal_generator, widths.spatial_generator


def halved(widths):
    return tuple(tuple(count // 2 for count in counts) for counts in generator_widths(widths))


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_widened_network_becomes_its_narrow_original(changes):
    narrow, wide = narrow_and_wide(**changes)
    merged = merge_duplicates(wide)
    assert parity(merged, narrow) >= MIN_PARITY["fp32"]
    assert parity(merged, wide) >= MIN_PARITY["fp32"]
    assert generator_widths(merged.config.widths) == halved(WIDE)
    assert {name: tuple(value.shape) for name, value in merged.state_dict().items()} == {
        name: tuple(value.shape) for name, value in narrow.state_dict().items()
    }


def test_twice_widened_is_merged_twice():
    narrow, once = narrow_and_wide()
    twice = {name: tuple(2 * count for count in getattr(WIDE, name)) for name in GENERATORS}
    merged = merge_duplicates(grown(once, dataclasses.replace(WIDE, **twice), noise=0.0))
    assert parity(merged, narrow) >= MIN_PARITY["fp32"]
    assert generator_widths(merged.config.widths) == halved(WIDE)


def test_the_merged_network_fits_its_configuration():
    merged = merge_duplicates(narrow_and_wide()[1])
    fresh = DeblurNetwork(merged.config)
    fresh.load_state_dict(merged.state_dict())
    assert parity(fresh.eval(), merged) == float("inf")


def test_duplicates_outside_the_generators():
    network = drawn(DeblurNetwork(NetworkConfig(widths=WIDE)))
    with torch.no_grad():
        for conv in (network.c1, network.r1):
            conv.weight[1], conv.bias[1] = conv.weight[0], conv.bias[0]
    merged = merge_duplicates(network)
    assert (merged.config.widths.fine, merged.config.widths.merged) == (WIDE.fine - 1, WIDE.merged - 1)
    assert parity(merged, network) >= MIN_PARITY["fp32"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_network_without_duplicates_is_unchanged_bit_for_bit(variant):
    network = drawn(DeblurNetwork(dataclasses.replace(VARIANTS[variant], widths=WIDE)))
    assert_unchanged(network)
    assert merging_note(network.config, merge_duplicates(network).config) == ""


def test_a_channel_of_another_bias_or_of_one_other_weight_is_kept():
    network = drawn(DeblurNetwork(NetworkConfig(widths=WIDE)))
    with torch.no_grad():
        network.c1.weight[1] = network.c1.weight[0]
        assert_unchanged(network)
        network.c1.bias[1] = network.c1.bias[0]
        network.c1.weight[1, -1, -1, -1] *= 1.00001
    assert_unchanged(network)


def test_the_wide_network_is_not_touched():
    wide = narrow_and_wide()[1]
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    merge_duplicates(wide)
    assert all(torch.equal(before[name], value) for name, value in wide.state_dict().items())


def test_flops_are_those_of_the_paper():
    assert gflop_per_frame(NetworkConfig()) == pytest.approx(489.4, rel=1e-3)


def test_export_merges_compares_with_the_wide_network_and_says_what_it_saved(tmp_path, capsys):
    wide = narrow_and_wide()[1]
    save_checkpoint(wide, tmp_path / "wide.safetensors", torch.float32)
    assert main([str(tmp_path / "wide.safetensors"), "-o", str(tmp_path / "m.onnx")]) == 0
    was, now = (gflop_per_frame(network.config) for network in (wide, merge_duplicates(wide)))
    told = f"note: channels that are duplicates were merged: {was:.3g} GFLOP a frame of 1280x720 became {now:.3g}"
    assert told in capsys.readouterr().out
    contract = read_contract(tmp_path / "m.onnx")
    assert contract.parity["onnxruntime:fp32"] >= MIN_PARITY["fp32"]
    assert generator_widths(NetworkConfig.from_dict(contract.configuration).widths) == halved(WIDE)


def test_without_rewrites_the_file_stays_wide(tmp_path):
    save_checkpoint(narrow_and_wide()[1], tmp_path / "wide.safetensors", torch.float32)
    found = export_onnx(ExportOptions(tmp_path / "wide.safetensors", output=tmp_path / "m.onnx", rewrites=()))
    assert NetworkConfig.from_dict(found.contract.configuration).widths == WIDE
    assert found.note == ""
