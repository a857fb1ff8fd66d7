"""The model that is used when none is named: exported once, by a real subprocess, into the user's cache."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from model import sizes
from runtime import ModelError, default_model
from runtime.run import options

EXPORTER = """
import os, sys, time
from pathlib import Path
output = Path(sys.argv[sys.argv.index("--output") + 1])
output.write_bytes(b"half")
time.sleep(0.3)
output.write_bytes(b"whole")
print("exported", output.name)
with Path(__file__).with_name("calls").open("a") as calls:
    calls.write("x")
if {status}:
    print("error: no room", file=sys.stderr)
sys.exit({status})
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose export is quick, and an empty cache."""
    for folder in ("model/weights", "export", "runtime"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    (tmp_path / "project/model/weights/videodeblur_light.safetensors").write_bytes(b"weights")
    (tmp_path / "project/export/to_onnx.py").write_text(EXPORTER.format(status=0))
    monkeypatch.setattr(default_model, "ROOT", tmp_path / "project")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "project"


def calls(project):
    path = project / "export/calls"
    return len(path.read_text()) if path.exists() else 0


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_is_exported_once_and_says_so(project, tmp_path):
    said = []
    first = default_model.default_model(said.append)
    again = default_model.default_model(said.append)
    assert first == again
    assert first.read_bytes() == b"whole"
    assert (calls(project), len(said)) == (1, 1)
    assert str(first) in said[0]
    assert first.parent == tmp_path / "cache/videodeblur"


@pytest.mark.parametrize(
    "changed",
    ["model/weights/videodeblur_light.safetensors", "export/to_onnx.py", "export/network/graph.py", "export/graph/opset17.py"],
)
def test_other_weights_or_another_exporter_are_another_file(changed, project):
    first = default_model.default_model(print)
    path = project / changed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"#")
    assert default_model.default_model(print) != first
    assert calls(project) == 2


@pytest.mark.parametrize("edited", ["export/to_qdq.py", "export/report/page.py", "export/engine/flags.py"])
def test_what_does_not_make_the_graph_may_be_edited(edited, project):
    first = default_model.default_model(print)
    (project / edited).parent.mkdir(parents=True, exist_ok=True)
    (project / edited).write_text("# other words")
    assert default_model.default_model(print) == first
    assert calls(project) == 1


def test_what_makes_the_graph_is_there():
    for pattern in default_model.MADE_BY:
        assert list(default_model.ROOT.glob(pattern)), pattern


def test_runs_at_the_same_time_do_not_disturb_each_other(project, tmp_path):
    code = """
import sys
from pathlib import Path
from runtime import default_model
default_model.ROOT = Path(sys.argv[1])
path = default_model.default_model(print)
assert path.read_bytes() == b"whole", path.read_bytes()
"""
    command = [sys.executable, "-c", code, str(project)]
    root = default_model.__file__.rsplit("/runtime/", 1)[0]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: subprocess.run(command, cwd=root, capture_output=True, text=True), range(3)))
    assert [process.returncode for process in done] == [0, 0, 0], done
    assert len(names(tmp_path / "cache/videodeblur")) == 1


def test_a_failed_export_leaves_nothing(project, tmp_path):
    (project / "export/to_onnx.py").write_text(EXPORTER.format(status=1))
    with pytest.raises(ModelError, match=r"checkpoint failed \(error: no room\): .*export\.to_onnx.* --model"):
        default_model.default_model(print)
    assert names(tmp_path / "cache/videodeblur") == []


def test_without_torch_the_file_to_bring_is_named(project, monkeypatch):
    monkeypatch.setattr(default_model, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs torch and onnx: .*python -m export.to_onnx --output deblur.onnx.*--model"):
        default_model.default_model(print)
    assert calls(project) == 0


def test_without_torch_an_exported_model_still_serves(project, monkeypatch):
    path = default_model.default_model(print)
    monkeypatch.setattr(default_model, "find_spec", lambda name: None)
    assert default_model.default_model(print) == path


def test_without_a_checkpoint_the_file_to_bring_is_named(project):
    (project / "model/weights/videodeblur_light.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights of size 'light' are shipped, only none: .*--model"):
        default_model.default_model(print)


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(project, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")
    with pytest.raises(ModelError, match="set XDG_CACHE_HOME to a folder that can be written"):
        default_model.default_model(print)


def test_a_shipped_size_is_asked_for_by_name(project, monkeypatch):
    (project / "model/weights/videodeblur_paper.safetensors").write_bytes(b"wide")
    assert default_model.shipped_sizes() == ["light", "paper"]
    light, paper = default_model.default_model(print), default_model.default_model(print, "paper")
    assert light.stem.startswith("videodeblur_light-")
    assert paper.stem.startswith("videodeblur_paper-")
    asked = []
    monkeypatch.setattr(options, "Engine", lambda path, *rest: asked.append(path) or SimpleNamespace(reason=""))
    for name, expected in (("paper", paper), (None, light), ("other.onnx", Path("other.onnx"))):
        options.open_engine(options.DeblurOptions(Path("a.mp4"), Path("b.mp4"), model=name and Path(name)), print)
        assert asked.pop() == expected


def test_the_default_size_is_that_of_the_checkpoints():
    assert default_model.SIZE == sizes.DEFAULT_SIZE
    assert set(default_model.shipped_sizes()) <= sizes.SIZES.keys()
