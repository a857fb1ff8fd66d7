"""videodeblur calibrate: every tensor of a real graph, measured operator by operator, whatever the batches and their order."""

import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from calibration import collect_ranges
from calibration.clips import windows
from calibration.collect_ranges import CollectOptions, collect, main, table
from calibration.operator_runner import OperatorRunner
from calibration.ranges import Ranges
from calibration.tensors import activations, scaled_tensors
from export.graph.typed_graph import retype
from runtime.errors import BackendError, InputError, ModelError
from runtime.files.contract import METADATA_KEY, Contract, read_contract

HEIGHT, WIDTH = 40, 64
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two moving scenes of 14 frames: eight of each are for calibration."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    for clip in ("a", "b"):
        (root / clip).mkdir()
        scene = np.kron(rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4 + 14), np.uint8), np.ones((4, 4), np.uint8))
        for number in range(14):
            Image.fromarray(scene[:, 4 * number : 4 * number + WIDTH]).save(root / clip / f"{number:05d}.png")
    return root


@pytest.fixture(scope="module")
def ranges(data, tiny_model):
    return collect(CollectOptions(data, tiny_model, windows=8, crop=None))


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """blurry -> conv "c1" -> tanh -> conv "c2" -> sharp, for what does not depend on the network."""
    rng = np.random.default_rng(5)

    def conv(data, name, made):
        return onnx.helper.make_node("Conv", [data, f"{name}.weight"], [made], name=f"{name}/Conv", pads=[1, 1, 1, 1])

    nodes = [conv("blurry", "c1", "a"), onnx.helper.make_node("Tanh", ["a"], ["b"], name="tanh"), conv("b", "c2", "sharp")]
    shapes = {"c1.weight": (4, 5, 3, 3), "c2.weight": (5, 4, 3, 3)}
    weights = [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 5, "h", "w"]) for name in ("blurry", "sharp")]
    graph = onnx.helper.make_graph(nodes, "small", values[:1], values[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    contract = Contract(5, 8, 2, "f32", None, None, None, None, None, "fp32", "ab" * 32)
    model.metadata_props.add(key=METADATA_KEY, value=contract.to_json())
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(model, path)
    return path


def taking_codes(small_path, folder, io):
    """The small model behind the conversion of 8-bit codes, or of 16-bit codes as pairs of bytes."""
    model = onnx.load(small_path)
    parts = 1 / 255 if io == "u8" else [1 / 65535, 256 / 65535]  # MatMul drops the axis of the bytes
    before = [
        onnx.helper.make_node("Cast", ["codes"], ["wide"], name="cast", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul" if io == "u8" else "MatMul", ["wide", "parts"], ["unit"], name="scale"),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array(parts, np.float32), "parts"))
    for number, node in enumerate(before):
        model.graph.node.insert(number, node)
    model.graph.node[len(before)].input[0] = "unit"
    shape = ["n", 5, "h", "w", 2][: 4 if io == "u8" else 5]
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("codes", onnx.TensorProto.UINT8, shape))
    with_contract(model, io=io, bits=8 if io == "u8" else 16, color_range="full")
    onnx.save(model, folder / "codes.onnx")
    return folder / "codes.onnx"


def facts(ranges):
    return {name: (t.extent, t.scales, t.histogram and t.histogram.counts.tolist()) for name, t in ranges.tensors.items()}


def changed(model_path, tmp_path, change):
    model = onnx.load(model_path)
    change(model)
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    return path


def with_contract(model, **fields):
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    entry.value = Contract(**{**vars(Contract.from_json(entry.value)), **fields}).to_json()


def with_weight(model, name, *values):
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[: len(values)] = values
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def test_every_tensor_is_measured(ranges, tiny_model):
    graph = onnx.shape_inference.infer_shapes(onnx.load(tiny_model)).graph
    assert list(ranges.tensors) == [tensor.name for tensor in activations(graph)]
    assert {name for name, tensor in ranges.tensors.items() if tensor.histogram is not None} == scaled_tensors(graph)
    read = {layer for tensor in ranges.tensors.values() for layer in tensor.activation.read_by}
    assert read == {node.input[1].removesuffix(".weight") for node in graph.node if node.op_type == "Conv"}
    assert {"temporal.generator.layer0", "spatial.cells.3.h_candidate", "r2"} <= read


def test_tensors_hold_what_onnx_runtime_says(ranges, data, tiny_model):
    """All tensors as outputs of the whole graph at once, on the same windows."""
    model = onnx.shape_inference.infer_shapes(onnx.load(tiny_model))
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ranges.tensors)
    inputs = {value.name for value in model.graph.input}
    names = [name for name in ranges.tensors if name not in inputs]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    for window in windows(data, 5, limit=8):
        for name, value in zip(names, session.run(names, {"blurry": window.luma[None]})):
            low[name], high[name] = min(low[name], value.min()), max(high[name], value.max())
    for name in names:
        extent = ranges.tensors[name].extent
        np.testing.assert_allclose([extent.low, extent.high], [low[name], high[name]], rtol=1e-4, atol=1e-5, err_msg=name)


def test_batch_of_one_equals_batch_of_eight(ranges, data, tiny_model):
    eight = collect(CollectOptions(data, tiny_model, windows=8, crop=None, batch=8))
    assert len(eight.windows) == 8
    assert facts(eight) == facts(ranges)


def test_order_does_not_matter(ranges, data, tiny_model, monkeypatch):
    def backwards(*args, **options):
        return reversed(list(windows(*args, **options)))

    monkeypatch.setattr(collect_ranges, "windows", backwards)
    again = collect(CollectOptions(data, tiny_model, windows=8, crop=None, batch=3))
    assert [window.first for window in again.windows] == [window.first for window in ranges.windows][::-1]
    assert facts(again) == facts(ranges)


def test_windows_are_recorded(ranges, data, tiny_model):
    expected = [(window.clip, window.first, window.sha256) for window in windows(data, 5, limit=8)]
    assert [(window.clip, window.first, window.sha256) for window in ranges.windows] == expected
    assert {(window.height, window.width) for window in ranges.windows} == {(HEIGHT, WIDTH)}
    assert ranges.checkpoint_sha256 == read_contract(tiny_model).checkpoint_sha256


def test_crops_lie_in_different_places(data, small_model):
    cropped = collect(CollectOptions(data, small_model, windows=5, crop=(16, 24)))
    assert [(w.top, w.left) for w in cropped.windows] == [(12, 20), (0, 0), (24, 40), (0, 40), (24, 0)]
    assert cropped.tensors["blurry"].extent.count == 5 * 5 * 16 * 24


def test_crops_are_padded_to_what_the_model_takes(data, small_model):
    cropped = collect(CollectOptions(data, small_model, windows=1, crop=(17, 1000)))
    assert [(w.height, w.width) for w in cropped.windows] == [(17, WIDTH)]
    assert cropped.tensors["blurry"].extent.count == 5 * 24 * WIDTH


def test_the_runner_computes_the_graph(tiny_model):
    blurry = np.random.default_rng(0).random((1, 5, 16, 24), np.float32)
    (expected,) = onnxruntime.InferenceSession(str(tiny_model)).run(["sharp"], {"blurry": blurry})
    with OperatorRunner(onnx.shape_inference.infer_shapes(onnx.load(tiny_model)), threads=1) as runner:
        np.testing.assert_allclose(dict(runner.run(blurry))["sharp"], expected, atol=1e-5)
    runner.close()
    with pytest.raises(BackendError, match="closed"):
        next(runner.run(blurry))


def test_the_runner_lets_go_of_tensors(tiny_model):
    """What is alive at the worst moment is a small part of all tensors; the rest is gone when the next operator runs."""
    blurry = np.zeros((1, 5, 64, 64), np.float32)
    alive, made, peak = {}, 0, 0
    with OperatorRunner(onnx.shape_inference.infer_shapes(onnx.load(tiny_model))) as runner:
        for name, value in runner.run(blurry):
            made += value.nbytes
            alive[name] = (weakref.ref(value), value.nbytes)
            del value
            peak = max(peak, sum(size for reference, size in alive.values() if reference() is not None))
    assert peak < made / 5


def test_all_black_clips_have_stated_scales(tiny_model, tmp_path):
    for number in range(5):
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / f"{number}.png")
    black = collect(CollectOptions(tmp_path, tiny_model))
    assert black.tensors["blurry"].extent.absmax == 0
    assert black.scale("blurry") == 1 / 127
    assert all(black.scale(name, method="mse") > 0 for name, tensor in black.tensors.items() if tensor.histogram is not None)
    black.save(tmp_path / "ranges.json")
    assert facts(Ranges.load(tmp_path / "ranges.json")) == facts(black)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(value, data, small_model, tmp_path):
    broken = changed(small_model, tmp_path, lambda model: with_weight(model, "c2.weight", value))
    with pytest.raises(ModelError, match=r"holds NaN or infinite numbers in c2\.weight"):
        collect(CollectOptions(data, broken, crop=None))


def test_overflow_in_the_graph_is_found(data, small_model, tmp_path):
    broken = changed(small_model, tmp_path, lambda model: with_weight(model, "c2.weight", 3e38, 3e38))
    with pytest.raises(ModelError, match=r"layer c2\) has \d+ NaN and \d+ infinite values on clip a, frames from 0"):
        collect(CollectOptions(data, broken, crop=None))


def test_models_in_other_precisions_are_refused(data, small_model, tmp_path):
    typed = retype(onnx.load(small_model), "fp16")
    with_contract(typed, precision="fp16")
    onnx.save(typed, tmp_path / "half.onnx")
    with pytest.raises(ModelError, match=r"is in fp16, expected fp32"):
        collect(CollectOptions(data, tmp_path / "half.onnx"))


def test_fixed_sizes(data, small_model, tmp_path):
    fixed = changed(small_model, tmp_path, lambda model: with_contract(model, height=24, width=32))
    measured = collect(CollectOptions(data, fixed, windows=2))
    assert {(w.height, w.width) for w in measured.windows} == {(24, 32)}
    larger = changed(small_model, tmp_path, lambda model: with_contract(model, height=80, width=32))
    with pytest.raises(InputError, match=r"got windows \(1, 5, 40, 32\), the model is fixed at \(1, 5, 80, 32\)"):
        collect(CollectOptions(data, larger))


@pytest.mark.parametrize("io", ["u8", "u16"])
def test_models_that_take_codes(io, data, small_model, tmp_path):
    floats = collect(CollectOptions(data, small_model, windows=2, crop=None))
    codes = collect(CollectOptions(data, taking_codes(small_model, tmp_path, io), windows=2, crop=None))
    assert codes.tensors["unit"].extent.high == pytest.approx(floats.tensors["blurry"].extent.high, abs=1e-6)
    for name in ("a", "b", "sharp"):
        ours, theirs = codes.tensors[name].extent, floats.tensors[name].extent
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-3, abs=1e-4)


def test_empty_folders(small_model, tmp_path):
    with pytest.raises(InputError, match="holds no clips"):
        collect(CollectOptions(tmp_path, small_model))


@pytest.mark.parametrize("options", [{"windows": 0}, {"batch": 0}, {"crop": (0, 8)}, {"method": "best"}, {"percentile": 101}])
def test_options_out_of_range(options):
    with pytest.raises(InputError, match="expected"):
        CollectOptions(Path("data"), Path("m.onnx"), **options)


def test_the_table_has_a_line_per_layer(ranges):
    lines = table(ranges).splitlines()
    assert lines[0].startswith(f"8 windows, {len(ranges.tensors)} tensors")
    assert len(lines) == 12
    assert len({line.split()[-1] for line in lines[2:]}) == 10
    magnitudes = [float(line.split()[0]) for line in lines[2:]]
    assert magnitudes == sorted(magnitudes, reverse=True)


def test_command(data, tiny_model, tmp_path, capsys):
    output = tmp_path / "ranges.json"
    settings = ["--onnx", str(tiny_model), "--output", str(output), "--windows", "2", "--crop", "16x24", "--method", "percentile"]
    assert main([str(data), *settings]) == 0
    said = capsys.readouterr().out
    assert "2 windows" in said
    assert f"next: videodeblur quantize --onnx {tiny_model} --ranges {output} --precision int8" in said
    loaded = Ranges.load(output)
    loaded.check(onnx.load(tiny_model))
    assert loaded.method == "percentile"


def test_command_errors_are_one_line(small_model, tmp_path):
    command = [sys.executable, str(ROOT / "videodeblur"), "calibrate", str(tmp_path), "--onnx", str(small_model)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {tmp_path} holds no clips")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
