import pytest
import torch

from benchmarks.studies import ideas
from benchmarks.studies.up_and_convolve import RING, forms


def test_every_way_is_the_same_network(tiny_model, capsys):
    assert ideas.main([str(tiny_model), "--size", "96x64", "--iterations", "1", "--precision", "fp32"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert not any(" to " in line for line in lines)  # one round has no spread
    assert len(lines) == 7
    for line in lines:
        assert float(line.split()[-2]) > (30 if line.startswith("four tiles") else 100), line


def test_a_size_that_cannot_be_halved_is_refused(tiny_model, capsys):
    assert ideas.main([str(tiny_model), "--size", "96x72"]) == 1
    assert "expected multiples of 16" in capsys.readouterr().err


@pytest.mark.parametrize("name", forms(4, 3))
def test_forms_of_upsampling_and_convolving_agree_inside(name):
    made, x = forms(4, 3), torch.rand(2, 4, 12, 10)
    with torch.inference_mode():
        difference = (made[name](x) - made["plain"](x)).abs()
    assert difference[..., RING:-RING, RING:-RING].max() < 1e-5
    if name in ("plain", "one direction mixed, shift and add"):
        assert difference.max() < 1e-5  # at the edge, too
