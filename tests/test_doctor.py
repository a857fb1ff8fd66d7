"""The doctor on this machine, on one with numpy alone, and on broken ones: real processes with packages that raise, die or hang."""

import configparser
import json
import os
import re
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from runtime.doctor import LIBRARIES, TOOLS, examine, main
from runtime.machine import hardware
from runtime.machine.packages import conflicts
from runtime.machine.requirements import REQUIREMENTS
from runtime.probes import ABSENT, BROKEN, WORKS, ask

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Puts a package that does so when it is imported before the real one."""

    def put(name, does):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(does)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def test_this_machine_runs_videos(capsys):
    assert main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs_videos"] is True
    assert told["libraries"]["av"]["facts"]["version"] == metadata.version("av")
    assert "libx264" in told["libraries"]["av"]["facts"]["encoders"]
    assert told["libraries"]["onnxruntime"]["facts"]["version"] == metadata.version("onnxruntime")
    assert told["packages"]["numpy"] == np.__version__
    assert told["chosen"]["bf16 not measured"]["facts"]["precision"] == "fp32"
    assert told["machine"]["cores"] >= 1
    assert told["machine"]["memory"] >= told["machine"]["memory_at_hand"] > 0


def test_what_it_tells_of_a_model_is_what_the_engine_does(tiny_model, tmp_path, capsys):
    from runtime import Engine

    with Engine(tiny_model) as engine:
        assert main([str(tiny_model)]) == 0
        assert f"for the one that was named: {engine.reason}" in capsys.readouterr().out
    half = tmp_path / "half.onnx"
    half.write_bytes(tiny_model.read_bytes()[:1000])
    assert main([str(half)]) == 1
    told = capsys.readouterr().out
    assert "error: the model does not open here: " in told
    assert "half.onnx is not a whole ONNX file" in told


def test_library_that_raises(broken):
    broken("av", "raise OSError('libavcodec.so.62: cannot open shared object file')")
    found = examine()
    assert found.libraries["av"].state == BROKEN
    assert "OSError: libavcodec.so.62" in found.libraries["av"].reason
    assert found.findings[0].level == "error"
    assert found.findings[0].remedy.endswith("pip install '.[video]'")
    assert not found.runs_videos


def test_libraries_that_take_the_process_along(broken, capsys):
    broken("openvino", "import os; os.abort()")
    broken("onnxruntime", "raise ImportError('libonnxruntime.so is missing')")
    assert main([]) == 1
    told = capsys.readouterr().out
    assert "openvino is installed and does not load: the process died of SIGABRT" in told
    assert "error: nothing here runs a model: " in told
    assert "ImportError: libonnxruntime.so is missing" in told


def test_library_that_hangs(broken):
    broken("openvino", "import time; time.sleep(60)")
    assert ask("openvino", seconds=1.0).reason == "gave no answer in 1 s"


def test_numpy_and_nothing_else(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    site = next((tmp_path / "bare").glob("lib/python*/site-packages"))
    source = Path(np.__file__).parent
    for name in (source.name, f"{source.name}.libs"):
        (site / name).symlink_to(source.with_name(name))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [tmp_path / "bare" / "bin" / "python", ROOT / "runtime" / "doctor.py"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 1, found.stderr
    assert re.search(r"^openvino +absent +needs pip install '\.\[cpu\]'$", found.stdout, re.MULTILINE)
    assert "error: PyAV is not installed" in found.stdout
    assert "error: nothing here runs a model" in found.stdout


def test_state_of_what_is_not_installed():
    assert ask("tensorrt").state in (ABSENT, WORKS, BROKEN)
    assert ask("no such probe").state == BROKEN


@pytest.mark.parametrize(
    ("packages", "driver", "text", "remedy"),
    [
        (
            {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"},
            None,
            "onnxruntime and onnxruntime-gpu are installed and own the same files",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install '.[gpu]'",
        ),
        ({"tensorrt": "11.4.0", "tensorrt-cu12-bindings": "10.3.0"}, None, "two releases of TensorRT", "'.[tensorrt]'"),
        ({"av": "14.2.0"}, None, "av is 14.2.0, expected 18 or newer", "pip install '.[video]'"),
        ({"numpy": "3.0.0"}, None, "numpy is 3.0.0", "numpy<3"),
        ({"numpy": "2.4.6", "nvidia-pytriton": "0.7.0"}, None, "empty tensors beside numpy 2.4.6", "numpy<2"),
        ({"cuda-bindings": "13.5.0"}, 12, "needs a driver for CUDA 13, this one is for 12", "cuda-bindings<13"),
        ({"tensorrt": "11.4.0"}, 12, "built for CUDA 13, this driver is for 12", "update the driver"),
    ],
)
def test_conflict(packages, driver, text, remedy):
    (found,) = conflicts(packages, driver)
    assert text in found.text
    assert remedy in found.remedy


def test_no_conflict():
    packages = {"numpy": "1.26.4", "onnxruntime": "1.31.1", "tensorrt": "11.4.0.106", "tensorrt-cu13": "11.4.0.106"}
    assert conflicts({**packages, "tensorrt-rtx": "1.7.1", "tensorrt-lean": "10.3"}, 13) == []
    assert conflicts({"tensorrt": "11.4.0"}, None, python=(3, 9))


def test_requirements_are_those_of_the_setup():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = dict(setup["options.extras_require"])
    for name, (extra, requirement) in REQUIREMENTS.items():
        lines = extras[extra] if extra else setup["options"]["install_requires"]
        assert requirement in lines.split(), name
        assert re.fullmatch(rf"{name}(\[.*\])?[>=]=[\d.]+(,<\d+)?", requirement), name
    assert {*LIBRARIES.values(), *TOOLS.values()} <= set(extras)


def test_requirements_stand_in_one_file():
    packages = "|".join(map(re.escape, REQUIREMENTS))
    for folder in ("model", "training", "calibration", "runtime", "export", "benchmarks", "serving"):
        for path in (ROOT / folder).glob("**/*.py"):
            if path.name != "requirements.py":
                assert not re.search(rf"\b({packages})(\[[a-z,]*\])?[>=]=\d", path.read_text()), path


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@x)", "580.65.06"),
        ("something else", None),
    ],
)
def test_driver_version(line, version, tmp_path, monkeypatch):
    path = tmp_path / "version"
    path.write_text(f"{line}\nGCC version: gcc version 12.3.0\n")
    monkeypatch.setattr(hardware, "NVIDIA_DRIVER", path)
    assert hardware.nvidia_driver() == version
