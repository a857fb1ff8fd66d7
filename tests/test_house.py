"""The house rules that a machine can hold: who imports whom, what the runtime drags in, what a file name may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = {  # folder: folders of ours that it may import
    "model": set(),
    "runtime": set(),
    "calibration": {"runtime"},
    "training": {"model", "runtime"},
    "serving": {"runtime"},
    "benchmarks": {"runtime", "model"},
    "export": {"model", "calibration", "runtime"},
}
HEAVY = {  # folder: {library: the files that may import it; None = any of the folder's}
    "model": {"torch": None, "safetensors": None},
    "runtime": {
        "onnxruntime": {"onnxruntime_runner.py", "onnxruntime_cuda_runner.py"},
        "openvino": {"openvino_runner.py"},
        "av": {
            "__init__.py",
            "format.py",
            "reader.py",
            "writer.py",
            "still_pictures.py",
            "scene_cuts.py",
            "segments.py",
            "sources.py",
            "codec_list.py",
            "picture_writer.py",
        },
        "cuda": {"device_memory.py"},
        "skimage": {"ssim.py"},
        "tritonclient": {"triton_runner.py"},
    },
    "calibration": {"onnx": None, "onnxruntime": None},
    "serving": {"ray": {"ray_pool.py"}, "triton_python_backend_utils": {"window.py", "stream.py"}},
}
LIBRARY_NAMES = {"profile", "select", "statistics", "queue", "types", "copy", "inspect", "trace", "onnx", "tensorrt", "cuda", "av"}


def sources(folder):
    return sorted((ROOT / folder).glob("**/*.py"))


def imported_roots(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_downwards(folder):
    for path in sources(folder):
        ours = set(imported_roots(path)) & (set(FOLDERS) | {"videodeblur", "tests"})
        assert ours <= FOLDERS[folder] | {folder}, f"{path.relative_to(ROOT)} imports {ours - FOLDERS[folder]}"


@pytest.mark.parametrize("folder", HEAVY)
def test_heavy_libraries_stay_in_their_file(folder):
    for path in sources(folder):
        for library in set(imported_roots(path)) - sys.stdlib_module_names - set(FOLDERS) - {"numpy"}:
            assert library in HEAVY[folder], f"{path.relative_to(ROOT)} imports {library}"
            files = HEAVY[folder][library]
            assert files is None or path.name in files, f"{path.relative_to(ROOT)} imports {library}, only {files} may"


def test_no_file_shadows_a_library():
    for folder in FOLDERS:
        assert not LIBRARY_NAMES & {path.stem for path in sources(folder)}


def test_runtime_needs_numpy_only():
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "torch onnx av openvino onnxruntime matplotlib safetensors tensorrt tritonclient ray".split():
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
from runtime import Engine
ours = {"runtime", "numpy"} | sys.stdlib_module_names | {"__main__", "sitecustomize"}
print(sorted({name.split(".")[0] for name in sys.modules} - ours))
"""
    found = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    modules = ast.literal_eval(found.stdout)
    # what an editable install leaves in every process is not ours to count
    assert [name for name in modules if not name.startswith(("__editable__", "_distutils_hack"))] == []


@pytest.mark.parametrize(
    "path", [p for folder in FOLDERS for p in sources(folder) if "def main(" in p.read_text()], ids=lambda p: p.name
)
def test_every_command_shows_help_from_anywhere(path, tmp_path):
    found = subprocess.run([sys.executable, str(path), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "usage:" in found.stdout
