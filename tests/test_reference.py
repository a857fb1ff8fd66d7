"""The PyTorch network behind the runner protocol."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import PAPER, VARIANTS, DeblurNetwork
from model.reference import TorchRunner


def network(variant):
    torch.manual_seed(0)
    built = DeblurNetwork(replace(VARIANTS[variant], widths=PAPER.divided(16)))
    torch.nn.init.normal_(built.r2.weight, std=0.1)
    return built


@pytest.mark.parametrize("variant", ["I5T3", "3D-sub", "LSTM-sub", "I1T1"])
def test_runs_the_network_padded_by_reflection_and_cropped(variant):
    built = network(variant)
    window = np.random.default_rng(0).random((2, built.config.frames, 13, 21), dtype=np.float32)
    padded = np.pad(window, ((0, 0), (0, 0), (0, 3), (0, 3)), mode="reflect")
    with torch.no_grad():
        expected = built.eval()(torch.from_numpy(padded)).numpy()[..., :13, :21]
    with TorchRunner(built) as runner:
        np.testing.assert_allclose(runner.run(window), expected, atol=1e-5)


def test_bf16_is_near_and_not_the_same():
    window = np.random.default_rng(0).random((1, 5, 16, 16), dtype=np.float32)
    with TorchRunner(network("I5T3")) as exact, TorchRunner(network("I5T3"), "bf16") as rough:
        difference = np.abs(exact.run(window) - rough.run(window)).max()
    assert 0 < difference < 0.05


def test_closed_and_unknown():
    runner = TorchRunner(network("I5T3"))
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="closed"):
        runner.run(np.zeros((1, 5, 16, 16), np.float32))
    with pytest.raises(ValueError, match="expected one of fp32, bf16"):
        TorchRunner(network("I5T3"), "fp8")
