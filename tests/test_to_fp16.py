import dataclasses
import json
import os
import shutil

import ml_dtypes
import numpy as np
import onnx
import pytest
from measured_ranges import measured_ranges
from onnx import helper, numpy_helper
from signed import save_signed

from calibration.fingerprints import model_hash
from calibration.operator_runner import OperatorRunner
from calibration.ranges import Ranges
from export import to_bf16, to_fp16, to_qdq, to_trt8
from export.compare.parity import compared
from export.compare.typed_file import NOTES_KEY, LostParityError, write_typed
from export.graph.bf16_in_fp32 import bf16_in_fp32
from export.graph.fp16_range import SAFE_SHARE, fp32_nodes, subnormal_weights
from export.graph.qdq_rules import QdqOptions
from export.graph.typed_graph import retype
from export.shipped_clips import DEFAULT_CLIP
from export.to_qdq import QuantizeRequest
from runtime import Engine
from runtime.errors import InputError
from runtime.files.contract import METADATA_KEY, MIN_PARITY, read_contract, read_metadata
from runtime.pixels.metrics import EQUAL


@pytest.fixture(scope="module")
def ranges_path(tiny_model):
    return measured_ranges(tiny_model)


@pytest.fixture(scope="module")
def fp16(tiny_model, ranges_path, tmp_path_factory):
    output = tmp_path_factory.mktemp("fp16") / "fp16.onnx"
    assert to_fp16.main(["--onnx", str(tiny_model), "--output", str(output), "--ranges", str(ranges_path)]) == 0
    return output


def scaled_up(model_path, layer, factor, output):
    """The same file with one layer's weight and bias larger."""
    model = onnx.load(model_path)
    for tensor in model.graph.initializer:
        if tensor.name in (f"{layer}.weight", f"{layer}.bias"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return save_signed(model, output)


def test_the_file_carries_its_contract_and_what_was_measured(fp16, tiny_model):
    before, after = read_contract(tiny_model), read_contract(fp16)
    assert after.precision == "fp16"
    assert after.parity["onnxruntime:fp16"] >= MIN_PARITY["fp16"]
    assert "openvino:fp32" in after.parity
    assert dataclasses.replace(after, precision="fp32", parity=before.parity, graph_sha256=before.graph_sha256) == before
    assert after.graph_sha256 == model_hash(onnx.load(fp16))
    assert fp16.stat().st_size < 0.6 * tiny_model.stat().st_size


def test_the_contract_tells_what_a_user_gets(fp16, tiny_model):
    window = np.random.default_rng(0).random((1, 5, 40, 56), dtype=np.float32)
    with Engine(tiny_model, "onnxruntime") as exact, Engine(fp16, "onnxruntime") as half:
        assert half.precision == "fp16"
        assert 0 < np.abs(half.run(window) - exact.run(window)).max() < 1e-3


def test_a_network_in_range_keeps_nothing_fp32(fp16):
    notes = json.loads(read_metadata(fp16)[NOTES_KEY])
    assert notes["fp32"] == {}
    assert notes["default"] == "fp16"


def test_a_tensor_near_the_limit_is_made_and_read_in_fp32_and_named(tiny_model, tmp_path, capsys):
    layer = "temporal.generator.layer3"
    loud = scaled_up(tiny_model, layer, 2e4, tmp_path / "loud.onnx")
    output = tmp_path / "fp16.onnx"
    assert to_fp16.main(["--onnx", str(loud), "--output", str(output), "--ranges", str(measured_ranges(loud))]) == 0
    assert f"fp32: {layer}/Conv: makes {layer}/Conv_output_0, which reached" in capsys.readouterr().out
    kept = json.loads(read_metadata(output)[NOTES_KEY])["fp32"]
    assert f"{layer}/Conv" in kept
    assert "temporal.generator.layer4/Conv" in kept  # it reads what is too large
    assert f"{layer[:-1]}2/Conv" not in kept
    with Engine(output, "onnxruntime") as engine:
        assert np.isfinite(engine.run(np.full((1, 5, 16, 16), 0.5, np.float32))).all()


def test_the_safe_share_leaves_room_for_other_clips(tiny_model, ranges_path):
    model, ranges = onnx.load(tiny_model), Ranges.load(ranges_path)
    name = "c1/Conv_output_0"

    def with_absmax(value):
        tensor = ranges.tensors[name]
        extent = dataclasses.replace(tensor.extent, high=value)
        return dataclasses.replace(ranges, tensors={**ranges.tensors, name: dataclasses.replace(tensor, extent=extent)})

    limit = SAFE_SHARE * 65504
    assert fp32_nodes(model, with_absmax(limit * 0.999)) == {}
    assert list(fp32_nodes(model, with_absmax(limit))) == ["c1/Conv", "LeakyRelu"]


def test_a_weight_beyond_fp16_keeps_its_layer_fp32(tiny_model, ranges_path):
    model = onnx.load(tiny_model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "c1.weight")
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, 1e5, np.float32), weight.name))
    kept = fp32_nodes(model, Ranges.load(ranges_path))
    assert kept == {"c1/Conv": "reads c1.weight, which holds 1e+05"}
    retype(model, "fp16", dict.fromkeys(kept, "fp32"))


def test_subnormal_weights_are_counted(tiny_model):
    model = onnx.load(tiny_model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "c2.weight")
    values = np.zeros(weight.dims, np.float32)
    values.flat[: values.size // 4] = 1e-6
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    assert subnormal_weights(retype(model, "fp16"))["c2.weight"] == 0.25


def test_ranges_of_another_model_are_refused(tiny_model, tmp_path, capsys):
    other = scaled_up(tiny_model, "c1", 0.5, tmp_path / "other.onnx")
    output = tmp_path / "fp16.onnx"
    assert to_fp16.main(["--onnx", str(other), "--output", str(output), "--ranges", str(measured_ranges(tiny_model))]) == 1
    assert "other weights" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("content", ["", "{}", '{"kind": "videodeblur.ranges", "schema": 99}'])
def test_corrupt_ranges_are_refused(tiny_model, tmp_path, content, capsys):
    broken = tmp_path / "ranges.json"
    broken.write_text(content)
    arguments = ["--onnx", str(tiny_model), "--output", str(tmp_path / "out.onnx"), "--ranges", str(broken)]
    assert to_fp16.main(arguments) == 1
    assert "ranges.json" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_without_ranges_the_clip_is_scanned(tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(to_fp16, "SCANNED_WINDOWS", 1)
    assert to_fp16.main(["--onnx", str(tiny_model), "--output", str(tmp_path / "fp16.onnx")]) == 0
    assert f"scanning 1 windows of {DEFAULT_CLIP.name}" in capsys.readouterr().err


def test_bf16_is_judged_literally_on_any_cpu(tiny_model, tmp_path, capsys):
    output = tmp_path / "bf16.onnx"
    assert to_bf16.main(["--onnx", str(tiny_model), "--output", str(output)]) == 0
    contract = read_contract(output)
    assert contract.precision == "bf16"
    assert next(iter(contract.parity)) == "literal:bf16"
    assert MIN_PARITY["bf16"] <= contract.parity["literal:bf16"] < contract.parity["openvino:fp32"]  # which rounds weights only
    assert not any(name.startswith("onnxruntime") for name in contract.parity)
    assert "onnxruntime does not run this file" in capsys.readouterr().out


def rounded(values):
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def test_bf16_is_rounded_after_every_operator(tmp_path):
    """conv1x1 -> sigmoid -> product, in numpy beside it; a sum with ties to even, and no rounding behind Relu."""
    weight, bias = np.float32([[[[1.01]], [[-0.7]]]]), np.float32([0.3])
    nodes = [
        helper.make_node("Conv", ["blurry", "w", "b"], ["c"], name="c/Conv"),
        helper.make_node("Relu", ["c"], ["r"], name="c/Relu"),
        helper.make_node("Sigmoid", ["r"], ["s"], name="s"),
        helper.make_node("Mul", ["s", "r"], ["m"], name="m"),
        helper.make_node("Conv", ["m", "w2", "b"], ["sharp"], name="last/Conv"),
    ]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    constants.append(numpy_helper.from_array(np.float32([[[[0.9]]]]), "w2"))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n, 8, 8]) for name, n in (("blurry", 2), ("sharp", 1))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    typed = retype(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "bf16")
    window = np.random.default_rng(0).random((1, 2, 8, 8), np.float32)
    model, rounding = bf16_in_fp32(typed)
    with OperatorRunner(model, rounding=rounding) as runner:
        got = dict(runner.run(window))["sharp"]
    x = rounded(window)
    made = rounded(np.einsum("nihw,oi->nohw", x, rounded(weight)[:, :, 0, 0]) + rounded(bias))
    positive = np.maximum(made, 0)
    product = rounded(rounded(1 / (1 + np.exp(-positive))) * positive)
    expected = rounded(product * rounded(np.float32(0.9)) + rounded(bias))
    assert np.mean(got == expected) > 0.95  # the rest rounds the other way after another order of sums
    np.testing.assert_allclose(got, expected, rtol=2**-7)


def test_what_is_int8_beside_bf16_is_judged_literally(tiny_model, ranges_path, tmp_path):
    request = QuantizeRequest(tiny_model, ranges_path, tmp_path / "int8.onnx", how=QdqOptions(rest="bf16"))
    assert next(iter(to_qdq.to_qdq(request).contract.parity)).startswith("literal:")


def test_bf16_that_departs_between_operators_is_not_written(tiny_model, tmp_path):
    loud = scaled_up(tiny_model, "r2", 40, tmp_path / "loud.onnx")
    with pytest.raises(LostParityError, match=r"bf16 comes to .* dB of the fp32 file on literal bf16, expected at least 60"):
        to_bf16.to_bf16(loud, tmp_path / "bf16.onnx")


def test_a_file_under_the_gate_is_not_written(tiny_model, tmp_path):
    model = retype(onnx.load(tiny_model), "fp16")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "r2.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float16(1.5), weight.name))
    with pytest.raises(LostParityError, match=r"fp16 comes to .* dB of the fp32 file on literal fp16, expected at least 65"):
        write_typed(model, tiny_model, tmp_path / "out.onnx", "fp16", DEFAULT_CLIP, {})
    assert list(tmp_path.iterdir()) == []


def overflowing(model_path, output):
    """The same network, but for rounding, and the fp32 file of it; in FP16 the tensor between two of its layers is infinite."""
    factor = 2.0**16.8  # the largest for which the weights fit
    scaled_up(model_path, "temporal.generator.layer3", factor, output)
    model = onnx.load(output)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "temporal.generator.layer4.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / np.float32(factor), weight.name))
    save_signed(model, output)
    return retype(model, "fp16")


def test_an_overflow_is_seen_though_no_backend_here_has_it(tiny_model, tmp_path):
    fp32, output = tmp_path / "fp32.onnx", tmp_path / "fp16.onnx"
    typed = overflowing(tiny_model, fp32)
    save_signed(typed, tmp_path / "session.onnx")
    with Engine(tmp_path / "session.onnx", "onnxruntime") as engine:  # fp32 between its operators
        assert np.isfinite(engine.run(np.full((1, 5, 16, 16), 0.5, np.float32))).all()
    with pytest.raises(LostParityError, match=r"layer3/Conv_output_0 is NaN or infinite in fp16, expected at least 65 dB"):
        write_typed(typed, fp32, output, "fp16", DEFAULT_CLIP, {})
    assert not output.exists()


def test_roundings_between_operators_count(fp16):
    parity = read_contract(fp16).parity
    assert next(iter(parity)) == "literal:fp16"
    assert MIN_PARITY["fp16"] <= parity["literal:fp16"] < parity["onnxruntime:fp16"] - 3


def test_nan_of_the_judge_is_no_reason_to_ask_another(tiny_model, tmp_path):
    model = onnx.load(tiny_model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "r2.weight")
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))
    with pytest.raises(LostParityError, match="onnxruntime fp32 produced NaN"):
        write_typed(model, tiny_model, tmp_path / "out.onnx", "fp32", DEFAULT_CLIP, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_nan_is_not_equal(tiny_model):
    with Engine(tiny_model, "onnxruntime") as engine:
        zeros = np.zeros((1, 5, 8, 8), np.float32)
        assert not compared(engine, zeros * np.nan, zeros).decibels >= 0
        assert compared(engine, zeros, zeros).decibels == EQUAL


@pytest.mark.parametrize("command", [to_fp16, to_bf16])
def test_files_that_do_not_fit_are_refused(command, fp16, tmp_path, capsys):
    foreign = tmp_path / "foreign.onnx"
    model = onnx.load(fp16)
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, foreign)
    for source, message in (
        (fp16, "is in fp16 already"),
        (foreign, "without this project's contract"),
        (tmp_path / "no.onnx", "no.onnx"),
    ):
        assert command.main(["--onnx", str(source), "--output", str(tmp_path / "out.onnx")]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [to_fp16, to_bf16, to_qdq, to_trt8])
@pytest.mark.parametrize("way", ["as it is", "link", "hard link", "through a linked folder"])
def test_source_is_not_overwritten(tiny_model, tmp_path, capsys, command, way):
    source, output = tmp_path / "model.onnx", tmp_path / "other.onnx"
    shutil.copyfile(tiny_model, source)
    (tmp_path / "folder").symlink_to(tmp_path)
    if way == "link":
        output.symlink_to(source)
    elif way == "hard link":
        os.link(source, output)
    else:
        output = source if way == "as it is" else tmp_path / "folder" / "model.onnx"
    ranges = ["--ranges", str(tmp_path / "unread.json")] if command in (to_fp16, to_qdq) else []
    assert command.main(["--onnx", str(source), "--output", str(output), *ranges]) == 1
    assert f"the output {output} is the input {source} too" in capsys.readouterr().err
    assert source.read_bytes() == tiny_model.read_bytes()


def test_clip_and_ranges_are_not_overwritten(tiny_model, tmp_path, capsys):
    for name in ("clip", "ranges"):
        output = tmp_path / f"{name}.onnx"
        output.write_text("mine")
        assert to_fp16.main(["--onnx", str(tiny_model), "--output", str(output), f"--{name}", str(output)]) == 1
        assert "which it would replace" in capsys.readouterr().err
        assert output.read_text() == "mine"


@pytest.mark.parametrize("name", ["out.engine", "nowhere/out.onnx"])
def test_outputs_that_cannot_be_written_are_refused(tiny_model, tmp_path, name):
    model = retype(onnx.load(tiny_model), "fp16")
    with pytest.raises(InputError):
        write_typed(model, tiny_model, tmp_path / name, "fp16", DEFAULT_CLIP, {})


def test_a_clip_without_held_out_frames_is_refused(tiny_model, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        write_typed(retype(onnx.load(tiny_model), "fp16"), tiny_model, tmp_path / "out.onnx", "fp16", tmp_path / "no.mp4", {})
