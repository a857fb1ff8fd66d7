"""The models that come with the package: bundles, made of the shipped weights by the exporter as it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model import default_checkpoint, load_checkpoint, sizes
from runtime import Engine, ModelError, default_model
from runtime.files.manifest import load_manifest
from runtime.files.on_disk import file_sha256
from runtime.pixels.metrics import psnr
from runtime.run import options


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that ships two sizes."""
    for size in ("light", "paper"):
        (tmp_path / f"model/weights/videodeblur_{size}.bundle").mkdir(parents=True)
    monkeypatch.setattr(default_model, "ROOT", tmp_path)
    return tmp_path / "model/weights"


def test_a_shipped_size_is_asked_for_by_name(project, monkeypatch):
    asked = []

    def engine(path, *rest, fastest_at=None, budget=None):
        asked.append((path, fastest_at, budget))
        raise InterruptedError

    monkeypatch.setattr(options, "Engine", engine)
    light, paper, other = project / "videodeblur_light.bundle", project / "videodeblur_paper.bundle", Path("other.onnx")
    for name, expected in (("paper", paper), (None, light), ("other.onnx", other)):
        with pytest.raises(InterruptedError):
            options.open_engine(options.DeblurOptions(Path("a.mp4"), Path("b.mp4"), model=name and Path(name)), (72, 128), print)
        assert asked.pop() == ((expected, None, None) if expected is other else (expected, (72, 128), 0.05))


def test_what_is_not_shipped_is_named_with_what_to_bring(project):
    with pytest.raises(ModelError, match=r"no model of size 'huge' is shipped, only light, paper: .*videodeblur export.*--model"):
        default_model.default_model("huge")


def test_the_default_size_is_that_of_the_checkpoints():
    assert default_model.SIZE == sizes.DEFAULT_SIZE
    assert set(default_model.shipped_sizes()) <= sizes.SIZES.keys()
    assert default_model.SIZE in default_model.shipped_sizes()


def test_the_shipped_bundle_is_of_the_shipped_weights():
    manifest = load_manifest(default_model.default_model())
    assert manifest.checkpoint_sha256 == file_sha256(default_checkpoint())


def test_the_shipped_graph_computes_what_the_shipped_weights_do():
    """Else whoever runs without a model runs another network than whoever exports it."""
    window = np.random.default_rng(0).random((1, 5, 64, 96), np.float32)
    with torch.inference_mode():
        expected = load_checkpoint(default_checkpoint()).eval()(torch.from_numpy(window)).numpy()
    with Engine(default_model.default_onnx(), "onnxruntime") as engine:
        assert psnr(engine.run(window), expected, 1.0) > 100


def test_every_shipped_member_keeps_the_promise():
    manifest = load_manifest(default_model.default_model())
    assert {member.precision for member in manifest.members} == {"fp32", "int8"}
    assert all(member.loss is not None and member.loss <= 0.05 for member in manifest.members)
    with Engine(default_model.default_model()) as engine:
        assert "golden frames" in engine.reason
