"""verify: equal graphs pass, others fail and are shown, and layers tell where they part."""

import json
import math
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from signed import save_signed

from export import verify
from export.compare.layer_drift import layer_drift
from export.compare.luma import as_codes_hold, graph_input, run_luma
from export.compare.open_any import open_any
from export.export_options import ExportOptions
from export.network.exporter import export_onnx
from runtime import InputError
from runtime.bundle import MIN_PARITY_OF_CODES
from runtime.files.model_spec import parse
from runtime.video import read_luma

CLIP = "export/clips/kodak_blurry.mp4"


@pytest.fixture(autouse=True)
def at_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture(scope="module")
def changed(tiny_model, tmp_path_factory):
    """The tiny model with one layer of its spatial generator damaged, and that layer's name."""
    proto = onnx.load(tiny_model)
    weight = next(w for w in proto.graph.initializer if w.name == "spatial.generator.layer9.weight")
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.5)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    path = tmp_path_factory.mktemp("changed") / "changed.onnx"
    save_signed(proto, path)
    return path, "spatial.generator.layer9"


def test_backends_of_one_model_pass(tiny_model, capsys):
    assert verify.main([f"{tiny_model}@onnxruntime", f"{tiny_model}@openvino:fp32", "--clips", CLIP, "--windows", "2"]) == 0
    printed = capsys.readouterr().out
    assert "meets the 100 dB asked for" in printed
    assert printed.count("kodak_blurry.mp4, frames") == 2


def test_identical_results_are_infinite_and_json_says_null(tiny_model, capsys):
    spec = f"{tiny_model}@onnxruntime"
    assert verify.main([spec, spec, "--clips", CLIP, "--windows", "1", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["passed"] is True
    assert verdict["psnr"] is None


def test_damaged_model_fails_and_its_worst_window_is_shown(tiny_model, changed, tmp_path, capsys):
    path, _ = changed
    picture = tmp_path / "worst.png"
    arguments = [f"{tiny_model}@onnxruntime", f"{path}@onnxruntime", "--clips", CLIP, "--windows", "2", "--worst", str(picture)]
    assert verify.main(arguments) == 1
    assert "is UNDER the 100 dB asked for" in capsys.readouterr().out
    assert read_luma(picture).shape == (320, 3 * 480)
    assert verify.main([*arguments, "--min-psnr", "1"]) == 0


def test_layers_tell_where_graphs_part(tiny_model, changed):
    path, damaged = changed
    window = np.random.default_rng(0).random((1, 5, 32, 32), dtype=np.float32)
    rows = layer_drift(onnx.load(tiny_model), onnx.load(path), [window])
    before = [row.sqnr for row in rows[: [row.layer for row in rows].index(damaged)]]
    assert before
    assert all(math.isinf(value) for value in before)
    assert next(row.sqnr for row in rows if row.layer == damaged) < 12


def test_layers_are_printed(tiny_model, changed, capsys):
    specs = [f"{tiny_model}@onnxruntime", f"{changed[0]}@onnxruntime"]
    verify.main([*specs, "--clips", CLIP, "--windows", "1", "--layers"])
    assert "spatial.generator.layer9" in capsys.readouterr().out


def test_json_stays_json_beside_the_layers(tiny_model, capsys):
    spec = f"{tiny_model}@onnxruntime"
    assert verify.main([spec, spec, "--clips", CLIP, "--windows", "1", "--json", "--layers"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["passed"] is True
    assert "SQNR of each convolution's output" in told.err


@pytest.mark.parametrize(
    ("spec", "meaning"),
    [
        ("a.onnx", ("a.onnx", "", "")),
        ("a.onnx@openvino:bf16", ("a.onnx", "openvino", "bf16")),
        ("me@home/a.onnx", ("me@home/a.onnx", "", "")),
        ("me@home/a.onnx@onnxruntime-cuda", ("me@home/a.onnx", "onnxruntime-cuda", "")),
        ("x@2.bundle", ("x@2.bundle", "", "")),
    ],
)
def test_only_what_looks_like_a_backend_is_one(spec, meaning):
    path, *how = parse(spec)
    assert (str(path), *how) == meaning


def test_literal_takes_no_precision(tiny_model):
    with pytest.raises(InputError, match="leave the precision out"), open_any(f"{tiny_model}@literal:fp32"):
        pass


def test_checkpoint_is_the_network_itself(tiny_checkpoint, tiny_model, capsys):
    assert verify.main([str(tiny_checkpoint), f"{tiny_model}@onnxruntime", "--clips", CLIP, "--windows", "1"]) == 0
    assert "torch fp32" in capsys.readouterr().out


@pytest.fixture(scope="module")
def codes_model(tiny_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("codes") / "u8.onnx"
    return export_onnx(ExportOptions(tiny_checkpoint, output=path, io="u8")).path


@pytest.mark.parametrize("reference", ["tiny_checkpoint", "tiny_model", "codes_model"])
def test_models_of_codes_are_held_to_floats_in_codes(reference, codes_model, request, capsys):
    given = request.getfixturevalue(reference)
    assert verify.main([str(given), f"{codes_model}@onnxruntime", "--clips", CLIP, "--windows", "1", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["min_psnr"] == MIN_PARITY_OF_CODES
    assert verdict["psnr"] is None or verdict["psnr"] > 70  # rounded to 8 bits alone it were 59


def test_layers_of_models_of_codes(codes_model, capsys):
    spec = f"{codes_model}@onnxruntime"
    assert verify.main([spec, spec, "--clips", CLIP, "--windows", "1", "--layers"]) == 0
    assert "inf dB  c1" in capsys.readouterr().out


def test_luma_through_16_bit_codes():
    contract = SimpleNamespace(io="u16", bits=10, color_range="limited")
    luma = np.random.default_rng(0).random((1, 5, 8, 8), np.float32)
    assert graph_input(contract, luma).shape == (1, 5, 8, 8, 2)
    held = as_codes_hold(luma, None, contract)
    np.testing.assert_array_equal(as_codes_hold(held, contract), held)
    np.testing.assert_array_equal(run_luma(SimpleNamespace(contract=contract, run=lambda codes: codes), luma), held)
    assert 0 < np.abs(held - luma).max() < 0.6 / 876


def test_default_threshold_is_that_of_the_precision(tiny_model):
    with open_any(f"{tiny_model}@onnxruntime") as opened:
        assert (opened.precision, opened.frames) == ("fp32", 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.onnx", "none.onnx", "--clips", CLIP], "No such file"),
        (["{model}", "{model}", "--clips", "nowhere"], "no such file or folder"),
        (["{model}", "{model}", "--clips", CLIP, "--windows", "0"], "expected 1 or more"),
        (["{checkpoint}@openvino", "{model}", "--clips", CLIP], "runs in torch only"),
        (["{model}", "{model}", "--clips", CLIP, "--windows", "1", "--worst", "/nowhere/w.png"], "cannot be written"),
    ],
)
def test_wrong_input_is_one_line(tiny_model, tiny_checkpoint, capsys, arguments, message):
    filled = [text.format(model=tiny_model, checkpoint=tiny_checkpoint) for text in arguments]
    assert verify.main(filled) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ")
    assert message in error[-1]


def test_layers_need_two_graphs(tiny_model, tiny_checkpoint):
    options = verify.VerifyOptions(str(tiny_checkpoint), str(tiny_model), CLIP)
    with pytest.raises(InputError, match=r"name the \.onnx file"):
        verify.drift_table(options)
