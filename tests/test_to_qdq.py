import dataclasses
import json
import re

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from measured_ranges import measured_ranges
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from calibration.fingerprints import graph_hash, weights_hash
from calibration.histograms import Histogram
from calibration.operator_runner import OperatorRunner
from calibration.ranges import Ranges, with_scales
from calibration.tensors import activations
from export import to_qdq
from export.compare.literal_runner import exact_backend
from export.compare.typed_file import NOTES_KEY, held_out_windows
from export.graph.layer_precision import (
    asked_precisions,
    complete_precisions,
    default_precisions,
    layer_sizes,
    layers,
    matching_precisions,
    overall_precision,
    read_precisions,
    why_not,
)
from export.graph.qdq_rules import QdqOptions, quantize, rounded_up, to_codes
from export.graph.sample_code_graph import wrap_sample_codes
from export.graph.typed_graph import retype
from export.shipped_clips import DEFAULT_CLIP
from runtime import Engine
from runtime.errors import InputError, ModelError
from runtime.files.contract import MIN_PARITY, read_contract, read_metadata

INT8, UINT8, FP8 = TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN
GENERATOR = r"temporal\.generator\..*"


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return onnx.load(tiny_model)


@pytest.fixture(scope="module")
def ranges(tiny_model):
    return Ranges.load(measured_ranges(tiny_model))


@pytest.fixture(scope="module")
def int8(tiny, ranges):
    """Every layer quantised: all rules have something to do."""
    return quantize(tiny, ranges, dict.fromkeys(layers(tiny), "int8"))


@pytest.fixture(scope="module")
def cpu(tiny, ranges):
    return quantize(tiny, ranges, dict.fromkeys(layers(tiny), "int8"), QdqOptions("cpu"))


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def kinds(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def makers(model):
    return {value: node for node in model.graph.node for value in node.output}


def nodes(model, *operators):
    return [node for node in model.graph.node if node.op_type in operators]


def conv(model, layer):
    return next(node for node in nodes(model, "Conv") if node.name == f"{layer}/Conv")


def quantisers(model, tensor):
    return [node for node in nodes(model, "QuantizeLinear") if node.input[0] == tensor]


def scale_of(model, dequantised):
    return float(constants(model)[makers(model)[dequantised].input[1]])


def run(model, blurry, **settings):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {model.graph.input[0].name: blurry})[0]


def decibels(got, expected):
    return -10 * np.log10(np.mean(np.square(got.astype(np.float64) - expected)))


@pytest.fixture(scope="module")
def blurry(tiny_model):
    return held_out_windows(DEFAULT_CLIP, read_contract(tiny_model))[:1, :, :64, :96].copy()


def small_model(nodes_, weights, shape=(1, 2, 8, 8)):
    """A graph from `blurry` to `sharp`, and ranges of its tensors on random data."""
    inputs = [helper.make_tensor_value_info("blurry", 1, shape)]
    initializers = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes_, "g", inputs, [helper.make_tensor_value_info("sharp", 1, None)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    return model, ranges_of(model, np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def ranges_of(model, blurry):
    inferred = onnx.shape_inference.infer_shapes(model)
    found = activations(inferred.graph)
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(tensor.name, 1, None) for tensor in found if tensor.name != "blurry")
    session = onnxruntime.InferenceSession(probe.SerializeToString())
    values = dict(zip([entry.name for entry in session.get_outputs()], session.run(None, {"blurry": blurry})), blurry=blurry)
    tensors = {}
    for tensor in found:
        histogram = Histogram()
        histogram.add(values[tensor.name])
        tensors[tensor.name] = with_scales(tensor, histogram)
    return Ranges(graph_hash(model), weights_hash(model), "0" * 64, "max", 99.99, (), {}, tensors)


def two_convs(shared=False, between=()):
    rng = np.random.default_rng(1)
    weights = {"a.weight": rng.standard_normal((2, 2, 3, 3)), "b.weight": rng.standard_normal((2, 2, 3, 3))}
    last = [*between][-1].output[0] if between else "a_out"
    second = "a.weight" if shared else "b.weight"
    if shared:
        del weights["b.weight"]
    return small_model(
        [
            helper.make_node("Conv", ["blurry", "a.weight"], ["a_out"], name="a/Conv", pads=[1] * 4),
            *between,
            helper.make_node("Conv", [last, second], ["sharp"], name="b/Conv", pads=[1] * 4),
        ],
        weights,
    )


# Rule 1: data and weight are quantised, the bias is not


def test_both_inputs_of_every_quantised_layer_are_dequantised(int8, tiny):
    made = makers(int8)
    for node in nodes(int8, "Conv"):
        assert [made[value].op_type for value in node.input[:2]] == ["DequantizeLinear"] * 2
    assert asked_precisions(int8) == dict.fromkeys(layers(tiny), "int8")


def test_layers_not_named_stay_as_they_were(tiny, ranges):
    model = quantize(tiny, ranges, {"c2": "int8"})
    assert len(nodes(model, "QuantizeLinear")) == 1
    assert asked_precisions(model) == {**dict.fromkeys(layers(tiny), "fp32"), "c2": "int8"}
    for layer in layers(tiny):
        if layer != "c2":
            assert list(conv(model, layer).input) == list(conv(tiny, layer).input)


def test_the_bias_stays_float():
    weights = {"a.weight": np.ones((2, 2, 1, 1)), "a.bias": np.array([1, 2])}
    model, ranges = small_model([helper.make_node("Conv", ["blurry", "a.weight", "a.bias"], ["sharp"], name="a/Conv")], weights)
    quantised = quantize(model, ranges, {"a": "int8"}, QdqOptions(rest="fp16"))
    assert conv(quantised, "a").input[2] == "a.bias"
    assert kinds(quantised)["a.bias"] == TensorProto.FLOAT16


# Rule 2: symmetric, saturating


def test_zero_points_are_zero_and_of_the_codes_type(int8):
    arrays = constants(int8)
    for node in nodes(int8, "QuantizeLinear", "DequantizeLinear"):
        assert arrays[node.input[2]].dtype == np.int8
        assert not arrays[node.input[2]].any()
    assert all(array.min() >= -127 for name, array in arrays.items() if name.endswith("_codes"))


def test_codes_round_half_to_even_and_saturate():
    assert to_codes(np.array([0.5, 1.5, -0.5, 300, -300]), "int8").tolist() == [0, 2, 0, 127, -127]
    assert to_codes(np.array([500.0, -1e9, 17.0]), "fp8").astype(float).tolist() == [448, -448, 16]


def test_data_beyond_the_range_saturates():
    model, ranges = two_convs()
    quantised = quantize(model, ranges, {"a": "int8"})
    loud = np.full((1, 2, 8, 8), 1e6, np.float32)
    edge = np.full((1, 2, 8, 8), 127 * ranges.scale("blurry"), np.float32)
    np.testing.assert_allclose(run(quantised, loud), run(quantised, edge), rtol=1e-6)


# Rule 3: weights


def test_weights_are_codes_with_one_scale_a_channel_on_axis_0(int8, tiny):
    arrays, original = constants(int8), constants(tiny)
    node = makers(int8)["c1.weight"]
    assert list(node.input) == ["c1.weight_codes", "c1.weight_scale", "c1.weight_zero"]
    assert [attribute.i for attribute in node.attribute if attribute.name == "axis"] == [0]
    scale = np.abs(original["c1.weight"]).max(axis=(1, 2, 3)) / 127
    np.testing.assert_allclose(arrays["c1.weight_scale"], scale, rtol=1e-6)
    error = arrays["c1.weight_codes"] * arrays["c1.weight_scale"][:, None, None, None] - original["c1.weight"]
    assert np.abs(error).max() <= 0.5001 * scale.max()


def test_per_tensor_weights_have_one_scale(tiny, ranges):
    model = quantize(tiny, ranges, {"c1": "int8"}, QdqOptions(weights="per-tensor"))
    assert constants(model)["c1.weight_scale"].shape == ()
    assert not makers(model)["c1.weight"].attribute


def test_nodes_that_share_a_weight_share_its_dequantisation():
    model, ranges = two_convs(shared=True)
    quantised = quantize(model, ranges, {"a": "int8"})
    weights = {node.input[1] for node in nodes(quantised, "Conv")}
    assert len(weights) == 1
    assert makers(quantised)[weights.pop()].op_type == "DequantizeLinear"
    assert layers(quantised)["a"].nodes == ("a/Conv", "b/Conv")


def test_a_channel_of_zeros_has_a_positive_scale():
    weights = {"a.weight": np.stack([np.zeros((2, 1, 1)), np.ones((2, 1, 1))])}
    model, ranges = small_model([helper.make_node("Conv", ["blurry", "a.weight"], ["sharp"], name="a/Conv")], weights)
    arrays = constants(quantize(model, ranges, {"a": "int8"}, QdqOptions(rest="fp16")))
    assert (arrays["a.weight_scale"] > 0).all()
    assert not arrays["a.weight_codes"][0].any()


def test_a_weight_that_is_computed_is_refused():
    model, ranges = small_model(
        [
            helper.make_node("Neg", ["w"], ["negative"], name="neg"),
            helper.make_node("Conv", ["blurry", "negative"], ["sharp"], name="a"),
        ],
        {"w": np.ones((2, 2, 1, 1))},
    )
    with pytest.raises(ModelError, match="computed in the graph"):
        quantize(model, ranges, {"a": "int8"})


# Rule 4: one Q/DQ a tensor, none behind a convolution


def test_a_tensor_has_one_quantiser_for_all_its_readers(int8):
    tensors = [node.input[0] for node in nodes(int8, "QuantizeLinear")]
    assert len(tensors) == len(set(tensors))
    x_convolutions = [conv(int8, f"temporal.cell.x_{gate}") for gate in ("update", "reset", "candidate")]
    assert len({node.input[0] for node in x_convolutions}) == 1


def test_nothing_stands_between_a_convolution_and_its_activation(int8):
    made = makers(int8)
    for node in nodes(int8, "Relu", "LeakyRelu", "Tanh", "Sigmoid", "Add"):
        assert "DequantizeLinear" not in {made[value].op_type for value in node.input if value in made}
    assert "Conv" not in {made[node.input[0]].op_type for node in nodes(int8, "QuantizeLinear") if node.input[0] in made}


def test_float_readers_keep_reading_the_float_tensor(tiny, ranges):
    model = quantize(tiny, ranges, {"spatial.generator.layer1": "int8"})
    quantised, plain = conv(model, "spatial.generator.layer1").input[0], conv(model, "c1").input[0]
    assert quantised == f"{plain}_int8_dq"


def test_two_precisions_of_one_tensor_have_a_quantiser_each(tiny, ranges):
    model = quantize(tiny, ranges, {"c1": "int8", "spatial.generator.layer1": "fp8"})
    tensor = conv(tiny, "c1").input[0]
    assert len(quantisers(model, tensor)) == 2
    assert overall_precision(asked_precisions(model), "fp32") == "mixed"


# Rules 5 and 6: scales of tensors that belong together, pooling


def test_a_hidden_state_has_one_scale_wherever_it_is_read(int8):
    for cell in ("temporal.cell", "spatial.cells.0", "spatial.cells.3"):
        update, reset = (conv(int8, f"{cell}.h_{gate}").input[0] for gate in ("update", "reset"))
        assert update == reset
        assert scale_of(int8, update) == pytest.approx(1 / 127)  # it comes from a tanh


def test_pooling_runs_on_codes_of_one_scale(int8):
    made = makers(int8)
    pools = nodes(int8, "MaxPool")
    assert len(pools) == 6
    for pool in pools:
        (behind,) = quantisers(int8, pool.output[0])
        assert made[pool.input[0]].op_type == "DequantizeLinear"
        assert constants(int8)[behind.input[1]] == scale_of(int8, pool.input[0])


def test_fp8_is_not_put_before_pooling(tiny, ranges):
    model = quantize(tiny, ranges, matching_precisions(tiny, GENERATOR, "fp8", "fp32"))
    made = makers(model)
    assert {made[pool.input[0]].op_type for pool in nodes(model, "MaxPool")} == {"Relu"}


def test_what_a_concat_joins_has_its_scale():
    between = [
        helper.make_node("Relu", ["a_out"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "b.weight"], ["c_out"], name="c/Conv", pads=[1] * 4),
        helper.make_node("Concat", ["r", "c_out"], ["joined"], name="join", axis=1),
        helper.make_node("Conv", ["joined", "d.weight"], ["sharp"], name="d/Conv"),
    ]
    first = helper.make_node("Conv", ["blurry", "a.weight"], ["a_out"], name="a/Conv", pads=[1] * 4)
    rng = np.random.default_rng(1)
    weights = {f"{name}.weight": rng.standard_normal((2, 2, 3, 3)) for name in "ab"} | {
        "d.weight": rng.standard_normal((2, 4, 1, 1))
    }
    model, ranges = small_model([first, *between], weights)
    quantised = quantize(model, ranges, {"b": "int8", "d": "int8"})
    joined, part = conv(quantised, "d").input[0], conv(quantised, "c").input[0]
    assert ranges.scale("joined") > ranges.scale("r")
    assert scale_of(quantised, part) == scale_of(quantised, joined) == pytest.approx(ranges.scale("joined"))


# Rule 7: scales


@pytest.mark.parametrize(("rest", "kind"), [("fp32", 1), ("fp16", 10), ("bf16", 16)])
def test_scales_have_the_type_of_the_rest(tiny, ranges, rest, kind):
    model = quantize(tiny, ranges, matching_precisions(tiny, GENERATOR, "int8", rest), QdqOptions(rest=rest))
    assert {kinds(model)[node.input[1]] for node in nodes(model, "QuantizeLinear", "DequantizeLinear")} == {kind}
    assert all((array.astype(np.float32) > 0).all() for name, array in constants(model).items() if name.endswith("_scale"))
    assert model.opset_import[0].version == (22 if rest == "bf16" else 20)


@pytest.mark.parametrize("rest", ["fp32", "fp16", "bf16"])
def test_scales_are_rounded_up(rest):
    exact = np.array([1e-8, 3e-5, 0.1, 1.0, 1 / 127, 1000.1])
    rounded = rounded_up(exact, rest)
    assert (rounded >= exact).all()
    assert (rounded[1:] <= exact[1:] * 1.01).all()
    np.testing.assert_array_equal(rounded_up(rounded, rest), rounded)


def test_a_tensor_that_was_always_zero_gets_a_scale():
    model, _ = two_convs(between=[helper.make_node("Relu", ["a_out"], ["r"], name="relu")])
    ranges = ranges_of(model, np.zeros((1, 2, 8, 8), np.float32))
    quantised = quantize(model, ranges, {"a": "int8", "b": "int8"}, QdqOptions("cpu"))
    assert all((array > 0).all() for name, array in constants(quantised).items() if name.endswith("_scale"))
    assert np.isfinite(run(quantised, np.ones((1, 2, 8, 8), np.float32))).all()


def test_methods_change_the_scales_but_those_of_known_ranges(tiny, ranges):
    precisions = {"c2": "int8", "temporal.cell.h_update": "int8"}
    models = [quantize(tiny, ranges, precisions, QdqOptions(method=method)) for method in ("max", "mse")]
    scales = [[scale_of(model, conv(model, layer).input[0]) for layer in precisions] for model in models]
    assert scales[0][0] > scales[1][0]
    assert scales[0][1] == scales[1][1]
    assert scales[0][0] == pytest.approx(ranges.scale(conv(tiny, "c2").input[0], "int8", "max"))


# Rule 8: placement cpu


def test_every_result_is_written_as_codes(cpu):
    made = makers(cpu)
    unsigned = {node.input[0] for node in nodes(cpu, "QuantizeLinear") if kinds(cpu)[node.input[2]] == UINT8}
    for node in nodes(cpu, "Relu", "LeakyRelu"):  # r1 is a sum in float, which is resized before somebody reads it as codes
        assert quantisers(cpu, node.output[0]) or made[node.input[0]].op_type == "Add"
    for node in nodes(cpu, "Relu"):
        assert made[node.input[0]].op_type == "Conv"
        assert node.output[0] in unsigned
    for node in nodes(cpu, "LeakyRelu", "Tanh", "Sigmoid"):
        source = made[node.input[0]]
        assert source.op_type in ("DequantizeLinear", "Add")
    for node in nodes(cpu, "Resize"):
        (behind,) = quantisers(cpu, node.output[0]) or [None]
        if behind is not None and made[node.input[0]].op_type == "DequantizeLinear":
            assert constants(cpu)[behind.input[1]] == scale_of(cpu, node.input[0])


def test_unsigned_codes_span_the_same_range(cpu, int8):
    signed, unsigned = (scale_of(model, conv(model, "temporal.generator.layer1").input[0]) for model in (int8, cpu))
    assert 255 * unsigned == pytest.approx(127 * signed)


def test_onnxruntime_fuses_every_quantised_layer(tiny, ranges, tmp_path):
    precisions = matching_precisions(tiny, GENERATOR, "int8", "fp32")
    counts = {}
    for placement in ("cpu", "tensorrt"):
        fused = tmp_path / f"{placement}.onnx"
        model = quantize(tiny, ranges, precisions, QdqOptions(placement))
        run(model, np.zeros((1, 5, 16, 16), np.float32), optimized_model_filepath=str(fused))
        counts[placement] = len(nodes(onnx.load(fused), "QLinearConv"))
    assert counts == {"cpu": 15, "tensorrt": 0}


def test_what_the_cpu_kernels_lack_is_refused(tiny, ranges):
    with pytest.raises(InputError, match="no FP8 convolution"):
        quantize(tiny, ranges, {"c1": "fp8"}, QdqOptions("cpu"))
    with pytest.raises(InputError, match="needs rest 'fp32'"):
        QdqOptions("cpu", rest="fp16")


# Rule 9: the rest


def test_the_rest_is_typed_and_named_layers_have_their_type(tiny, ranges):
    precisions = {"c1": "fp32", "c2": "int8", "r1.0": "bf16"}
    model = quantize(tiny, ranges, precisions, QdqOptions(rest="fp16"))
    assert asked_precisions(model) == {**dict.fromkeys(layers(tiny), "fp16"), **precisions}
    onnx.checker.check_model(model, full_check=True)


def test_layers_too_large_for_fp16_compute_in_fp32_with_their_qdq(tiny, ranges):
    tensor = conv(tiny, "c2").input[0]
    loud = dataclasses.replace(ranges.tensors[tensor].extent, high=1e9)
    tensors = {**ranges.tensors, tensor: dataclasses.replace(ranges.tensors[tensor], extent=loud)}
    model = quantize(tiny, dataclasses.replace(ranges, tensors=tensors), {"c2": "int8"}, QdqOptions(rest="fp16"))
    (before,) = quantisers(model, tensor)
    assert kinds(model)[before.input[1]] == TensorProto.FLOAT
    assert {makers(model)[value].op_type for value in conv(model, "c2").input[:2]} == {"DequantizeLinear"}


# What is chosen


def test_the_default_keeps_what_matters(tiny_model, tiny):
    chosen = default_precisions(tiny, "int8", "fp16")
    kept = {name for name, word in chosen.items() if word == "fp16"}
    assert {"temporal.generator.layer0", "r2", "c1"} <= kept
    assert chosen["spatial.generator.layer5"] == "int8"
    assert "makes the picture" in why_not(layers(tiny)["r2"], "int8")


def test_cells_are_quantised_where_their_sums_stay_float(tiny):
    gate = dataclasses.replace(layers(tiny)["spatial.cells.1.h_update"], inputs=32, outputs=32)
    assert why_not(gate, "int8") == ""
    assert why_not(gate, "int8", "cpu") == why_not(gate, "fp8") == "gate or state of a recurrent cell"


def test_what_is_summed_is_quantised_where_the_sum_stays_float(tiny):
    part = dataclasses.replace(layers(tiny)["r1.1"], inputs=32, outputs=16)
    assert part.summed
    assert not layers(tiny)["c2"].summed
    assert why_not(part, "int8") == ""
    assert why_not(part, "int8", "cpu") == "is added to another, and would be rounded before"


def test_small_and_wide_kernels_are_not_chosen_for_fp8(tiny):
    layer = layers(tiny)["spatial.generator.layer8"]
    assert why_not(layer, "fp8") == ""
    assert "81 taps" in why_not(dataclasses.replace(layer, taps=81), "fp8")
    assert why_not(dataclasses.replace(layer, taps=81), "int8") == ""
    assert "24 channels" in why_not(dataclasses.replace(layer, inputs=24), "fp8")
    assert why_not(dataclasses.replace(layer, inputs=8), "int8") == ""
    assert "12 channels" in why_not(dataclasses.replace(layer, outputs=12), "int8")
    assert why_not(dataclasses.replace(layer, groups=3), "int8") == "is grouped"


def test_sizes_are_those_of_the_arithmetic(tiny):
    sizes = layer_sizes(tiny, 64, 96)
    assert sizes["temporal.generator.layer1"] == 64 * 96 * 9 * 2 * 12
    assert sizes["spatial.generator.layer5"] == 16 * 24 * 9 * 16 * 32
    assert set(sizes) == set(layers(tiny))


def test_sizes_of_a_graph_of_codes_are_those_of_the_padded_network(tiny):
    codes = wrap_sample_codes(tiny, "u16", 10, "limited", 8)
    assert layer_sizes(codes, 61, 90) == layer_sizes(tiny, 64, 96)


def test_sizes_agree_with_shape_inference(tiny):
    fixed = onnx.ModelProto.FromString(tiny.SerializeToString())
    for dim, size in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 5, 64, 96)):
        dim.dim_value = size
    del fixed.graph.value_info[:]
    fixed.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inferred.value_info}
    for name, macs in layer_sizes(tiny, 64, 96).items():
        outputs, height, width = shapes[conv(tiny, name).output[0]][1:]
        layer = layers(tiny)[name]
        assert macs == height * width * layer.inputs * outputs * layer.taps


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: matching_precisions(model, "c7", "int8", "fp32"), "no layer is called 'c7'"),
        (lambda model: matching_precisions(model, "(", "int8", "fp32"), "not a regular expression"),
        (
            lambda model: complete_precisions(model, {"temporal.generator.layer77": "int8"}, "fp32"),
            r"did you mean 'temporal.generator.layer7",
        ),
        (lambda model: complete_precisions(model, {"c1": "int4"}, "fp32"), "'int4', expected one of"),
    ],
)
def test_layers_and_precisions_that_do_not_exist_are_refused(tiny, call, message):
    with pytest.raises(InputError, match=message):
        call(tiny)


@pytest.mark.parametrize("content", ["", "[]", '{"layers": ["c1"]}', '{"layers": {"c1": 8}}', '{"other": {}}'])
def test_a_broken_precision_file_is_refused(tmp_path, content):
    path = tmp_path / "precision.json"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_precisions(path)


def test_the_word_for_the_whole():
    assert overall_precision({"a": "int8", "b": "fp16"}, "fp16") == "int8"
    assert overall_precision({"a": "int8", "b": "fp32"}, "fp16") == "mixed"
    assert overall_precision({"a": "int8", "b": "fp8"}, "fp16") == "mixed"
    assert overall_precision({"a": "fp16", "b": "fp16"}, "fp16") == "fp16"
    assert overall_precision({"a": "fp8", "b": "fp8"}, "fp32") == "fp8"


# What is refused


def test_quantised_and_typed_graphs_are_refused(tiny, ranges, int8):
    for model, message in ((int8, "quantised already"), (retype(tiny, "fp16"), "expected an fp32 graph")):
        own = dataclasses.replace(ranges, graph_sha256=graph_hash(model), weights_sha256=weights_hash(model))
        with pytest.raises(ModelError, match=message):
            quantize(model, own, {"c1": "int8"})


def test_ranges_of_another_graph_are_refused(tiny, ranges):
    with pytest.raises(ModelError, match="another graph"):
        quantize(tiny, dataclasses.replace(ranges, graph_sha256="1" * 64), {"c1": "int8"})


def test_a_tensor_without_a_range_is_refused(tiny, ranges):
    tensors = {name: tensor for name, tensor in ranges.tensors.items() if name != conv(tiny, "c2").input[0]}
    with pytest.raises(InputError, match="there is no range of tensor"):
        quantize(tiny, dataclasses.replace(ranges, tensors=tensors), {"c2": "int8"})


@pytest.mark.parametrize("options", [{"placement": "gpu"}, {"rest": "int8"}, {"weights": "per-row"}, {"method": "average"}])
def test_options_are_checked(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} is"):
        QdqOptions(**options)


# How good it is


@pytest.mark.parametrize(
    ("options", "precision", "least"),
    [
        (QdqOptions(), "int8", 50),
        (QdqOptions(rest="fp16"), "int8", 50),
        (QdqOptions("cpu"), "int8", 50),
        (QdqOptions(weights="per-tensor"), "int8", 45),
        (QdqOptions(rest="bf16"), "int8", 50),
        (QdqOptions(rest="fp16"), "fp8", 42),
    ],
)
def test_both_runtimes_come_close_to_fp32_and_to_each_other(tiny, ranges, blurry, tmp_path, options, precision, least):
    model = quantize(tiny, ranges, default_precisions(tiny, precision, options.rest), options)
    path = tmp_path / "q.onnx"
    onnx.save(model, path)
    expected = run(tiny, blurry)
    openvinos = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(blurry)[0]
    assert least < decibels(openvinos, expected) < 100
    if options.rest != "bf16":  # of which ONNX Runtime has no convolution
        literal = run(model, blurry)
        assert least < decibels(literal, expected) < 100
        assert decibels(openvinos, literal) > least


class _Windows(CalibrationDataReader):
    def __init__(self, window):
        self._left = [{"blurry": window}]

    def get_next(self):
        return self._left.pop() if self._left else None


def test_agrees_with_onnxruntimes_quantizer(tmp_path):
    """On the same data, both with min-max: equal codes of weights, equal scales of weights and activations."""
    model, ranges = two_convs(between=[helper.make_node("LeakyRelu", ["a_out"], ["l"], name="leaky", alpha=0.1)])
    onnx.save(model, tmp_path / "fp32.onnx")
    window = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantize_static(
        tmp_path / "fp32.onnx", tmp_path / "theirs.onnx", _Windows(window), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["Conv"], activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, extra_options=options,
    )  # fmt: skip
    theirs, ours = onnx.load(tmp_path / "theirs.onnx"), quantize(model, ranges, {"a": "int8", "b": "int8"})
    for layer in ("a", "b"):
        their_conv, our_conv = conv(theirs, layer), conv(ours, layer)
        theirs_weight, ours_weight = (makers(graph)[node.input[1]] for graph, node in ((theirs, their_conv), (ours, our_conv)))
        np.testing.assert_array_equal(constants(theirs)[theirs_weight.input[0]], constants(ours)[ours_weight.input[0]])
        np.testing.assert_allclose(constants(theirs)[theirs_weight.input[1]], constants(ours)[ours_weight.input[1]], rtol=1e-6)
        assert scale_of(theirs, their_conv.input[0]) == pytest.approx(scale_of(ours, our_conv.input[0]), rel=1e-6)


# The command


def command_line(model, output, *more):
    return ["--onnx", str(model), "--ranges", str(measured_ranges(model)), "--output", str(output), *more]


def test_the_command_writes_a_verified_file(tiny_model, tmp_path, capsys):
    output = tmp_path / "int8.onnx"
    assert to_qdq.main(command_line(tiny_model, output, "--rest", "fp16", "--verbose")) == 0
    printed = capsys.readouterr().out
    assert "convolution FLOPs by type: int8" in printed
    assert "fp16: r2: makes the picture" in printed
    contract = read_contract(output)
    assert contract.precision == "int8"
    assert list(contract.parity)[:2] == ["literal:int8", "onnxruntime:int8"]
    assert contract.parity["literal:int8"] >= MIN_PARITY["int8"]
    assert json.loads(read_metadata(output)[NOTES_KEY])["layers"]["spatial.generator.layer5"] == "int8"
    with Engine(output, "onnxruntime") as engine:
        assert engine.run(np.zeros((1, 5, 13, 21), np.float32)).shape == (1, 5, 13, 21)


def test_fp8_beside_fp16_is_computed_as_it_says(tiny, ranges, blurry):
    model = quantize(tiny, ranges, default_precisions(tiny, "fp8", "fp16"), QdqOptions(rest="fp16"))
    assert exact_backend(model) == "literal"
    with OperatorRunner(onnx.shape_inference.infer_shapes(model)) as runner:
        literal = dict(runner.run(blurry))["sharp"]
    assert decibels(literal, run(tiny, blurry)) > 42
    assert decibels(literal, run(model, blurry)) > 42


def test_what_computes_a_graph_as_it_says(tiny, int8):
    assert [exact_backend(graph) for graph in (tiny, int8)] == ["onnxruntime"] * 2
    assert [exact_backend(retype(tiny, word)) for word in ("fp16", "bf16")] == ["literal"] * 2


def test_the_command_takes_a_file_or_a_pattern(tiny_model, tmp_path):
    chosen = tmp_path / "precision.json"
    chosen.write_text(json.dumps({"layers": {"c2": "int8", "r1.0": "fp32"}}))
    assert to_qdq.main(command_line(tiny_model, tmp_path / "a.onnx", "--layers", str(chosen), "--rest", "fp16")) == 0
    assert read_contract(tmp_path / "a.onnx").precision == "mixed"
    assert to_qdq.main(command_line(tiny_model, tmp_path / "b.onnx", "--layers", r"c\d")) == 0
    asked = asked_precisions(onnx.load(tmp_path / "b.onnx"))
    assert [name for name, word in asked.items() if word == "int8"] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--layers", "nothing"), "no layer is called"),
        (("--layers", "missing.json"), "missing.json"),
        (("--placement", "cpu", "--precision", "fp8", "--layers", "c1"), "no FP8 convolution"),
        (("--precision", "fp8", "--method", "entropy", "--layers", "c1"), "entropy is for int8"),
    ],
)
def test_the_command_refuses_in_one_line(tiny_model, tmp_path, capsys, more, message):
    assert to_qdq.main(command_line(tiny_model, tmp_path / "out.onnx", *more)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.onnx").exists()
