"""The whole way from a checkpoint to an opened bundle, on a tiny network."""

import json

import pytest

from export import ship as ship_module
from export.ship import ShipOptions, main
from runtime import Engine, InputError
from runtime.files.manifest import load_manifest


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    monkeypatch.setattr(ship_module, "CALIBRATION_WINDOWS", 1)


def asked(checkpoint, output, *more):
    return [
        str(checkpoint),
        "--output",
        str(output),
        "--target",
        "cpu",
        "--target",
        "rtx",
        "--for",
        "96x64",
        "--windows",
        "1",
        *more,
    ]


def test_checkpoint_becomes_a_bundle_that_runs(tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "x.bundle"
    assert main(asked(tiny_checkpoint, output)) == 0
    told = capsys.readouterr()
    assert "tiny.fp16.onnx: fp16" in told.out
    assert told.out.count("passed") == 2
    manifest = load_manifest(output)
    assert [member.file for member in manifest.members] == ["tiny-rtx-96x64-fp16.engine", "tiny.onnx"]
    gates = json.loads((output / "ship.json").read_text())
    assert {gate["precision"] for gate in gates} == {"fp16", "fp32"}
    with Engine(output) as engine:
        assert engine.contract.checkpoint_sha256 == manifest.checkpoint_sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bundle", "x.bundle.html"]
    assert "tiny.fp16.onnx" in (tmp_path / "x.bundle.html").read_text()  # a gate


def test_gate_that_fails_leaves_nothing(tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "x.bundle"
    assert main([str(tiny_checkpoint), "--output", str(output), "--windows", "1", "--min-psnr", "1000dB"]) == 1
    told = capsys.readouterr()
    assert "FAILED" in told.out
    assert "was not written" in told.err
    assert not list(tmp_path.iterdir())


def test_bundle_that_is_there(tmp_path):
    with pytest.raises(InputError, match="is there already"):
        ShipOptions(tmp_path)
    with pytest.raises(InputError, match="expected some of cpu, tensorrt, rtx"):
        ShipOptions(tmp_path / "x", targets=("tpu",))
