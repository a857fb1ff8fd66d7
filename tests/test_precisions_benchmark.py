import pytest

from benchmarks import precisions
from benchmarks.precisions import CLIP, middle_window
from runtime.errors import InputError


def test_prints_time_and_parity_of_every_candidate(tiny_model, capsys):
    specs = [f"{tiny_model}@onnxruntime", f"{tiny_model}@openvino:fp32"]
    assert precisions.main([*specs, "--rounds", "2", "--size", "64", "96"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1x5x64x96" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == specs
    assert lines[2].endswith("inf dB")
    assert float(lines[3].split()[-2]) > 100


def test_a_window_that_the_clip_lacks_is_refused():
    assert middle_window(CLIP, 64, 96).shape == (1, 5, 64, 96)
    with pytest.raises(InputError, match="4000x96"):
        middle_window(CLIP, 4000, 96)
