"""Names as general as `model` can meet another package's: the first failing import and the doctor name the file and the remedy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.machine import shadows

ROOT = Path(__file__).resolve().parents[1]


def with_first_on_the_path(folder, code):
    """An editable install would find our modules inside another's packages too; here Python looks along the path alone."""
    plain = "sys.meta_path[:] = [finder for finder in sys.meta_path if 'Editable' not in getattr(finder, '__name__', '')]"
    start = f"import sys; {plain}; sys.path.insert(0, {str(ROOT)!r}); import videodeblur; sys.path.insert(0, {str(folder)!r})"
    return subprocess.run([sys.executable, "-c", f"{start}\n{code}"], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("foreign", "command"),
    [("model.py", "train"), ("export/__init__.py", "verify"), ("serving/__init__.py", "join"), ("runtime.py", "doctor")],
)
def test_failing_import_names_the_file_and_the_remedy(foreign, command, tmp_path):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("")
    found = with_first_on_the_path(tmp_path, f"raise SystemExit(videodeblur.main([{command!r}, '--help']))")
    assert found.returncode == 1
    package = foreign.partition("/")[0].removesuffix(".py")
    told = f"error: Python takes {tmp_path / foreign} for the package {package!r} of videodeblur: {shadows.REMEDY}\n"
    assert found.stderr == told


def test_library_that_is_shadowed_is_named(tmp_path):
    (tmp_path / "runtime.py").write_text("")
    found = with_first_on_the_path(tmp_path, "from videodeblur import Engine")
    assert f"ImportError: Python takes {tmp_path / 'runtime.py'} for the package 'runtime'" in found.stderr


def test_other_failing_imports_stay_what_they_are(tmp_path):
    (tmp_path / "training.py").write_text("")
    (tmp_path / "onnx.py").write_text("")
    found = with_first_on_the_path(tmp_path, "videodeblur.main(['verify', '--help'])")
    assert "Traceback" in found.stderr
    assert "onnx" in found.stderr.splitlines()[-1]


def test_doctor_tells_of_shadows_and_goes_on(tmp_path):
    (tmp_path / "model.py").write_text("")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").write_text("")
    found = with_first_on_the_path(tmp_path, "raise SystemExit(videodeblur.main(['doctor', '--json']))")
    assert found.returncode == 0, found.stderr
    warned = [finding["text"] for finding in json.loads(found.stdout)["findings"] if finding["remedy"] == shadows.REMEDY]
    assert [text.split()[2] for text in warned] == [str(tmp_path / "model.py"), str(tmp_path / "export" / "__init__.py")]


def test_files_put_over_ours_are_told(tmp_path, monkeypatch):
    for name, file in (("videodeblur", "model/__init__.py"), ("other", "model/__init__.py"), ("third", "model/more.py")):
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (tmp_path / f"{name}-1.0.dist-info" / "RECORD").write_text(f"{file},,\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(shadows, "HOME", tmp_path.resolve())
    assert shadows.overwriters("model") == ["other"]
    assert shadows.overwriters("export") == []


def test_ours_are_ours_and_all_are_named():
    assert [name for name in shadows.OURS if shadows.shadow(name) or shadows.overwriters(name)] == []
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(shadows.OURS)
    assert shadows.shadow("numpy") is None
