"""The rewrites of the network change its output by float rounding only, and leave the network handed over alone."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from export import export_options
from export.network.rewrites import (
    REWRITES,
    SplitHead,
    apply_rewrites,
    canonical,
    fold_projections,
    join_cells,
    merge_gates,
)
from model import PAPER, VARIANTS, DeblurNetwork
from model.sizes import SIZES

ROUNDING = 2e-6  # the outputs here are of order 1
FEW = (0, 1, 2, len(REWRITES) - 1, len(REWRITES))  # every pair, and every one beside all others: all subsets take long
SUBSETS = [names for count in FEW for names in itertools.combinations(REWRITES, count)]
TYPICAL = [(), *((name,) for name in REWRITES), export_options.DEFAULT_REWRITES, tuple(REWRITES)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The networks are so small that more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_network(variant, **changes):
    torch.manual_seed(0)
    network = DeblurNetwork(dataclasses.replace(VARIANTS[variant], widths=PAPER.divided(8), **changes)).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(network.r2.weight, std=0.1)
    return network


def window(network):
    return torch.rand(2, network.config.frames, 16, 24, generator=torch.Generator().manual_seed(1))


def operators(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


@torch.no_grad()
def assert_unchanged(network, subsets):
    blurry = window(network)
    expected = network(blurry)
    for names in subsets:
        assert (apply_rewrites(network, names)(blurry) - expected).abs().max() < ROUNDING, names


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_changes(variant):
    assert_unchanged(random_network(variant), TYPICAL)


def test_no_combination_changes_the_output():
    assert_unchanged(random_network("I5T3"), SUBSETS)


@pytest.mark.parametrize("changes", [{"residual": False}, {"tanh_before_conv": True}, {"generator_skips": True}])
def test_nor_under_the_other_assumptions(changes):
    assert_unchanged(random_network("I5T3", **changes), TYPICAL)


@pytest.mark.parametrize("name", REWRITES)
def test_the_test_would_notice_a_wrong_weight(name):
    network = random_network("I5T3")
    rewritten = REWRITES[name](network)
    conv = operators(rewritten, nn.Conv2d)[-3]
    with torch.no_grad():
        conv.weight.add_(0.05)
        assert (rewritten(window(network)) - network(window(network))).abs().max() > 100 * ROUNDING


@pytest.mark.parametrize("name", REWRITES)
def test_the_original_is_not_touched(name):
    network = random_network("I5T3")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    REWRITES[name](network)
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("variant", ["I5T3", "LSTM-sub", "Spatial-sub"])
def test_no_projection_is_left(variant):
    network = random_network(variant)
    assert len(operators(network, nn.Conv2d)) - len(operators(fold_projections(network), nn.Conv2d)) == 4


def test_merged_gates_are_one_convolution_on_x_and_one_on_h():
    cell = merge_gates(DeblurNetwork(VARIANTS["I5T3"])).spatial.cells[0]
    assert (cell.x_gates.out_channels, cell.h_gates.out_channels, cell.h_candidate.out_channels) == (96, 64, 32)


def test_narrow_cells_are_joined_and_wide_ones_are_not():
    narrow = DeblurNetwork(SIZES["light"])
    joined = join_cells(narrow)
    convs = operators(joined.temporal.cell, nn.Conv2d)
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(5, 12), (12, 12)] * 3
    frames = torch.rand(1, 5, 32, 48)
    assert torch.allclose(joined.eval()(frames), narrow.eval()(frames), atol=1e-6)
    assert len(join_cells(DeblurNetwork()).temporal.cells) == 3


def test_split_heads_keep_their_layer_name():
    network = apply_rewrites(random_network("I5T3"), ["split-heads"])
    assert len(operators(network, SplitHead)) == 2
    assert "temporal.generator.layer14.2.weight" in network.state_dict()


def test_canonical_leaves_the_standard_network_as_it_is():
    network = random_network("I5T3")
    assert canonical(network).state_dict().keys() == network.state_dict().keys()


def test_canonical_leaves_no_3d_convolution():
    assert operators(canonical(random_network("3D-sub")), nn.Conv3d) == []


def test_the_command_offers_all_of_them_in_their_order():
    assert tuple(REWRITES) == export_options.REWRITES
