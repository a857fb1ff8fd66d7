"""An engine tells nobody that it was opened: no connection, no process of another's, no file in the user's home."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120

OPENED = """
import sys, time
seen = []
WATCHED = ("socket.connect", "socket.getaddrinfo", "os.fork", "os.posix_spawn", "subprocess.Popen", "os.mkdir")
sys.addaudithook(lambda event, given: seen.append((event, str(given[:1]))) if event in WATCHED else None)
import numpy as np
{opened}
time.sleep(1)  # what is sent is sent from a thread
print(seen)
"""
ENGINE = """
from runtime import Engine
with Engine({model!r}, {backend!r}) as engine:
    engine.run(np.zeros((1, 5, 16, 16), np.float32))
"""


def told(home, code):
    """What a process of its own did, and the files that it left."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1]), sorted(str(path.relative_to(home)) for path in home.rglob("*"))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_engine_phones_nobody_forks_nothing_and_leaves_the_home_alone(tiny_model, tmp_path, backend):
    assert told(tmp_path, OPENED.format(opened=ENGINE.format(model=str(tiny_model), backend=backend))) == ([], [])


@pytest.mark.parametrize(
    "module", ["calibration.collect_ranges", "benchmarks.peers.plain_onnxruntime", "benchmarks.peers.plain_openvino"]
)
def test_nor_does_what_else_imports_those_libraries(tmp_path, module):
    assert told(tmp_path, OPENED.format(opened=f"import {module}")) == ([], [])


def test_a_program_with_openvino_telemetry_of_its_own_keeps_it(tmp_path):
    (tmp_path / "openvino_telemetry.py").write_text("MINE = True\n")
    code = "import openvino_telemetry as mine, runtime.backends.openvino_runner; import openvino_telemetry; print(mine.MINE)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert found.stdout == "True\n", found.stderr


def test_a_ray_cluster_of_ours_reports_nothing():
    pytest.importorskip("ray")
    code = "import os, serving.library.ray_pool; print(os.environ['RAY_USAGE_STATS_ENABLED'])"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_USAGE_STATS_ENABLED"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "0"
