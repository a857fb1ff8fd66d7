"""Records of engines: what they refuse, and that everything is refused before a library could see the file."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from runtime import BackendError, Engine, InputError, ModelError
from runtime.files.engine_record import Profile, load_record, read_header, record_path
from runtime.files.records import read_record

SHAPE = (1, 5, 64, 96)


@pytest.fixture
def engine(tiny_engine, tmp_path):
    """A copy of the engine and its record, to be damaged."""
    path = tmp_path / "copy.engine"
    path.write_bytes(tiny_engine.read_bytes())
    record_path(path).write_text(record_path(tiny_engine).read_text())
    return path


@pytest.fixture
def record(tiny_engine):
    return load_record(tiny_engine)


def rewrite(engine, **changes):
    values = json.loads(record_path(engine).read_text())
    record_path(engine).write_text(json.dumps({**values, **changes}))


def test_record_survives_a_file(record, engine):
    record.save(engine)
    assert load_record(engine) == record


def test_record_holds_the_facts(record):
    assert record.library == "tensorrt_rtx"
    assert record.profiles == (Profile(SHAPE, SHAPE, SHAPE),)
    assert record.contract.frames == 5
    assert record.type_shares == {"fp32": 1.0}
    assert record.precision == "tf32"
    assert dataclasses.replace(record, tf32=False).precision == "fp32"


def test_header_agrees_with_the_record(record, engine):
    assert read_header(engine) == (record.library, record.version)


@pytest.mark.parametrize("content", [b"", b"ftrt", b"PK\x03\x04" + bytes(40)])
def test_file_without_a_header(tmp_path, content):
    (tmp_path / "m.engine").write_bytes(content)
    with pytest.raises(ModelError, match="is no TensorRT engine"):
        read_header(tmp_path / "m.engine")


@pytest.mark.parametrize(
    ("library", "version", "capability", "message"),
    [
        ("tensorrt", "1.7.1", (8, 9), "built by tensorrt_rtx, this machine has tensorrt"),
        ("tensorrt_rtx", "1.8.0.10", (8, 9), r"built by tensorrt_rtx 1\.7\.\S+, this machine has 1\.8\.0\.10"),
        ("tensorrt_rtx", "1.7.1.200", (7, 5), r"compute capability 8\.6, 8\.9, this is 7\.5"),
    ],
)
def test_machine_that_cannot_run_it(record, library, version, capability, message):
    ada = dataclasses.replace(record, compute_capabilities=((8, 6), (8, 9)))
    with pytest.raises(BackendError, match=message):
        ada.check_machine(library, version, capability)


def test_machines_that_can(record):
    record.check_machine("tensorrt_rtx", record.version, (12, 0))
    dataclasses.replace(record, compute_capabilities=((8, 9),)).check_machine("tensorrt_rtx", record.version, (8, 9))
    ampere = dataclasses.replace(record, compute_capabilities=((8, 6),), hardware_compatibility="ampere+")
    ampere.check_machine("tensorrt_rtx", record.version, (12, 0))
    lasting = dataclasses.replace(record, library="tensorrt", version="10.3.0", version_compatible=True)
    lasting.check_machine("tensorrt_lean", "11.4.0.106", (8, 9))
    with pytest.raises(BackendError, match="this machine has 8"):
        lasting.check_machine("tensorrt_lean", "8.6.0", (8, 9))


def test_stripped_weights(record):
    with pytest.raises(BackendError, match="without --stripWeights"):
        dataclasses.replace(record, stripped=True).check_machine("tensorrt_rtx", record.version, (8, 9))


def test_contract_is_narrowed_to_what_the_engine_takes(record):
    assert (record.contract.batch, record.contract.height, record.contract.width) == (None, None, None)
    assert (record.narrowed.batch, record.narrowed.height, record.narrowed.width) == (1, 64, 96)
    ranged = dataclasses.replace(record, profiles=(Profile(SHAPE, SHAPE, (1, 5, 64, 128)),)).narrowed
    assert (ranged.batch, ranged.height, ranged.width) == (1, 64, None)


def test_profile_of_a_shape(record):
    two = dataclasses.replace(record, profiles=(*record.profiles, Profile((1, 5, 64, 64), (1, 5, 720, 1280), (2, 5, 1088, 1920))))
    assert two.profile_of(SHAPE) == 0
    assert two.profile_of((2, 5, 720, 1280)) == 1
    with pytest.raises(InputError, match=r"got \(3, 5, 64, 96\), this engine takes .* or .*: build one"):
        two.profile_of((3, 5, 64, 96))


def test_changed_engine(engine):
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)
    with pytest.raises(ModelError, match=r"copy\.engine has sha256 .*copy both files again"):
        Engine(engine)


def test_missing_files(engine):
    record_path(engine).unlink()
    with pytest.raises(ModelError, match=r"has no record copy\.engine\.json"):
        Engine(engine)
    engine.unlink()
    with pytest.raises(ModelError, match="no such engine file"):
        Engine(engine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "has schema 2, this version reads 1: update"),
        ({"version": 11.4}, "version: got 11.4, expected str"),
        ({"version": "newest"}, "the version is 'newest'"),
        ({"library": "tensorflow"}, "it names tensorflow"),
        ({"compute_capabilities": [[8]]}, "compute_capabilities: got 1 values, expected 2"),
        ({"profiles": []}, "it has no profile"),
        ({"profiles": [{"min": [1], "opt": [2], "max": [1]}]}, "expected 1 <= min <= opt <= max"),
        ({"profiles": [{"min": [1], "opt": "2"}]}, "profiles: opt: got '2', expected a list"),
        ({"type_shares": {"fp16": "all"}}, "type_shares: got 'all', expected a number"),
        ({"tf32": 1}, "tf32: got 1, expected bool"),
        ({"contract": None}, "contract: got None for Contract, expected an object"),
    ],
)
def test_damaged_record(engine, change, message):
    rewrite(engine, **change)
    with pytest.raises(ModelError, match=message):
        load_record(engine)


def test_contract_that_cannot_be_true(engine):
    contract = json.loads(record_path(engine).read_text())["contract"]
    rewrite(engine, contract={**contract, "frames": 0})
    with pytest.raises(ModelError, match="cannot be true"):
        load_record(engine)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"schema": NaN}'])
def test_record_that_is_no_record(engine, text):
    record_path(engine).write_text(text)
    with pytest.raises(ModelError):
        load_record(engine)


def test_unknown_keys_are_ignored(engine):
    rewrite(engine, colour="blue")
    assert load_record(engine).library == "tensorrt_rtx"


@dataclasses.dataclass(frozen=True)
class Everything:
    text: str
    whole: int | None
    pairs: tuple[tuple[int, str], ...]
    table: dict[str, float]
    anything: Any = None


def test_json_becomes_the_annotated_types():
    found = read_record(Everything, {"text": "a", "whole": None, "pairs": [[1, "b"]], "table": {"c": 2}, "anything": [3]})
    assert found == Everything("a", None, ((1, "b"),), {"c": 2.0}, [3])
    with pytest.raises(ValueError, match="whole is missing"):
        read_record(Everything, {"text": "a"})


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "onnxruntime-cuda"])
def test_engine_on_another_backend(tiny_engine, backend):
    with pytest.raises(InputError, match=r"is a TensorRT engine, .* runs \.onnx files"):
        Engine(tiny_engine, backend=backend)


def test_engine_in_another_precision(tiny_engine):
    with pytest.raises(InputError, match="computes in tf32, not fp16"):
        Engine(tiny_engine, precision="fp16")


def test_model_on_tensorrt(tiny_model):
    with pytest.raises(InputError, match=r"TensorRT runs engines.*to_engine\.py"):
        Engine(tiny_model, backend="tensorrt")
