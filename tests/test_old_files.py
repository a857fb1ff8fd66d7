"""Files written before the folders had rooms are read, and would be written again as they are but for younger fields:
formats stay when code moves.

`old_files/` has them of a tiny network: a bundle's manifest, an engine's record, the contract in an ONNX file, and of the ranges
the first tensors.
"""

import json
from pathlib import Path

import pytest

from calibration.ranges import Ranges
from runtime.files import engine_record
from runtime.files.contract import Contract
from runtime.files.engine_record import EngineRecord, Profile, record_path
from runtime.files.manifest import MANIFEST, load_manifest
from runtime.files.records import parse_object, read_record

OLD = Path(__file__).with_name("old_files")
YOUNGER = {"graph_sha256": None}  # fields of a contract that these files had not


def test_manifest(tmp_path):
    manifest = load_manifest(OLD)
    assert [member.file for member in manifest.members] == ["tiny.engine", "tiny.onnx"]
    manifest.save(tmp_path)
    saved, before = (json.loads((folder / MANIFEST).read_text()) for folder in (tmp_path, OLD))
    assert saved == {**before, "members": [{**member, "loss": None} for member in before["members"]]}


def test_engine_record(tmp_path):
    old = record_path(OLD / "tiny.engine")
    record = engine_record._parse(old)
    assert record == read_record(EngineRecord, parse_object(old.read_text()))
    assert record.profiles == (Profile((1, 5, 64, 96), (1, 5, 64, 96), (1, 5, 64, 96)),)
    record.save(tmp_path / "tiny.engine")
    saved, before = (json.loads(path.read_text()) for path in (tmp_path / "tiny.engine.json", old))
    younger = {"measured": None, "origin": "built here", "tensors": ["blurry", "sharp"]}
    assert saved == {**before, **younger, "contract": {**before["contract"], **YOUNGER}}


def test_contract():
    text = (OLD / "contract.json").read_text().strip()
    assert Contract.from_json(text).parity["openvino:bf16"] == 79.01
    assert json.loads(Contract.from_json(text).to_json()) == {**json.loads(text), **YOUNGER}


def test_ranges(tmp_path):
    ranges = Ranges.load(OLD / "ranges.json")
    assert ranges.scale("blurry", "int8") == pytest.approx(0.0077, abs=1e-4)
    ranges.save(tmp_path / "ranges.json")
    assert json.loads((tmp_path / "ranges.json").read_text()) == json.loads((OLD / "ranges.json").read_text())
