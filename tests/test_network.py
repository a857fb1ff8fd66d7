"""The reference network against the paper: sizes, cost, equations, shapes."""

import json

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch.utils.flop_counter import FlopCounterMode

from model.config import NetworkConfig
from model.convgru import ConvGRU
from model.network import DeblurNetwork, initialise
from model.variants import VARIANTS
from model.widths import PAPER, Widths

PARAMETERS = {
    "I5T3": 15_479_445,
    "I1T1": 15_469_649,
    "I3T1": 15_471_955,
    "I5T1": 15_474_261,
    "I5T5": 15_484_629,
    "I7T1": 15_476_567,
    "3D-sub": 7_878_773,
    "LSTM-sub": 7_952_757,
    "Spatial-sub": 7_934_805,
    "Temporal-sub": 7_969_173,
}


def tiny(**changes):
    torch.manual_seed(0)
    network = DeblurNetwork(NetworkConfig(widths=PAPER.divided(8), **changes)).eval()
    torch.nn.init.normal_(network.r2.weight, std=0.1)
    return network


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_count(name):
    assert sum(p.numel() for p in DeblurNetwork(VARIANTS[name]).parameters()) == PARAMETERS[name]


def test_generator_skips_add_1_18_million():
    skips = sum(p.numel() for p in DeblurNetwork(NetworkConfig(generator_skips=True)).parameters())
    assert skips - PARAMETERS["I5T3"] == 4 * 9 * 256 * 128


@pytest.mark.parametrize(("height", "width", "gflop"), [(128, 128, 43.50), (720, 1280, 2447.0)])
def test_flops(height, width, gflop):
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        DeblurNetwork()(torch.zeros(1, 5, height, width))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=1e-3)


def test_convgru_step_is_equations_3_to_6():
    torch.manual_seed(1)
    cell = ConvGRU(3, 4).double()
    x, h = torch.randn(1, 3, 6, 7).double(), torch.rand(1, 4, 6, 7).double()

    def conv(module, planes):
        weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
        padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
        return np.stack([correlate(padded, kernel, mode="valid")[0] + b for kernel, b in zip(weight, bias)])

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    xs, hs = x[0].numpy(), h[0].numpy()
    z = sigmoid(conv(cell.x_update, xs) + conv(cell.h_update, hs))
    r = sigmoid(conv(cell.x_reset, xs) + conv(cell.h_reset, hs))
    c = np.tanh(conv(cell.x_candidate, xs) + conv(cell.h_candidate, r * hs))
    np.testing.assert_allclose(cell(x, h)[0].detach().numpy(), (1 - z) * hs + z * c, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_keep_shape_at_odd_batch_and_size(name):
    config = VARIANTS[name]
    changes = {f: getattr(config, f) for f in ("frames", "cell_frames", "temporal", "spatial", "spatial_cell")}
    with torch.no_grad():
        assert tiny(**changes)(torch.rand(3, config.frames, 40, 24)).shape == (3, config.frames, 40, 24)


@pytest.mark.parametrize("change", [{"tanh_before_conv": True}, {"generator_skips": True}, {"residual": False}])
def test_every_assumption_can_be_switched(change):
    frames = torch.rand(1, 5, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(tiny(**change)(frames), tiny()(frames))


def test_residual_network_starts_as_the_identity():
    frames = torch.rand(2, 5, 16, 24)
    with torch.no_grad():
        assert torch.equal(DeblurNetwork(NetworkConfig(widths=PAPER.divided(8)))(frames), frames)
        assert not torch.equal(DeblurNetwork(NetworkConfig(widths=PAPER.divided(8), residual=False))(frames), frames)


def test_papers_initialisation():
    network = DeblurNetwork(NetworkConfig(widths=PAPER.divided(2)))
    initialise(network, "paper")
    assert network.temporal.generator.layer8.weight.std().item() == pytest.approx(0.01, rel=0.05)
    with pytest.raises(ValueError, match="scheme is 'xavier'"):
        initialise(network, "xavier")


@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (1, 5, 17, 16), (5, 16, 16)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match="divisible by 8"):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 0},
        {"frames": 3},
        {"temporal": "none"},
        {"cell_frames": ((0,), (1,))},
        {"spatial_cell": "rnn"},
    ],
)
def test_wrong_configuration_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change)) if change != {"frames": 3} else "cell_frames"):
        NetworkConfig(**change)


@pytest.mark.parametrize(
    "change", [{"temporal_state": 0}, {"merged": 1.5}, {"temporal_generator": (8,) * 13}, {"spatial_generator": 8}]
)
def test_wrong_widths_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Widths(**change)


def test_widths_that_cannot_be_divided():
    with pytest.raises(ValueError, match="divided by 3"):
        PAPER.divided(3)


@pytest.mark.parametrize("skips", [False, True])
def test_a_profile_of_widths_is_a_network(skips):
    widths = Widths(4, 8, 6, 10, tuple(range(2, 16)), tuple(range(3, 16)))
    network = DeblurNetwork(NetworkConfig(widths=widths, generator_skips=skips)).eval()
    assert network(torch.rand(1, 5, 16, 24)).shape == (1, 5, 16, 24)
    assert network.temporal.generator.layer13.out_channels == 15
    assert network.spatial.generator.layer1.out_channels == 3
    assert network.r2.in_channels == 16
    assert NetworkConfig.from_dict(json.loads(json.dumps(network.config.to_dict()))) == network.config


def test_configurations_from_before_profiles_are_read():
    old = {"frames": 5, "channel_divisor": 4}
    assert NetworkConfig.from_dict(old) == NetworkConfig(widths=PAPER.divided(4))
