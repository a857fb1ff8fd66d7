"""benchmarks/sizes.py: every model through whole videos in one run, the last one is what the others are compared with."""

import shutil

from benchmarks import sizes
from export.shipped_clips import DEFAULT_CLIP


def test_models_run_interleaved_and_are_compared_with_the_last(tiny_model, tmp_path, capsys):
    other = shutil.copy(tiny_model, tmp_path / "other.onnx")
    arguments = [str(DEFAULT_CLIP), str(tiny_model), str(other), "--frames", "2", "--size", "64x48", "--rounds", "1"]
    assert sizes.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 frames of 64x48, file to file, on ")
    assert lines[2].startswith(tiny_model.name)
    assert lines[3].startswith("other.onnx")
    assert lines[3].endswith("1.00 (1.00 to 1.00)")
