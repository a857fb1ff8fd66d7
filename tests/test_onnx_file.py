"""What is read as a model is what its contract says: a changed, converted or incomplete file is refused by every command."""

import dataclasses

import numpy as np
import onnx
import pytest
from measured_ranges import measured_ranges
from onnx import TensorProto, helper, numpy_helper
from signed import save_signed

from calibration.collect_ranges import CollectOptions, collect
from calibration.fingerprints import model_hash
from calibration.onnx_file import LONGEST, brief, load_model, load_onnx
from calibration.ranges import Ranges
from export import type_shares
from export.compare.typed_file import load_fp32
from export.engine.request import EngineRequest
from export.graph.layer_precision import default_precisions
from export.graph.qdq_rules import quantize
from export.graph.typed_graph import retype
from export.make_engine import make_engine
from export.shipped_clips import DEFAULT_CLIP
from export.to_bundle import BundleRequest, write_bundle
from export.to_qdq import QuantizeRequest, to_qdq
from export.to_trt8 import to_trt8
from runtime import Engine
from runtime.errors import ModelError
from runtime.files.contract import METADATA_KEY, Contract, read_contract
from runtime.files.engine_record import Profile


def weight_of(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def scale_weight(model, factor=1.5, name="c2.weight"):
    weight = weight_of(model, name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), name))


def swap_frames(model):
    weight = weight_of(model, "r2.weight")
    values = numpy_helper.to_array(weight).copy()
    values[[2, 3]] = values[[3, 2]]
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def add_identity(model):
    last = model.graph.node[-1]
    model.graph.node.append(helper.make_node("Identity", ["inner"], [last.output[0]], name="one_more"))
    last.output[0] = "inner"


def zero_weight(model):
    scale_weight(model, 0.0, max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data)).name)


CHANGES = {
    "a weight": scale_weight,
    "a zeroed weight": zero_weight,
    "two frames swapped": swap_frames,
    "one Identity": add_identity,
}


@pytest.fixture(params=CHANGES)
def changed(request, tiny_model, tmp_path):
    model = onnx.load(tiny_model)
    CHANGES[request.param](model)
    onnx.save(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def by_export(path, folder):
    load_fp32(path)


def by_bundle(path, folder):
    write_bundle(BundleRequest(path, (), folder / "x.bundle"))


def by_build(path, folder):
    shape = (1, 5, 64, 96)
    make_engine(EngineRequest(path, folder / "x.engine", "tensorrt_rtx", (Profile(shape, shape, shape),)))


def by_calibrate(path, folder):
    collect(CollectOptions(data=DEFAULT_CLIP, onnx=path, windows=1, crop=(48, 64)))


def by_trt8(path, folder):
    to_trt8(path, folder / "x.onnx")


def by_quantize(path, folder):
    to_qdq(QuantizeRequest(path, path, folder / "x.onnx"))


def by_engine(path, folder):
    Engine(path)


READERS = [by_export, by_bundle, by_build, by_calibrate, by_trt8, by_quantize]


@pytest.mark.parametrize("read", [*READERS, by_engine])
def test_a_changed_file_is_refused_under_the_checkpoint_name(changed, tmp_path, read):
    with pytest.raises(ModelError, match=r"was changed after it was made: .* hand over what videodeblur export"):
        read(changed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["changed.onnx"]


def test_the_file_as_exported_has_its_hash(tiny_model):
    model, contract = load_model(tiny_model)
    assert contract.graph_sha256 == model_hash(model)


def test_a_file_of_before_hashes_opens(tiny_model, tmp_path):
    model = onnx.load(tiny_model)
    contract = dataclasses.replace(read_contract(tiny_model), graph_sha256=None)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json().replace('"graph_sha256": null, ', "")})
    onnx.save(model, tmp_path / "old.onnx")
    assert load_model(tmp_path / "old.onnx")[1] == contract


def test_a_changed_scale_of_an_int8_file_is_refused(tiny_model, tmp_path):
    model = onnx.load(tiny_model)
    ranges = Ranges.load(measured_ranges(tiny_model))
    typed = quantize(model, ranges, default_precisions(model, "int8", "fp32"))
    path = save_signed(typed, tmp_path / "int8.onnx", precision="int8")
    load_model(path)
    scale = next(tensor for tensor in typed.graph.initializer if tensor.name.endswith("weight_scale"))
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.5), scale.name))
    onnx.save(typed, path)
    with pytest.raises(ModelError, match="was changed after it was made"):
        load_model(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(tiny_model, tmp_path, value):
    model = onnx.load(tiny_model)
    scale_weight(model, value)
    with pytest.raises(ModelError, match=r"NaN or infinite numbers in c2.weight"):
        load_model(save_signed(model, tmp_path / "nan.onnx"))


def with_half_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


CONVERTED = {  # how other tools leave our contract: what is said of it
    "fp16": (lambda model: retype(model, "fp16"), "holds fp16, its contract says fp32"),
    "bf16": (lambda model: retype(model, "bf16"), "holds bf16, its contract says fp32"),
    "half inputs": (with_half_input, "holds fp16, its contract says fp32"),
}


@pytest.mark.parametrize("how", CONVERTED)
def test_the_graph_is_looked_at_and_not_its_contract_alone(tiny_model, tmp_path, how):
    convert, message = CONVERTED[how]
    with pytest.raises(ModelError, match=message):
        load_model(save_signed(convert(onnx.load(tiny_model)), tmp_path / "converted.onnx"))


def quantised_by_onnxruntime(path, output):
    """By ONNX Runtime's own tool, which keeps our metadata."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, output, weight_type=QuantType.QUInt8, op_types_to_quantize=["Conv"])
    model, kept = onnx.load(output), read_contract(path)
    helper.set_model_props(model, {METADATA_KEY: dataclasses.replace(kept, graph_sha256=None).to_json()})
    onnx.save(model, output)
    return output


def test_what_onnxruntime_quantised_is_neither_fp32_nor_certified(tiny_model, tmp_path, capsys):
    foreign = quantised_by_onnxruntime(tiny_model, tmp_path / "dynamic.onnx")
    for read in READERS:
        with pytest.raises(ModelError, match="holds int8, its contract says fp32"):
            read(foreign, tmp_path)
    assert type_shares.main([str(foreign)]) == 1
    assert "no convolution recognised" in capsys.readouterr().err


def test_a_precision_that_the_graph_has_not_is_refused(tiny_model, tmp_path):
    with pytest.raises(ModelError, match="holds fp32, its contract says int8"):
        load_model(save_signed(onnx.load(tiny_model), tmp_path / "liar.onnx", precision="int8"))


def test_sizes_that_another_tool_fixed_are_refused(tiny_model, tmp_path):
    model = onnx.load(tiny_model)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    with pytest.raises(ModelError, match=r"has a fixed height of 64, its contract says any: export it with --height"):
        load_model(save_signed(model, tmp_path / "fixed.onnx"))


@pytest.mark.parametrize("read", READERS)
def test_weights_in_other_files_are_refused_and_nothing_is_left(tiny_model, tmp_path, read):
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save(onnx.load(tiny_model), folder / "m.onnx", save_as_external_data=True, size_threshold=0)
    before = sorted(folder.iterdir())
    with pytest.raises(ModelError):
        read(folder / "m.onnx", folder)
    with pytest.raises(ModelError, match="keeps data outside of itself, expected one whole file"):
        load_onnx(folder / "m.onnx")
    assert sorted(folder.iterdir()) == before


def test_long_errors_of_parsers_are_one_short_line():
    assert brief(ValueError("first\nsecond")) == "first"
    assert brief(ValueError("x" * 14_000)) == "x" * LONGEST + "..."
    assert brief(KeyError()) == "KeyError"


def test_another_io_than_the_graph_takes_is_refused(tiny_model, tmp_path):
    model = onnx.load(tiny_model)
    contract = dataclasses.replace(Contract.from_json(read_contract(tiny_model).to_json()), io="u8", bits=8, color_range="full")
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="takes float, its contract says u8"):
        load_model(tmp_path / "m.onnx")
