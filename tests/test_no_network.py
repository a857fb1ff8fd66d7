"""No import, no opening and no run of the product reaches a network, or leaves a file outside of its cache.

The kernel watches: a child that asks for an internet socket is killed, whatever library asks, in every process that it starts.
"""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "export" / "clips" / "bunny.mp4"
SECONDS = 400
CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # AUDIT_ARCH, number of socket(2)

ISOLATED = """
import ctypes, socket, sys

class Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("steps", ctypes.POINTER(Step))]

LOAD, EQUAL, RETURN, ALLOW, KILL = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000
steps = (Step * 9)(
    Step(LOAD, 0, 0, 4), Step(EQUAL, 0, 5, ARCHITECTURE),  # of the call
    Step(LOAD, 0, 0, 0), Step(EQUAL, 0, 3, NUMBER),
    Step(LOAD, 0, 0, 16), Step(EQUAL, 2, 0, socket.AF_INET), Step(EQUAL, 1, 0, socket.AF_INET6),
    Step(RETURN, 0, 0, ALLOW), Step(RETURN, 0, 0, KILL),
)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
program = Program(len(steps), steps)
if libc.prctl(22, 2, ctypes.byref(program), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    print("no seccomp")
    sys.exit(0)
"""

RUNTIME = """
import pkgutil, importlib
import runtime
for found in pkgutil.walk_packages(runtime.__path__, "runtime."):
    if found.name == "runtime.files.signatures":  # whose urllib3 binds ::1 to see whether there is IPv6; only on demand
        continue
    try:
        importlib.import_module(found.name)
    except ImportError as error:  # of a library that is not installed
        print(error, file=sys.stderr)
import numpy as np
from runtime import Engine, deblur_video, doctor, plan_video
clip, model, bundle = sys.argv[1:]
for path in (model, bundle):
    for backend in ("openvino", "onnxruntime"):
        with Engine(path, backend) as engine:
            engine.run(np.zeros((1, 5, 16, 16), np.uint8))
            engine.submit(np.zeros((1, 5, 16, 16), np.uint8)).result()
tried = ["--model", bundle, "--frames", "6", "--no-progress"]
assert deblur_video.main([clip, "sharp.mp4", *tried]) == 0
assert deblur_video.main([clip, "sharp.mkv", "--resume", *tried]) == 0
assert plan_video.main([clip, "later.mp4", "--model", model]) == 0
doctor.main([])
"""

EXPORT = """
from export import make_engine, to_bundle, to_engine, to_fp16, to_onnx, to_qdq
from calibration import collect_ranges
import benchmarks.bench, export.ship, export.to_report, export.verify, serving.deblur_library, serving.to_triton
clip, model, bundle = sys.argv[1:]
assert collect_ranges.main([clip, "--onnx", model, "--output", "ranges.json", "--windows", "1", "--crop", "48x64"]) == 0
assert to_bundle.main(["--onnx", model, "--attach", "ranges.json", "--output", "x.bundle"]) == 0
assert to_bundle.main(["--verify", "x.bundle"]) == 0
"""


@pytest.fixture(scope="module")
def bundle(tiny_model, tmp_path_factory):
    from export.to_bundle import BundleRequest, write_bundle

    folder = tmp_path_factory.mktemp("isolated") / "x.bundle"
    write_bundle(BundleRequest(tiny_model, (), folder))
    return folder


def isolated(tmp_path, code, *arguments):
    """(status, files of the home and of the temporary folder) of a child without a network; it works in `tmp_path`/work."""
    if platform.machine() not in CALLS or not sys.platform.startswith("linux"):
        pytest.skip("the filter is of Linux, for x86-64 and ARM64")
    architecture, number = CALLS[platform.machine()]
    filtered = ISOLATED.replace("ARCHITECTURE", str(architecture)).replace("NUMBER", str(number))
    home, temporary, work = (tmp_path / name for name in ("home", "temporary", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    left_out = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", filtered + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    if "no seccomp" in done.stdout:
        pytest.skip("this system lets no process filter its calls")
    files = sorted(str(path.relative_to(tmp_path)) for folder in (home, temporary) for path in folder.rglob("*") if path.is_file())
    return done, files


def test_the_watch_sees_a_socket(tmp_path):
    done, _ = isolated(tmp_path, "socket.socket(socket.AF_UNIX).close(); print(1, flush=True); socket.socket(); print(2)")
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, "1\n")


@pytest.mark.parametrize(("code", "made"), [(RUNTIME, {"sharp.mp4", "sharp.mkv"}), (EXPORT, {"x.bundle", "ranges.json"})])
def test_no_socket_and_no_file_elsewhere(tiny_model, bundle, tmp_path, code, made):
    done, files = isolated(tmp_path, code, CLIP, tiny_model, bundle)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [name for name in files if not name.startswith("home/.cache/videodeblur/")] == []
    assert made <= {path.name for path in (tmp_path / "work").iterdir()}
