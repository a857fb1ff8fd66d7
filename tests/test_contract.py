"""The contract is read from real ONNX files without the onnx library; damaged files are told from foreign ones."""

import dataclasses
import json
import random

import onnx
import pytest
from onnx import TensorProto, helper

from runtime.errors import DeployError, ModelError
from runtime.files.contract import METADATA_KEY, Contract, read_contract, read_metadata, read_versions

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
