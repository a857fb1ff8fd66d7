import numpy as np
import onnx
import pytest
from measured_ranges import measured_ranges

from calibration.ranges import Ranges
from export import type_shares
from export.engine.built_types import tensorrt_types
from export.graph.layer_precision import default_precisions, layers
from export.graph.layer_types import LayerType, granted_share, layer_types, shares
from export.graph.qdq_rules import quantize
from export.graph.typed_graph import retype
from export.type_shares import LEAST_GRANTED, openvino_types, table
from runtime.backends.openvino_runner import native_bf16
from runtime.errors import InputError
from runtime.files.contract import METADATA_KEY, read_contract

TENSOR = "{{ Name: {name}, Dimensions: [{dims}], Strides: [1,2,3,4], StrideOrder: [3,0,2,1], Datatype: {kind}, Format: (NHWC) }}"
LAYER = (
    "Name: {name}, LayerType: {sort}, Inputs: [ {data}], Constants: [ {filter}, {scale}], Outputs: [ {out}], Metadata: {nodes}\n"
)


def tensor(name, dims, kind):
    return TENSOR.format(name=name, dims=dims, kind=kind)


def logged(data, weight, sort="correlation", dims="16,12,3,3"):
    """A line as TensorRT-RTX 1.7 logs it."""
    return LAYER.format(
        name="c1/Conv_myl0_5",
        sort=sort,
        data=tensor("a", "1,12,360,640", data),
        filter=tensor("w", dims, weight),
        scale=tensor("s", "1", "Float"),
        out=tensor("o", "1,16,360,640", "Float"),
        nodes="[ONNX Layer: c1/Conv][ONNX Layer: LeakyRelu]",
    )


COPY = logged("Float", "Half", sort="kgen")  # moves data for a convolution, and is none


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return onnx.load(tiny_model)


@pytest.fixture(scope="module")
def int8_path(tiny, tiny_model, tmp_path_factory):
    ranges = Ranges.load(measured_ranges(tiny_model))
    return saved(
        quantize(tiny, ranges, default_precisions(tiny, "int8", "fp32")), tiny_model, tmp_path_factory.mktemp("i") / "int8.onnx"
    )


def saved(model, contract_of, path):
    onnx.helper.set_model_props(model, {METADATA_KEY: read_contract(contract_of).to_json()})
    onnx.save(model, path)
    return path


def test_size_that_the_network_cannot_take_is_padded(int8_path):
    padded, whole = (openvino_types(int8_path, "fp32", *size) for size in ((60, 92), (64, 96)))
    convolutions = {name for name in whole if name.endswith("/Conv")}  # OpenVINO numbers the nodes of its own
    assert {name: padded[name] for name in convolutions} == {name: whole[name] for name in convolutions}


def test_openvino_runs_int8_where_it_was_asked_to(int8_path):
    model = onnx.load(int8_path)
    rows = layer_types(model, openvino_types(int8_path, "fp32", 64, 96), 64, 96)
    assert granted_share(rows) >= LEAST_GRANTED
    assert {row.ran for row in rows} == {"int8", "fp32"}
    asked = shares(rows, asked=True)
    assert asked["int8"] > 0.5
    assert sum(asked.values()) == pytest.approx(1)


@pytest.mark.skipif(not native_bf16(), reason="this CPU has no bf16 arithmetic")
def test_openvino_takes_bf16_for_the_rest_when_told_to(int8_path):
    rows = layer_types(onnx.load(int8_path), openvino_types(int8_path, "bf16", 64, 96), 64, 96)
    assert {row.ran for row in rows} == {"int8", "bf16"}


def test_profiles_that_differ_in_type_grant_nothing():
    assert tensorrt_types(logged("Half", "Half") + logged("Float", "Half")) == dict.fromkeys(
        ("c1/Conv", "LeakyRelu"), "fp16 and fp32"
    )
    assert set(tensorrt_types(logged("Half", "Half") * 2).values()) == {"fp16"}


def test_what_openvino_does_not_grant_is_seen(tiny, tiny_model, tmp_path):
    """OpenVINO's CPU plugin computes a graph of FP16 in fp32."""
    path = saved(retype(tiny, "fp16"), tiny_model, tmp_path / "fp16.onnx")
    rows = layer_types(onnx.load(path), openvino_types(path, "fp32", 64, 96), 64, 96)
    assert granted_share(rows) == 0
    assert shares(rows) == {"fp32": 1.0}


@pytest.mark.parametrize(
    ("data", "word"), [("Int8", "int8"), ("Half", "fp16"), ("BFloat16", "bf16"), ("FP8", "fp8"), ("Float", "fp32")]
)
def test_a_layer_log_names_the_type(data, word):
    found = tensorrt_types(COPY + logged(data, data))
    assert found["c1/Conv"] == word


def test_a_filter_that_is_only_stored_small_does_not_count():
    assert tensorrt_types(logged("Half", "Int8"))["c1/Conv"] == "fp16"


@pytest.mark.parametrize("text", ["", "{}", COPY, "Layers:\n"])
def test_a_log_without_convolutions_is_refused(text):
    with pytest.raises(InputError, match="no convolution is in this list"):
        tensorrt_types(text)


def test_shares_are_of_the_flops():
    rows = [
        LayerType("a", 60, "int8", "int8"),
        LayerType("b", 20, "int8", "fp16"),
        LayerType("c", 20, "fp32", "fp32"),
    ]
    assert shares(rows) == {"int8": 0.6, "fp16": 0.2, "fp32": 0.2}
    assert shares(rows, asked=True) == {"int8": 0.8, "fp32": 0.2}
    assert granted_share(rows) == 0.75
    assert granted_share(rows[2:]) == 1
    assert "b " in table(rows)
    assert "75.0% of what asked" in table(rows)
    assert "c " not in table(rows)


def test_a_layer_that_no_runtime_mentions_is_not_found(tiny):
    rows = layer_types(tiny, {}, 64, 96)
    assert [row.layer for row in rows] == list(layers(tiny))
    assert {row.ran for row in rows} == {"not found"}


def test_the_command_reads_both(int8_path, tmp_path, capsys):
    assert type_shares.main([str(int8_path), "--size", "64", "96"]) == 0
    assert "100.0% of what asked for less than fp32 got it" in capsys.readouterr().out
    log = tmp_path / "layers.txt"
    log.write_text(logged("Half", "Half"))
    assert type_shares.main([str(int8_path), "--layer-log", str(log), "--layers"]) == 1
    printed = capsys.readouterr().out
    assert "asked fp32, ran fp16" in printed
    assert "asked int8, ran not found" in printed


def test_a_size_that_the_file_is_not_made_for_is_refused(int8_path):
    model = onnx.load(int8_path)
    for axis, size in ((0, 1), (2, 16), (3, 24)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    with pytest.raises(InputError, match="fixed at 16x24"):
        layer_types(model, {}, 64, 96)
    assert np.isclose(sum(shares(layer_types(model, {}, 16, 24)).values()), 1)
