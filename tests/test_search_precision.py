"""search: finds what fits the budget, says when nothing does, and writes what to_qdq reads."""

import json
import math
from xml.etree import ElementTree

import av
import numpy as np
import onnx
import pytest
from measured_ranges import measured_ranges
from signed import save_signed

from calibration.ranges import Ranges
from export import search_precision
from export.compare import precision_trials
from export.compare.precision_trials import PrecisionBench, SearchOptions
from export.export_options import ExportOptions
from export.graph.layer_cost import measured_costs, modelled_costs, total
from export.graph.layer_precision import layers, read_precisions
from export.graph.qdq_rules import QdqOptions, quantize
from export.network.exporter import export_onnx
from export.shipped_clips import CLIPS
from runtime import Engine, InputError

CLIP = CLIPS / "kodak_blurry.mp4"
SMALL = ["--windows", "1", "--crop", "64", "64", "--rest", "fp32"]


@pytest.fixture(scope="module")
def ranges(tiny_model):
    return measured_ranges(tiny_model)


def run(tiny_model, ranges, folder, *arguments):
    output = folder / "precision.json"
    command = [
        "--onnx",
        str(tiny_model),
        "--ranges",
        str(ranges),
        "--clips",
        str(CLIP),
        "--output",
        str(output),
        *SMALL,
        *arguments,
    ]
    return search_precision.main(command), output


GENEROUS = ["--budget", "3dB", "--min-psnr", "1", "--every-layer"]


@pytest.fixture(scope="module")
def generous(tiny_model, ranges, tmp_path_factory):
    """What a search with a generous budget writes: (precision file, chart)."""
    folder = tmp_path_factory.mktemp("generous")
    status, output = run(tiny_model, ranges, folder, *GENEROUS, "--chart", str(folder / "chart.svg"))
    assert status == 0
    return output, folder / "chart.svg"


def test_generous_budget_takes_every_candidate(generous):
    output, chart = generous
    found = json.loads(output.read_text())
    chosen = {row["layer"] for row in found["sensitivities"] if row["chosen"]}
    assert chosen == {row["layer"] for row in found["sensitivities"] if not row["excluded"]}
    assert chosen
    assert {name for name, word in read_precisions(output).items() if word == "int8"} == chosen
    assert [point["name"] for point in found["pareto"]] == ["fp32", "bf16", "int8, every candidate"]
    assert found["pareto"][0]["parity"] is None  # equal
    assert found["pareto"][-1]["time"] < found["pareto"][0]["time"]
    drawn = [title.text for title in ElementTree.parse(chart).iter("{http://www.w3.org/2000/svg}title")][1:]
    assert len(drawn) == len(found["sensitivities"])
    assert sum("quantised" in text for text in drawn) == len(chosen)


def test_chart_of_another_suffix_is_refused_before_the_search(tiny_model, ranges, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tiny_model, ranges, tmp_path, "--chart", "chart.png")
    assert "expected a name that ends with .svg" in capsys.readouterr().err


def test_budget_between_is_met_and_used(tiny_model, ranges, generous, tmp_path):
    least = json.loads(generous[0].read_text())["pareto"][-1]["parity"] + 6
    status, output = run(tiny_model, ranges, tmp_path, *GENEROUS, "--min-psnr", str(least))
    found = json.loads(output.read_text())
    assert status == 0
    assert 0 < sum(row["chosen"] for row in found["sensitivities"]) < sum(not row["excluded"] for row in found["sensitivities"])
    assert found["pareto"][-1]["name"] == "mixed, within the budget"
    assert found["pareto"][-1]["parity"] >= least


def test_budget_that_nothing_meets_says_so(tiny_model, ranges, tmp_path, capsys):
    status, output = run(tiny_model, ranges, tmp_path, "--min-psnr", "190", "--every-layer")
    assert status == 0
    assert set(read_precisions(output).values()) == {"fp32"}
    assert "no layer fits in int8: the answer is fp32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--crop", "60", "64"], "expected multiples of 8"),
        (["--windows", "0"], "over 0 windows, expected 0 or more, over 1 or more"),
        (["--ranges", "none.json"], "none.json"),
        (["--clips", "nowhere"], "no such file or folder"),
        (["--layer-times", "nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_wrong_input_is_one_line(tiny_model, ranges, tmp_path, capsys, arguments, message):
    status, output = run(tiny_model, ranges, tmp_path, *arguments)
    assert status == 1
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not output.exists()


@pytest.mark.parametrize(("name", "message"), [("nowhere/p.json", "cannot write to the folder"), ("", "is a folder")])
def test_output_is_tried_before_the_search(tiny_model, ranges, tmp_path, capsys, monkeypatch, name, message):
    monkeypatch.setattr(search_precision, "search", lambda *_: pytest.fail("searched"))
    status, _ = run(tiny_model, ranges, tmp_path, "--output", str(tmp_path / name))
    assert status == 1
    assert message in capsys.readouterr().err


def test_a_search_that_fails_leaves_nothing(tiny_model, ranges, tmp_path, monkeypatch):
    (tmp_path / "precision.json").write_text("of before")
    status, output = run(tiny_model, ranges, tmp_path, "--clips", "nowhere")
    assert status == 1
    assert output.read_text() == "of before"
    assert list(tmp_path.iterdir()) == [output]


def test_a_point_beside_fp16_is_rounded_as_fp16(tiny_model, ranges, tmp_path):
    model, measured = onnx.load(tiny_model), Ranges.load(ranges)
    options = SearchOptions(tiny_model, ranges, CLIP, limit=1, crop=(64, 64))
    with PrecisionBench(model, measured, options, None) as bench:
        found = bench.point("fp16", [], "fp16")
        save_signed(quantize(model, measured, bench.precisions([], "fp16"), QdqOptions(rest="fp16")), tmp_path / "fp16.onnx")
        with Engine(tmp_path / "fp16.onnx", "onnxruntime") as engine:  # in fp32 between its operators
            unrounded = precision_trials._parity([engine.run(window) for window in bench._windows], bench._expected)
    assert options.min_psnr < found.parity < unrounded - 3


def test_parity_is_that_of_the_video_which_loses_most(tiny_model, ranges):
    """A clip that is hardly blurred hides what the blurry video of the truth shows."""
    model, measured = onnx.load(tiny_model), Ranges.load(ranges)
    options = SearchOptions(tiny_model, ranges, CLIPS / "bunny.mp4", limit=1, crop=(64, 64))
    with PrecisionBench(model, measured, options, None) as bench:
        generators = [name for name in bench.costs if "generator" in name]
        found = bench.point("int8", generators, "fp32").parity
        both = ((bench._windows, bench._expected), (bench._blurry, bench._expected_sharp))
        chosen = bench.precisions(generators, "fp32")
        apart = [precision_trials._parity(bench._run(chosen, "fp32", windows), expected) for windows, expected in both]
    assert found == min(apart) < max(apart)


def test_models_of_codes_are_searched(tiny_checkpoint, tmp_path, capsys):
    model = export_onnx(ExportOptions(tiny_checkpoint, output=tmp_path / "u8.onnx", io="u8")).path
    ranges = measured_ranges(model)
    status, output = run(model, ranges, tmp_path, "--budget", "3dB", "--min-psnr", "20")
    assert status == 0
    assert "int8" in read_precisions(output).values()
    assert "next: videodeblur quantize --onnx" in capsys.readouterr().out


def clip(path, frames, size=(64, 48)):
    """A video of noise; the luma of a frame is the same in every video of this size."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "gray"
        for number in range(frames):
            luma = np.random.default_rng(number).integers(0, 256, (size[1], size[0]), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(luma, "gray")))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize(("frames", "size"), [(11, (64, 48)), (12, (48, 64))])
def test_truth_of_two_videos_that_do_not_belong_together_is_refused(tmp_path, frames, size):
    truth = clip(tmp_path / "blurry.mkv", 12), clip(tmp_path / "sharp.mkv", frames, size)
    with pytest.raises(InputError, match=r"blurry.mkv has 12 frames of 64x48, .* expected the same video, blurry and sharp"):
        precision_trials._truth_windows(5, SearchOptions(CLIP, CLIP, CLIP, truth=truth))


def test_truth_windows_are_spread_and_the_same_in_both(tmp_path):
    pair = clip(tmp_path / "blurry.mkv", 31), clip(tmp_path / "sharp.mkv", 31)
    blurry, sharp = precision_trials._truth_windows(5, SearchOptions(CLIP, CLIP, CLIP, truth=pair, limit=2, crop=(64, 64)))
    assert [window.shape for window in blurry] == [(1, 5, 48, 64)] * 2
    expected = [
        np.stack([np.random.default_rng(start + i).integers(0, 256, (48, 64), np.uint8) for i in range(5)]) for start in (0, 15)
    ]
    for window, other, codes in zip(blurry, sharp, expected, strict=True):
        np.testing.assert_array_equal(window, other)
        np.testing.assert_allclose(window[0], codes / 255, atol=1e-6)


def test_what_is_no_number_passes_no_gate():
    zeros = np.zeros((1, 5, 8, 8), np.float32)
    assert math.isinf(precision_trials._parity([zeros], [zeros]))
    assert math.isnan(precision_trials._parity([zeros * np.nan], [zeros]))


def test_unknown_precision():
    with pytest.raises(InputError, match="expected one of int8, fp8"):
        SearchOptions(CLIP, CLIP, CLIP, precision="int4")


def test_modelled_cost_is_compute_or_traffic(tiny_model):
    model = onnx.load(tiny_model)
    costs = modelled_costs(model, 64, 64)
    assert list(costs) == list(layers(model))
    head = costs["temporal.generator.layer14"]
    assert head.macs == 64 * 64 * 9 * 32 * 12
    assert head.times["fp32"] == pytest.approx(max(head.macs, 64 * 64 * (32 + 12) * 4 * 20))
    assert total(costs, dict.fromkeys(costs, "int8")) < total(costs, dict.fromkeys(costs, "fp32"))


def test_measured_times_replace_the_model(tiny_model, tmp_path):
    model, path = onnx.load(tiny_model), tmp_path / "times.json"
    path.write_text(json.dumps({"c1": {"fp32": 2.0, "int8": 3.0}}))
    costs = measured_costs(model, 64, 64, path)
    assert costs["c1"].saved("int8", "fp32") == -1.0
    assert math.isfinite(costs["r1.0"].times["int8"])
    path.write_text(json.dumps({"c99": {"fp32": 2.0}}))
    with pytest.raises(InputError, match="c99"):
        measured_costs(model, 64, 64, path)
