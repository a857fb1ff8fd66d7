"""The pipeline's benchmark, on a tiny network and a small clip."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import memory, pipeline, sizes
from benchmarks.shared.arguments import size
from runtime.errors import InputError

CLIP = Path(__file__).resolve().parents[1] / "export" / "clips" / "bunny.mp4"


def test_rates_and_peaks_are_printed(tiny_model, tmp_path, capsys):
    arguments = ["--frames", "7", "--size", "64x48", "--rounds", "2", "--lengths", "3", "--json", str(tmp_path / "figures.json")]
    assert pipeline.main([str(CLIP), "--model", str(tiny_model), *arguments]) == 0
    printed = capsys.readouterr().out
    for row in ("end to end", "engine only", "decode only", "encode only", "goal on a CPU: 0.9", "peak MB"):
        assert row in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [timing["name"] for timing in figures["timings"]] == ["end to end", "engine only", "decode only", "encode only"]
    assert all(len(timing["milliseconds"]) == 2 for timing in figures["timings"])
    assert figures["peaks"][0]["frames"] == 3


def test_models_and_the_naive_script_are_timed_in_turn(tiny_model, capsys):
    arguments = ["--naive", str(tiny_model), "--frames", "5", "--size", "64x48", "--rounds", "2"]
    assert sizes.main([str(CLIP), str(tiny_model), *arguments]) == 0
    printed = capsys.readouterr()
    header, _, ours, script = printed.out.splitlines()
    assert header.startswith("5 frames of 64x48, file to file, on ")
    assert ours.startswith("tiny.onnx ")
    assert script.startswith("tiny.onnx, naive script")
    assert "1.00 (1.00 to 1.00)" in script
    assert "openvino" in printed.err


def test_a_share_is_of_rates_in_the_same_round():
    timings = [
        pipeline.Timing(pipeline.END_TO_END, (200.0, 400.0), (390.0, 390.0)),
        pipeline.Timing(pipeline.ENGINE, (180.0, 360.0), (300.0, 300.0)),
        pipeline.Timing(pipeline.DECODE, (5.0, 5.0), (10.0, 10.0)),
        pipeline.Timing(pipeline.ENCODE, (40.0, 40.0), (65.0, 65.0)),
    ]
    options = pipeline.PipelineOptions(CLIP, CLIP, 10, 64, 48, 2, "libx264", ())
    text = pipeline.table(timings, options)
    assert "end to end is 0.90 (0.90 to 0.90) of" in text
    assert "0.80 is what decoding and encoding leave it" in text
    assert text.splitlines()[3].split()[-1] == "30.0"


def test_the_peak_is_not_that_of_the_process_that_measures(tiny_model):
    options = memory.MemoryOptions(CLIP, (3,), 64, 48, ("--model", str(tiny_model), "--codec", "libx264"))
    (before,) = memory.measure(options)
    ballast = np.ones(400 << 20, np.uint8)
    (after,) = memory.measure(options)
    assert after.peak < before.peak + 100 < ballast.nbytes / 1e6


def test_the_peak_of_a_calibration(tiny_model, capsys):
    assert memory.main([str(CLIP), "--calibrate", str(tiny_model), "--windows", "1", "2", "--crop", "64x96"]) in (0, 1)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[2:4]] == ["1", "2"]
    assert "the peak grows by" in printed[-1]


@pytest.mark.parametrize("text", ["0x0", "-3x48", "48", "1.5x2"])
def test_a_size_has_pixels(text):
    with pytest.raises(InputError, match="expected WIDTHxHEIGHT"):
        size(text)


def test_a_malformed_size_is_one_line(capsys):
    assert pipeline.main([str(CLIP), "--model", "x.onnx", "--size", "big"]) == 1
    assert capsys.readouterr().err == "error: --size is 'big', expected WIDTHxHEIGHT such as 1280x720\n"


@pytest.mark.parametrize("missing", ["--model"])
def test_what_is_required(missing, capsys):
    with pytest.raises(SystemExit):
        pipeline.main([str(CLIP)])
    assert missing in capsys.readouterr().err
