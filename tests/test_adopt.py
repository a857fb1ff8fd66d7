"""Engines and graphs of other tools are taken in when they are the network, and refused with the numbers when they are not."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter
from signed import save_signed

pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

from calibration.fingerprints import model_hash
from calibration.onnx_file import load_model
from export.adopt import AdoptRequest, adopt_engine, main
from export.compare.adopted_graph import adopt_graph, precision_of
from export.compare.typed_file import LostParityError
from export.engine.builder import build_engine
from export.engine.request import EngineRequest
from export.graph.typed_graph import retype
from export.shipped_clips import DEFAULT_CLIP
from runtime import BackendError, Engine, ModelError
from runtime.backends.tensorrt_library import load_library
from runtime.files.contract import read_contract
from runtime.files.engine_record import BUILT_HERE, REBUILT, UNPROVEN, Profile, load_record, record_path

SHAPE = (1, 5, 64, 96)
FIXED = Profile(SHAPE, SHAPE, SHAPE)
RANGE = Profile((1, 5, 32, 32), SHAPE, (2, 5, 64, 128))
RANGE_OF_ONE = Profile((1, 5, 32, 32), SHAPE, (1, 5, 64, 128))
WINDOW = np.random.default_rng(0).random(SHAPE, np.float32)


def built(onnx_path, engine, profile=FIXED, **options):
    """An engine without a record, as other tools leave it."""
    engine.write_bytes(build_engine(EngineRequest(onnx_path, engine, "tensorrt_rtx", (profile,), **options)).plan)
    return engine


@pytest.fixture(scope="module")
def theirs(tiny_model, tmp_path_factory):
    return built(tiny_model, tmp_path_factory.mktemp("theirs") / "theirs.engine")


@pytest.fixture
def foreign_model(tiny_model, tmp_path):
    """Another network of the same layers, under a contract of its own."""
    model = onnx.load(tiny_model)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[..., ::-1]), tensor.name))
    return save_signed(model, tmp_path / "foreign.onnx")


def copied(engine, folder):
    copy = folder / "copy.engine"
    copy.write_bytes(engine.read_bytes())
    return copy


def adopted(engine, like, profile=FIXED, **more):
    return adopt_engine(AdoptRequest(engine, like, profile=profile, **more))


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        (FIXED, {"compute_capabilities": ((8, 9),)}),
        (FIXED, {"tf32": False}),
        (FIXED, {"profiling_verbosity": "none"}),
        (RANGE, {}),
        (RANGE_OF_ONE, {}),  # whose builds vary in other names, too
    ],
)
def test_an_engine_of_rtx_proves_itself_without_a_gpu(tiny_model, tmp_path, profile, options):
    engine = built(tiny_model, tmp_path / "m.engine", profile, **options)
    record = adopted(engine, tiny_model, profile).record
    assert record == load_record(engine)
    assert record.origin == REBUILT
    assert record.tf32 == options.get("tf32", True)
    assert record.compute_capabilities == options.get("compute_capabilities", ())
    assert record.profiles == (profile,)
    assert record.contract.checkpoint_sha256 == read_contract(tiny_model).checkpoint_sha256
    assert record.type_shares == ({} if options.get("profiling_verbosity") == "none" else {"fp32": 1.0})


def test_an_adopted_engine_is_refused_for_the_driver_alone(theirs, tiny_model, tmp_path, capsys):
    engine = copied(theirs, tmp_path)
    with pytest.raises(ModelError, match=r"has no record .*videodeblur adopt \S+copy\.engine --like"):
        Engine(engine)
    assert main([str(engine), "--like", str(tiny_model), "--optShapes=blurry:1x5x64x96"]) == 0
    told = capsys.readouterr().out
    assert "builds the same bytes from" in told
    assert "not checked: it was not run: no NVIDIA driver" in told
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        Engine(engine)


@pytest.mark.parametrize("profile", [FIXED, RANGE])
def test_an_engine_of_a_foreign_network(foreign_model, tiny_model, tmp_path, profile):
    engine = built(foreign_model, tmp_path / "foreign.engine", profile)
    with pytest.raises(ModelError, match=r"of its \d+ bytes differ, [1-9]\d+ of them in its weights; name the file"):
        adopted(engine, tiny_model, profile)
    assert not record_path(engine).exists()


def test_an_engine_of_other_shapes(theirs, tmp_path, tiny_model):
    engine = copied(theirs, tmp_path)
    with pytest.raises(ModelError, match=r"is not what tensorrt_rtx \S+ builds from .*: [1-9]\d* of its \d+ bytes differ"):
        adopted(engine, tiny_model, RANGE)
    assert not record_path(engine).exists()


def test_an_engine_is_asked_for_its_shapes(theirs, tiny_model, tmp_path, capsys):
    assert main([str(copied(theirs, tmp_path)), "--like", str(tiny_model)]) == 1
    assert "name those it was built for, with --optShapes=blurry:1x5x720x1280" in capsys.readouterr().err


def test_half_an_engine(theirs, tiny_model, tmp_path):
    engine = copied(theirs, tmp_path)
    whole = engine.read_bytes()
    engine.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=rf"has {len(whole) // 2} bytes, its header says {len(whole)}: copy it again"):
        adopted(engine, tiny_model)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x", "y"), "nowhere names a tensor blurry or sharp"),
        (("blurry", "y"), "nowhere names a tensor sharp, expected blurry and sharp"),
        (("blurry", "one", "two", "sharp"), r"[1-9]\d* of its \d+ bytes differ"),
    ],
)
def test_engines_with_other_tensors(tiny_model, tmp_path, names, message):
    library = load_library("tensorrt_rtx")
    builder = library.module.Builder(library.logger)
    network = builder.create_network(0)
    inputs = [network.add_input(name, library.module.float32, SHAPE) for name in names[:-1]]
    summed = inputs[0]
    for other in (inputs[0], *inputs[1:]):
        summed = network.add_elementwise(summed, other, library.module.ElementWiseOperation.SUM).get_output(0)
    summed.name = names[-1]
    network.mark_output(summed)
    engine = tmp_path / "other.engine"
    engine.write_bytes(memoryview(builder.build_serialized_network(network, builder.create_builder_config())))
    with pytest.raises(ModelError, match=message):
        adopted(engine, tiny_model)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (25, 6, r"it was not built again: this machine has tensorrt_rtx 1\.7"),
        (0, ord("f"), "it was not built again: only TensorRT-RTX builds the same each time"),
    ],
)
def test_an_engine_that_nothing_here_knows(theirs, tiny_model, tmp_path, capsys, place, value, reason):
    """One of another release, and one of full TensorRT: their records claim what was read, and say so."""
    engine = copied(theirs, tmp_path)
    data = bytearray(engine.read_bytes())
    data[place] = value
    engine.write_bytes(data)
    assert main([str(engine), "--like", str(tiny_model), "--optShapes=blurry:1x5x64x96"]) == 0
    told = capsys.readouterr().out
    assert load_record(engine).origin == UNPROVEN
    for text in (reason, "it was not run: no NVIDIA driver", "are your word: adopt it again on a machine that runs it"):
        assert re.search(text, told)
    with pytest.raises(BackendError):
        Engine(engine)


def test_a_record_of_our_own_stays(tiny_engine, tiny_model, tmp_path):
    engine = copied(tiny_engine, tmp_path)
    record_path(engine).write_text(record_path(tiny_engine).read_text())
    found = adopted(engine, tiny_model, None)
    assert found.record == load_record(tiny_engine)
    assert found.record.origin == BUILT_HERE


def test_a_record_of_another_checkpoint(tiny_engine, tiny_model, tmp_path):
    engine = copied(tiny_engine, tmp_path)
    record_path(engine).write_text(record_path(tiny_engine).read_text())
    other = save_signed(onnx.load(tiny_model), tmp_path / "other.onnx", checkpoint_sha256="1" * 64)
    with pytest.raises(ModelError, match="is of another checkpoint than"):
        adopted(engine, other, None)


# graphs that other tools rewrote


def renamed(model):
    """Every tensor inside under another name, and no metadata: what most rewriters leave."""
    names = {name for node in model.graph.node for name in (*node.input, *node.output)} - {"blurry", "sharp", ""}
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [f"t_{name}" if name in names else name for name in values]
    for tensor in model.graph.initializer:
        tensor.name = f"t_{tensor.name}"
    del model.graph.value_info[:]
    del model.metadata_props[:]
    return model


def fixed(model):
    for value in (*model.graph.input, *model.graph.output):
        for dim, length in zip(value.type.tensor_type.shape.dim, SHAPE):
            dim.dim_value = length
    return model


def of_opset_21(model):
    converted = version_converter.convert_version(model, 21)
    del converted.metadata_props[:]
    return converted


def weights_as_inputs(model):
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


@pytest.mark.parametrize("rewrite", [renamed, fixed, of_opset_21, weights_as_inputs, lambda model: retype(model, "fp16")])
def test_a_rewritten_graph_gets_a_contract_of_its_own(tiny_model, tmp_path, rewrite):
    theirs, output = tmp_path / "theirs.onnx", tmp_path / "theirs.adopted.onnx"
    onnx.save(rewrite(onnx.load(tiny_model)), theirs)
    with pytest.raises(ModelError, match="videodeblur adopt"):
        load_model(theirs)
    assert main([str(theirs), "--like", str(tiny_model)]) == 0
    model, contract = load_model(output)
    assert contract.graph_sha256 == model_hash(model)
    assert contract.checkpoint_sha256 == read_contract(tiny_model).checkpoint_sha256
    assert contract.precision == ("fp16" if precision_of(model) == "fp16" else "fp32")
    assert (contract.batch, contract.height, contract.width) == ((1, 64, 96) if rewrite is fixed else (None, None, None))
    assert contract.parity["onnxruntime:" + contract.precision] >= 65
    with Engine(output, "onnxruntime") as ours, Engine(tiny_model, "onnxruntime") as reference:
        np.testing.assert_allclose(ours.run(WINDOW), reference.run(WINDOW), atol=2e-3)


def test_a_foreign_graph_is_refused_with_the_numbers(foreign_model, tiny_model, tmp_path):
    with pytest.raises(
        LostParityError, match=r"comes to \d\d\.\d dB of the fp32 file .* expected at least 100: it is another network"
    ):
        adopt_graph(foreign_model, tiny_model, tmp_path / "x.onnx", DEFAULT_CLIP)
    assert not (tmp_path / "x.onnx").exists()


def with_inputs(model, *names):
    model.graph.input[0].name = names[0]
    for node in model.graph.node:
        node.input[:] = [names[0] if name == "blurry" else name for name in node.input]
    for name in names[1:]:
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE))
    return model


def of_height(model, height):
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_value = height
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: with_inputs(model, "x"), "has inputs x and outputs sharp, expected blurry and sharp alone"),
        (lambda model: with_inputs(model, "blurry", "a", "b"), "has inputs blurry, a, b and outputs sharp"),
        (lambda model: of_height(model, 65), "a fixed height of 65, expected a multiple of 8"),
    ],
)
def test_graphs_with_other_ends(tiny_model, tmp_path, change, message):
    onnx.save(change(onnx.load(tiny_model)), tmp_path / "theirs.onnx")
    with pytest.raises(ModelError, match=message):
        adopt_graph(tmp_path / "theirs.onnx", tiny_model, tmp_path / "x.onnx", DEFAULT_CLIP)


def test_a_graph_is_held_to_the_fp32_file(tiny_model, tmp_path):
    typed = save_signed(retype(onnx.load(tiny_model), "fp16"), tmp_path / "fp16.onnx", precision="fp16")
    with pytest.raises(ModelError, match="is in fp16 already, expected fp32"):
        adopt_graph(tiny_model, typed, tmp_path / "x.onnx", DEFAULT_CLIP)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("calib.cache", b"TRT-8601-EntropyCalibration2\nblurry: 3c010a14\n", "is TensorRT's calibration cache"),
        ("ranges.json", b'{"schema": 1}', "is JSON, expected an engine or an .onnx file"),
        ("m.engine", b"not an engine at all", "is no TensorRT engine, it begins with b'not '"),
        ("m.bin", b"vtrt" + bytes(60), r"is a TensorRT engine, expected a name that ends with \.engine, \.plan, \.trt: rename it"),
        ("clip.mp4", b"\0\0\0 ftypisom", "is neither a TensorRT engine nor an .onnx file"),
        ("m.onnx", b"not a model", "is not a whole ONNX file"),
    ],
)
def test_files_that_are_something_else(tiny_model, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name), "--like", str(tiny_model)]) == 1
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert told.count("\n") == 1
