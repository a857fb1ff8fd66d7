"""Picks the backend and its arithmetic for a model file, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from runtime.contract import MIN_PARITY, Contract
from runtime.errors import BackendError, InputError, MissingPackageError
from runtime.runner import Runner

REQUIREMENTS = {"openvino": "openvino>=2026.1", "onnxruntime": "onnxruntime>=1.24"}  # in order of preference
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Choice:
    """A backend that is ready to run, and the sentence that explains it to the user."""

    runner: Runner
    reason: str


def open_runner(path: Path, contract: Contract, backend: str, precision: str, threads: int | None) -> Choice:
    """The runner for an ONNX file.

    Backend "auto" takes the first of OpenVINO and ONNX Runtime that is installed. Precision "auto" takes bf16 where the CPU
    multiplies it natively and the model's contract records a sufficient parity for it, and fp32 otherwise.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if backend not in ("auto", *REQUIREMENTS):
        raise InputError(f"backend is {backend!r}, expected one of auto, {', '.join(REQUIREMENTS)}")
    name, missing = _first_installed() if backend == "auto" else (backend, "")
    if name == "openvino":
        chosen, why = _openvino_precision(contract, precision)
        return Choice(_load("openvino").OpenVinoRunner(path, chosen, threads), why)
    if precision == "bf16":
        raise BackendError("ONNX Runtime computes in the graph's own types on a CPU: for bf16 use backend='openvino'")
    return Choice(_load("onnxruntime").OnnxRuntimeRunner(path, contract.precision, threads), f"the graph's own types{missing}")


def _first_installed() -> tuple[str, str]:
    missing = ""
    for name, requirement in REQUIREMENTS.items():
        try:
            _load(name)
        except MissingPackageError:
            missing = f"; often faster: pip install '{requirement}'"
        else:
            return name, missing
    raise MissingPackageError(REQUIREMENTS["openvino"], "running a model on the CPU")


def _load(name: str) -> Any:
    try:
        return import_module(f"runtime.{name}_runner")
    except ImportError as error:
        raise MissingPackageError(REQUIREMENTS[name], f"backend {name!r}") from error


def _openvino_precision(contract: Contract, asked: str) -> tuple[str, str]:
    parity = contract.parity.get("openvino:bf16")
    measured = f"{parity:.1f} dB against PyTorch, measured at export" if parity is not None else "its parity was never measured"
    if asked != "auto":
        return asked, f"asked for; {measured}" if asked == "bf16" else "asked for"
    if not _load("openvino").native_bf16():
        return "fp32", "this CPU has no bf16 arithmetic"
    if parity is None:
        return (
            "fp32",
            "bf16 would be faster, but its parity was not measured when this model was exported; export it again on this CPU",
        )
    if parity < MIN_PARITY["bf16"]:
        return "fp32", f"bf16 would be faster, but {measured}, is under {MIN_PARITY['bf16']:.0f} dB"
    return "bf16", f"the fastest arithmetic of this CPU; {measured}"
