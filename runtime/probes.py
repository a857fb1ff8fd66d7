"""`ask`: looks at a library, the GPU or a model in a process of its own, which a broken installation may crash or hang.

Run as a file, this is that process: `python runtime/probes.py NAME [PATH]`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

MARK = "probe: "  # before the line that holds the answer; libraries may print others
SECONDS = 120.0  # after which a probe counts as hanging
WORKS, ABSENT, BROKEN = "works", "absent", "broken"


@dataclass(frozen=True)
class Probe:
    """What was found."""

    state: str  # WORKS, ABSENT or BROKEN
    facts: dict[str, Any] = field(default_factory=dict)  # of what works
    reason: str = ""  # why it is not there, or broken


def ask(name: str, *arguments: str, seconds: float = SECONDS) -> Probe:
    """The answer of a key of PROBES. Never raises: a process that dies or hangs is BROKEN, with the reason."""
    try:
        command = [sys.executable, str(Path(__file__).resolve()), name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Probe(BROKEN, reason=f"gave no answer in {seconds:.0f} s")
    except OSError as error:
        return Probe(BROKEN, reason=f"no process could be started: {error.strerror or error}")
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            return Probe(**json.loads(line[len(MARK) :]))
    if done.returncode < 0:
        return Probe(BROKEN, reason=f"the process died of {_signal_name(-done.returncode)}")
    said = done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"]
    return Probe(BROKEN, reason=said[-1])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _library(file: str, module: str) -> Probe:
    """What `describe` of a file of ours tells of the module that it imports."""
    if _missing(module):
        return Probe(ABSENT, reason="not installed")
    facts: dict[str, Any] = import_module(f"runtime.{file}").describe()
    return Probe(WORKS, facts)


def _tensorrt(module: str) -> Probe:
    """Imported, not used: the lean runtime kills the process where there is no driver."""
    if _missing(module):
        return Probe(ABSENT, reason="not installed")
    from runtime.backends.tensorrt_library import load_library

    return Probe(WORKS, {"version": load_library(module).version})


def _gpu() -> Probe:
    if _missing("cuda.bindings"):
        return Probe(ABSENT, reason="cuda-bindings is not installed, without which none can be used")
    from runtime.backends.device_memory import open_gpu
    from runtime.errors import BackendError

    try:
        return Probe(WORKS, asdict(open_gpu()))
    except BackendError as error:
        return Probe(ABSENT, reason=str(error))


def _fp32(parity: str) -> Probe:
    """What would run an fp32 ONNX file whose bf16 was measured at so many dB when it was made; "" when that was not measured."""
    from runtime.backends import How, decide
    from runtime.files.contract import Contract

    measured = {"openvino:bf16": float(parity)} if parity else {}
    contract = Contract(5, 8, 0, "f32", None, None, None, None, None, "fp32", "", parity=measured)
    return Probe(WORKS, asdict(decide(contract, How())))


def _model(path: str) -> Probe:
    """Opens it, as a program would."""
    from runtime.engine import Engine

    with Engine(path) as engine:
        return Probe(WORKS, {"backend": engine.backend, "precision": engine.precision, "reason": engine.reason})


PROBES: dict[str, Callable[..., Probe]] = {
    "openvino": lambda: _library("backends.openvino_runner", "openvino"),
    "onnxruntime": lambda: _library("backends.onnxruntime_runner", "onnxruntime"),
    "av": lambda: _library("video.codec_list", "av"),
    "tensorrt": lambda: _tensorrt("tensorrt"),
    "tensorrt_rtx": lambda: _tensorrt("tensorrt_rtx"),
    "tensorrt_lean": lambda: _tensorrt("tensorrt_lean"),
    "gpu": _gpu,
    "fp32": _fp32,
    "model": _model,
}


def _missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:  # of the package that it is in
        return True


def _answer(arguments: Sequence[str]) -> Probe:
    try:
        return PROBES[arguments[0]](*arguments[1:])
    except Exception as error:  # whatever a broken library raises is what was asked for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        ours = type(error).__module__ == "runtime.errors"
        return Probe(BROKEN, reason=reason if ours else f"{type(error).__name__}: {reason}")


if __name__ == "__main__":
    found = _answer(sys.argv[1:])
    print(f"\n{MARK}{json.dumps(asdict(found))}", flush=True)
