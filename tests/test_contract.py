"""The contract is read from real ONNX files without the onnx library; damaged files are told from foreign ones."""

import dataclasses
import json
import random

import onnx
import pytest
from onnx import TensorProto, helper

from calibration.onnx_file import load_onnx
from runtime import Engine
from runtime.errors import DeployError, ModelError
from runtime.files.contract import METADATA_KEY, Contract, read_contract, read_metadata, read_versions
from runtime.files.onnx_fields import DATA_LOCATION, EXTERNAL_DATA, HOLDS

CONTRACT = Contract(
    frames=5,
    multiple=8,
    receptive_field=150,
    io="f32",
    bits=None,
    color_range=None,
    batch=None,
    height=None,
    width=None,
    precision="fp32",
    checkpoint_sha256="0" * 64,
    configuration={"frames": 5},
    parity={"onnxruntime:fp32": 120.5},
)


@pytest.fixture
def model(tmp_path):
    def save(**metadata):
        value = helper.make_tensor_value_info("blurry", TensorProto.FLOAT, [1])
        weight = helper.make_tensor("w", TensorProto.FLOAT, [1000], [0.5] * 1000)
        graph = helper.make_graph([helper.make_node("Identity", ["blurry"], ["blurry"])], "g", [value], [value], [weight])
        proto = helper.make_model(graph)
        helper.set_model_props(proto, metadata)
        onnx.save(proto, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return save


def test_round_trip(model):
    path = model(other="x", **{METADATA_KEY: CONTRACT.to_json()})
    assert read_contract(path) == CONTRACT
    assert read_metadata(path)["other"] == "x"


def test_versions(model):
    path = model()
    proto = onnx.load(path)
    proto.ir_version = 9
    del proto.opset_import[:]
    proto.opset_import.extend([helper.make_opsetid("ai.onnx.ml", 30), helper.make_opsetid("", 17)])
    onnx.save(proto, path)
    assert read_versions(path) == (9, 17)


def test_onnx_of_another_network(model):
    with pytest.raises(ModelError, match="without this project's contract"):
        read_contract(model(producer="someone"))


def test_contract_of_a_newer_version(model):
    newer = json.loads(CONTRACT.to_json()) | {"schema": 2, "surprise": 1}
    with pytest.raises(ModelError, match="schema 2, this version reads 1"):
        read_contract(model(**{METADATA_KEY: json.dumps(newer)}))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', "null"])
def test_damaged_contract(model, text):
    with pytest.raises(ModelError, match="export it again"):
        read_contract(model(**{METADATA_KEY: text}))


def test_unknown_fields_of_the_same_schema_are_ignored():
    values = dataclasses.asdict(CONTRACT) | {"comment": "later addition"}
    assert Contract.from_json(json.dumps(values)) == CONTRACT


def test_file_cut_anywhere_is_not_whole(model):
    path = model(**{METADATA_KEY: CONTRACT.to_json()})
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            read_contract(path)


def test_mutated_files_never_escape_the_error_tree(model):
    path, chance = model(**{METADATA_KEY: CONTRACT.to_json()}), random.Random(0)
    whole = path.read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_contract(path)
            read_versions(path)
        except DeployError:
            refused += 1
    assert refused > 0


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        read_contract(tmp_path / "none.onnx")


def test_text_file(tmp_path):
    (tmp_path / "m.onnx").write_text("this is not a model\n" * 10)
    with pytest.raises(ModelError, match="not a whole ONNX file"):
        read_contract(tmp_path / "m.onnx")


def held(value):
    """The field numbers of onnx's own description, as `HOLDS` has them."""
    known = {"GraphProto": "graph", "TrainingInfoProto": "training", "FunctionProto": "function", "NodeProto": "node"}
    known |= {"AttributeProto": "attribute", "TensorProto": "tensor", "SparseTensorProto": "sparse"}
    fields = [field for field in value.DESCRIPTOR.fields if field.message_type and field.message_type.name in known]
    return {field.number: known[field.message_type.name] for field in fields}


def test_every_way_from_a_model_to_a_tensor_is_known():
    kinds = {"model": onnx.ModelProto, "training": onnx.TrainingInfoProto, "function": onnx.FunctionProto, "graph": onnx.GraphProto}
    kinds |= {"node": onnx.NodeProto, "attribute": onnx.AttributeProto, "sparse": onnx.SparseTensorProto, "tensor": TensorProto}
    assert {kind: held(value) for kind, value in kinds.items()} == HOLDS
    assert (TensorProto.EXTERNAL_DATA_FIELD_NUMBER, TensorProto.DATA_LOCATION_FIELD_NUMBER) == (EXTERNAL_DATA, DATA_LOCATION)


def external(tensor):
    """The tensor as one whose bytes are an address in the process that loads it."""
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "4096"), ("length", "4000")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def in_a_subgraph(proto, tensor):
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    proto.graph.node.append(helper.make_node("If", ["blurry"], ["x"], then_branch=inner, else_branch=inner))


def in_a_function(proto, tensor):
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    proto.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 17)]))


@pytest.mark.parametrize(
    "put",
    [
        lambda proto, tensor: proto.graph.initializer.append(tensor),
        lambda proto, tensor: proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor)),
        lambda proto, tensor: proto.graph.sparse_initializer.add().values.CopyFrom(tensor),
        lambda proto, tensor: proto.training_info.add().algorithm.initializer.append(tensor),
        in_a_subgraph,
        in_a_function,
    ],
)
def test_data_outside_of_the_file_is_refused_wherever_the_tensor_is(model, put):
    path = model(**{METADATA_KEY: CONTRACT.to_json()})
    proto = onnx.load(path)
    put(proto, external(helper.make_tensor("w", TensorProto.FLOAT, [1000], [0.5] * 1000)))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="keeps data outside of itself, expected one whole file: save it without external data"):
        read_contract(path)
    with pytest.raises(ModelError, match="keeps data outside of itself"):
        load_onnx(path)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "onnxruntime-cuda", "auto"])
def test_no_backend_opens_a_model_with_data_outside_of_it(tiny_model, tmp_path, backend):
    proto = onnx.load(tiny_model)
    external(proto.graph.initializer[0])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="keeps data outside of itself"):
        Engine(tmp_path / "m.onnx", backend)


def test_messages_that_nest_without_end_are_refused(tmp_path):
    inside = b""
    for _ in range(2000):
        node = b"\x2a" + length(b"\x32" + length(inside))  # attribute 5 of a node, graph 6 of an attribute
        inside = b"\x0a" + length(node)
    (tmp_path / "m.onnx").write_bytes(b"\x3a" + length(inside))
    with pytest.raises(ModelError, match="it nests too deeply"):
        read_contract(tmp_path / "m.onnx")


def length(payload):
    """The payload with its length before it, as protobuf has it."""
    left, coded = len(payload), bytearray()
    while left > 0x7F:
        coded.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*coded, left]) + payload
