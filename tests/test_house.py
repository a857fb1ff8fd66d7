"""The house rules that a machine can hold: who imports whom, what the runtime drags in, what a file name may be."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = {  # folder: folders of ours that it may import
    "model": set(),
    "runtime": set(),
    "calibration": {"runtime"},
    "training": {"model", "runtime"},
    "serving": {"runtime"},
    "benchmarks": {"runtime", "model", "serving"},  # the last for the simulated cluster alone, see ROOMS
    "export": {"model", "calibration", "runtime"},
    "videodeblur": {"runtime"},
}
MOST_FILES = {"runtime": 17, "export": 20, "benchmarks": 12, "serving": 8}  # at the top of a folder
ENGINE = ("runtime/bundle.py", "runtime/backends/", "runtime/files/", "runtime/pixels/", "runtime/errors.py")
ROOMS = {  # room, or a file of one: the rooms and files of ours that it may import beside itself
    "runtime/errors.py": (),
    "runtime/progress.py": (),
    "runtime/encoder_options.py": ("runtime/errors.py",),
    "runtime/command_line.py": ("runtime/errors.py",),
    "runtime/machine/": ("runtime/errors.py",),
    "runtime/files/": ("runtime/errors.py",),
    "runtime/pixels/": ("runtime/errors.py",),
    "runtime/pixels/ssim.py": ("runtime/errors.py", "runtime/machine/requirements.py"),
    "runtime/backends/": ("runtime/errors.py", "runtime/files/", "runtime/machine/"),
    "runtime/bundle.py": (*ENGINE, "runtime/machine/"),  # for the bundle's test of itself, else it were one of the files
    "runtime/life.py": (*ENGINE, "runtime/machine/forks.py"),
    "runtime/submissions.py": ENGINE,
    "runtime/streaming.py": ENGINE,
    "runtime/fastest.py": (*ENGINE, "runtime/machine/"),
    "runtime/engine.py": (*ENGINE, "runtime/fastest.py", "runtime/submissions.py", "runtime/life.py"),
    "runtime/telemetry.py": ("runtime/engine.py", "runtime/files/"),
    "runtime/default_model.py": ("runtime/files/", "runtime/progress.py", "runtime/errors.py"),
    "runtime/__init__.py": (
        *ENGINE,
        "runtime/engine.py",
        "runtime/streaming.py",
        "runtime/telemetry.py",
        "runtime/machine/no_telemetry.py",
    ),
    "runtime/video/": (  # no engine
        "runtime/errors.py",
        "runtime/files/",
        "runtime/machine/requirements.py",
        "runtime/machine/scheduling.py",
        "runtime/pixels/",
        "runtime/encoder_options.py",
    ),
    "runtime/run/": (
        *ENGINE,
        "runtime/fastest.py",
        "runtime/engine.py",
        "runtime/streaming.py",
        "runtime/telemetry.py",
        "runtime/default_model.py",
        "runtime/video/",
        "runtime/machine/",
        "runtime/encoder_options.py",
        "runtime/progress.py",
        "runtime/command_line.py",
    ),
    "export/shipped_clips.py": (),
    "export/export_options.py": ("export/shipped_clips.py", "runtime/"),
    "export/report/": ("runtime/",),
    "export/graph/": ("calibration/", "runtime/"),
    "export/engine/": ("runtime/",),
    "export/compare/": ("export/graph/", "export/shipped_clips.py", "calibration/", "runtime/"),
    "export/compare/open_any.py": ("export/compare/", "model/", "runtime/"),
    "export/network/": (
        "calibration/fingerprints.py",
        "export/graph/",
        "export/compare/",
        "export/export_options.py",
        "export/shipped_clips.py",
        "model/",
        "runtime/",
    ),
    "benchmarks/shared/": ("runtime/",),
    "benchmarks/kernels/": ("runtime/",),
    "benchmarks/peers/": ("benchmarks/shared/", "model/", "runtime/"),
    "benchmarks/table/": ("benchmarks/shared/", "benchmarks/peers/", "benchmarks/roofline.py", "model/", "runtime/"),
    "benchmarks/gpu/": ("benchmarks/table/", "benchmarks/shared/", "model/", "runtime/"),
    "benchmarks/studies/cluster_model.py": ("benchmarks/shared/", "runtime/", "serving/library/"),
    "benchmarks/studies/": ("benchmarks/table/", "benchmarks/shared/", "model/", "runtime/"),
    "serving/library/": ("runtime/",),
    "serving/triton_server/": ("runtime/",),
}
AT_THE_END = {  # what nothing imports but these: the commands of `runtime`, and what starts as a file
    "runtime/deblur_video.py": ("export/report/try_member.py", "benchmarks/"),
    "runtime/plan_video.py": (),
    "runtime/doctor.py": (),
    "runtime/probes.py": ("runtime/doctor.py",),
}
READ_BY_A_ROOM = {"runtime/deblur_video.py", "benchmarks/roofline.py"}  # commands that are libraries too, where ROOMS lets them
HEAVY = {  # folder: {library: the room or file that may import it}
    "model": {"torch": "model/", "safetensors": "model/"},
    "runtime": {
        "av": "runtime/video/",
        "onnxruntime": "runtime/backends/onnxruntime",  # on a CPU and on CUDA
        "openvino": "runtime/backends/openvino_runner.py",
        "cuda": "runtime/backends/device_memory.py",
        "tritonclient": "runtime/backends/triton_runner.py",
        "skimage": "runtime/pixels/ssim.py",
        "model_signing": "runtime/files/signatures.py",
    },
    "calibration": {"onnx": "calibration/", "onnxruntime": "calibration/"},
    "serving": {"ray": "serving/library/ray_pool.py", "triton_python_backend_utils": "serving/triton_server/models/"},
    "export": {
        "torch": "export/network/",
        "onnx": (
            *("export/network/", "export/graph/", "export/compare/"),
            *("export/to_", "export/search_precision.py", "export/type_shares.py"),
        ),
        "ml_dtypes": "export/graph/",
    },
    "videodeblur": {"vapoursynth": "videodeblur/vapoursynth.py"},
}
LIBRARY_NAMES = {"profile", "select", "statistics", "queue", "types", "copy", "inspect", "trace", "onnx", "tensorrt", "cuda", "av"}


def sources(folder):
    return sorted((ROOT / folder).glob("**/*.py"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@cache
def imported(path):
    """(names of other people's modules, files of ours) that a file imports anywhere, in a function too."""
    theirs, ours = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in names:
            if module.split(".")[0] in {*FOLDERS, "tests"}:
                ours.add(file_of(f"{module}.{name}") or file_of(module))
            else:
                theirs.add(module.split(".")[0])
    return theirs, ours


def file_of(module):
    path = ROOT.joinpath(*module.split("."))
    return next((name_of(file) for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_downwards(folder):
    for path in sources(folder):
        ours = {file.split("/")[0] for file in imported(path)[1]}
        assert ours <= FOLDERS[folder] | {folder}, f"{name_of(path)} imports {ours - FOLDERS[folder]}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_what_they_may(room):
    for path in [ROOT / room] if room.endswith(".py") else sources(room):
        here = name_of(path)
        if room == max((each for each in ROOMS if here.startswith(each)), key=len):
            for file in imported(path)[1]:
                assert file.startswith((room, *ROOMS[room])), f"{here} imports {file}"


def test_every_room_has_its_rules():
    rooms = {name_of(path.parent) for folder in MOST_FILES for path in (ROOT / folder).glob("*/*.py")}
    assert {f"{room}/" for room in rooms} <= set(ROOMS)


def test_no_room_imports_a_command():
    files = [path for folder in MOST_FILES for path in (ROOT / folder).glob("*.py")]
    commands = {name_of(path) for path in files if "def main(" in path.read_text()} - READ_BY_A_ROOM
    for path in (path for folder in MOST_FILES for path in (ROOT / folder).glob("*/**/*.py")):
        assert not imported(path)[1] & commands, name_of(path)


@pytest.mark.parametrize("last", AT_THE_END)
def test_what_stands_at_the_end_is_not_imported(last):
    for path in (path for folder in FOLDERS for path in sources(folder)):
        if last in imported(path)[1]:
            assert name_of(path).startswith(AT_THE_END[last]), f"{name_of(path)} imports {last}"


def test_no_circle_of_files():
    left = {name_of(path): set(imported(path)[1]) for folder in FOLDERS for path in sources(folder)}
    while free := {file for file, needed in left.items() if not needed & left.keys()}:
        left = {file: needed for file, needed in left.items() if file not in free}
    needed_too = set().union(*left.values()) if left else set()
    assert not left, f"in a circle, or above one: {sorted(file for file in left if file in needed_too)}"


@pytest.mark.parametrize("folder", HEAVY)
def test_heavy_libraries_stay_in_their_place(folder):
    for path in sources(folder):
        for library in imported(path)[0] - sys.stdlib_module_names - {"numpy"}:
            assert library in HEAVY[folder], f"{name_of(path)} imports {library}"
            assert name_of(path).startswith(HEAVY[folder][library]), f"{name_of(path)} imports {library}"


@pytest.mark.parametrize("folder", MOST_FILES)
def test_folders_can_be_read_at_a_glance(folder):
    assert len([*(ROOT / folder).glob("*.py")]) <= MOST_FILES[folder]


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


COMMANDS = [p for folder in FOLDERS if folder != "videodeblur" for p in sources(folder) if "def main(" in p.read_text()]


@pytest.mark.parametrize("path", [ROOT / "videodeblur", *COMMANDS], ids=lambda p: p.name)
def test_every_command_shows_help_from_anywhere(path, tmp_path):
    found = subprocess.run([sys.executable, str(path), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "usage:" in found.stdout
