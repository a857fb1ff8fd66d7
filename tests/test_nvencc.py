"""NVEncC's graph: RGB of five frames in, of the middle one out, its luma that of the luma path and its colour the same."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export.compare.centre_frame import by_the_luma_path, compare_centre_frame, rgb_windows
from export.compare.parity import ParityError
from export.export_options import MATRICES, ExportOptions
from export.graph.centre_frame_graph import centre_frame_graph
from export.graph.opset17 import lower_to_opset17
from export.network.nvencc import export_for_nvencc
from export.to_onnx import main
from runtime import Engine, InputError, ModelError
from runtime.pixels import rgb

CLIP = Path(__file__).resolve().parents[1] / "export" / "clips" / "bunny.mp4"
SIZE = (61, 83)  # which has to be padded


@pytest.fixture(scope="module")
def window():
    """Real RGB, (F, 3, H, W) uint8."""
    return rgb_windows(CLIP, 5, 1, *SIZE)[0]


def middle_frame(model, window):
    """As NVEncC runs it: (3, H, W) float."""
    planes = np.concatenate([frame.astype(np.float32) / 255 for frame in window])[None]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (name,) = [node.name for node in session.get_inputs()]
    return session.run(None, {name: planes})[0][0]


def graph_of(tiny_model, matrix, **size):
    return centre_frame_graph(onnx.load(tiny_model), 5, MATRICES[matrix], 8, **size)


def test_bt601_is_the_luma_path_of_rgb_pictures(tiny_model, window):
    """By the code with which `run` reads and writes RGB, in 16 bits."""
    planes = [rgb.to_ycc(frame.transpose(1, 2, 0)) for frame in window]
    with Engine(tiny_model, "onnxruntime", "fp32") as engine:
        sharp = engine.run(np.stack([luma for luma, _, _ in planes])[None], 16, "full")[0, 2]
    expected = rgb.to_rgb(sharp, *planes[2][1:], np.uint8).transpose(2, 0, 1)
    found = np.clip(np.rint(middle_frame(graph_of(tiny_model, "bt601"), window) * 255), 0, 255)
    assert np.abs(found - expected).max() <= 1
    assert np.abs(found - window[2]).max() > 1  # the network did something


@pytest.mark.parametrize("matrix", MATRICES)
def test_luma_is_the_networks_and_colour_differences_are_kept(matrix, tiny_model, window):
    weights = np.array(MATRICES[matrix], np.float32)
    luma = np.einsum("fchw,c->fhw", window.astype(np.float32) / 255, weights)
    with Engine(tiny_model, "onnxruntime", "fp32") as engine:
        sharp = engine.run(luma[None])[0, 2]
    found = middle_frame(graph_of(tiny_model, matrix), window)
    made = np.einsum("chw,c->hw", found, weights)
    assert np.abs(made - sharp).max() < 1e-5
    assert np.abs((found - made) - (window[2] / 255 - luma[2])).max() < 1e-5


def test_the_matrices_differ(tiny_model, window):
    assert (
        np.abs(middle_frame(graph_of(tiny_model, "bt601"), window) - middle_frame(graph_of(tiny_model, "bt709"), window)).max() > 0
    )


@pytest.mark.parametrize("size", [SIZE, (64, 96)], ids=["padded", "fitting"])
def test_older_opset_and_any_size(size, tiny_model):
    window = rgb_windows(CLIP, 5, 1, *size)[0]
    model = graph_of(tiny_model, "bt709")
    lowered = lower_to_opset17(model)
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 15, 0, 0]
    assert [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim] == [1, 3, 0, 0]
    assert np.array_equal(middle_frame(model, window), middle_frame(lowered, window))


def test_a_graph_that_is_another_is_refused(tiny_model, window, tmp_path):
    onnx.save(graph_of(tiny_model, "bt709"), tmp_path / "m.onnx")
    agreement = compare_centre_frame(tmp_path / "m.onnx", tiny_model, window[None], MATRICES["bt709"])
    assert agreement.most <= 1
    brighter = window.copy()
    brighter[0] = 255
    assert not np.array_equal(by_the_luma_path(tiny_model, brighter, MATRICES["bt709"]), window[2])
    with pytest.raises(ParityError, match="codes of 8 bits off the luma path, expected at most 1"):
        compare_centre_frame(tmp_path / "m.onnx", tiny_model, window[None], (0.0, 0.0, 1.0))


@pytest.mark.slow
def test_export_lists_what_it_wrote_beside_what_was_there(tiny_checkpoint, tmp_path, capsys):
    others = {"artcnn_c4f32": {"path": "artcnn/ArtCNN_C4F32.onnx"}, "deblur_1": {"path": "old.onnx"}}
    (tmp_path / "models.json").write_text(json.dumps({"version": 1, "models": others}))
    path = tmp_path / "Deblur.1.onnx"
    size = ["--height", "60", "--width", "84"]
    assert main([str(tiny_checkpoint), "--for", "nvencc", "--matrix", "bt601", "-o", str(path), *size]) == 0
    listed = json.loads((tmp_path / "models.json").read_text())
    entry = {"path": "Deblur.1.onnx", "frames": 5, "colorspace": "rgb"}
    assert listed == {"version": 1, "models": {**others, "deblur_1": entry}}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["Deblur.1.onnx", "models.json"]
    model = onnx.load(path)
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 15, 60, 84]
    said = capsys.readouterr().out
    assert "bt601 RGB of 5 frames in, 1 out, 60x84" in said
    assert "by at most" in said
    with pytest.raises(ModelError):
        Engine(path)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2, "models": {}}', '{"version": 1}', '{"version": 1, "models": []}'])
def test_a_list_that_is_not_nvenccs_is_left_alone(content, tiny_checkpoint, tmp_path):
    (tmp_path / "models.json").write_text(content)
    with pytest.raises(InputError, match="export into another folder"):
        export_for_nvencc(ExportOptions(tiny_checkpoint, output=tmp_path / "m.onnx", program="nvencc"))
    assert (tmp_path / "models.json").read_text() == content


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"program": "qsvencc"}, "the program is 'qsvencc', expected nvencc"),
        ({"program": "nvencc", "matrix": "bt2020"}, "the matrix is 'bt2020', expected bt709 or bt601"),
        ({"matrix": "bt601"}, "add --for nvencc"),
        ({"program": "nvencc", "io": "u8"}, "leave out --io and --batch"),
        ({"program": "nvencc", "batch": 2}, "leave out --io and --batch"),
    ],
)
def test_options_that_contradict_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        ExportOptions(**options)
