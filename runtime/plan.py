"""`Plan`: what is known of a TensorRT engine file, kept in a JSON file beside it, and checked before TensorRT sees a byte.

An engine ("plan") is native code for one library version and one kind of GPU. Loading one runs it: load only files you trust.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from runtime.contract import Contract
from runtime.errors import BackendError, InputError, ModelError

SUFFIXES = (".engine", ".plan", ".trt")  # what people call engine files
LIBRARIES = ("tensorrt", "tensorrt_rtx", "tensorrt_lean")  # Python modules that run them
HARDWARE_LEVELS = ("none", "ampere+", "sameComputeCapability")  # trtexec's words
AMPERE = (8, 0)
SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """The record of an engine file. Shapes are (N, F, H, W) of the input."""

    library: str  # "tensorrt" or "tensorrt_rtx", the library that built it
    version: str  # of that library, for example "11.4.0.106"
    compute_capabilities: tuple[tuple[int, int], ...]  # GPUs it was built for, (8, 9) is Ada; empty: any, says the library
    hardware_compatibility: str  # one of HARDWARE_LEVELS
    version_compatible: bool  # runs on later releases and on the lean runtime, and contains host code
    min_shape: tuple[int, ...]
    opt_shape: tuple[int, ...]
    max_shape: tuple[int, ...]
    sha256: str  # of the engine file
    onnx_sha256: str  # of the ONNX file it was built from
    contract: Contract
    type_shares: dict[str, float] = field(default_factory=dict)  # share of the convolution FLOPs by executed type, 0 to 1
    build_seconds: float = 0.0
    schema: int = SCHEMA

    def save(self, engine: Path) -> None:
        """Writes the record beside the engine file."""
        record = {**asdict(self), "contract": json.loads(self.contract.to_json())}
        record_path(engine).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")

    def check_machine(self, library: str, version: str, compute_capability: tuple[int, int]) -> None:
        """Raises BackendError where `library` of `version` on a GPU of `compute_capability` cannot run this engine."""
        if library != self.library and not (library == "tensorrt_lean" and self.version_compatible):
            raise BackendError(
                f"the engine was built by {self.library}, this machine has {library}: install the former, or build here"
            )
        ours, theirs = _release(version), _release(self.version)
        if ours != theirs and not (self.version_compatible and ours > theirs):
            raise BackendError(
                f"the engine was built by {self.library} {self.version}, this machine has {version}: build it again here"
            )
        if not self._runs_on(compute_capability):
            built = ", ".join(_dotted(capability) for capability in self.compute_capabilities)
            raise BackendError(
                f"the engine was built for GPUs of compute capability {built}, this is {_dotted(compute_capability)}: build it here"
            )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises InputError when an input of `shape` is outside the engine's profile."""
        if not all(low <= got <= high for low, got, high in zip(self.min_shape, shape, self.max_shape)):
            raise InputError(f"got {shape}, this engine takes {self.min_shape} to {self.max_shape}: build one for this size")

    def _runs_on(self, capability: tuple[int, int]) -> bool:
        if not self.compute_capabilities or capability in self.compute_capabilities:
            return True
        return self.hardware_compatibility == "ampere+" and capability >= AMPERE


def record_path(engine: Path) -> Path:
    """Where the record of an engine file is kept."""
    return engine.with_name(engine.name + ".json")


def load_plan(engine: Path) -> Plan:
    """The record of an engine file, which is there and unchanged.

    Raises ModelError when either file is missing, or damaged, or the record is of another version.
    """
    if not engine.is_file():
        raise ModelError(f"{engine}: no such engine file")
    path = record_path(engine)
    if not path.is_file():
        raise ModelError(f"{engine} has no record {path.name} beside it: build it with export/to_engine.py, and copy both files")
    plan = _parse(path)
    found = file_sha256(engine)
    if found != plan.sha256:
        raise ModelError(f"{engine} has sha256 {found[:12]}, {path.name} says {plan.sha256[:12]}: copy both files again")
    return plan


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _release(version: str) -> tuple[int, ...]:
    """Major, minor and patch; engines are bound to all three."""
    return tuple(int(part) for part in version.split(".")[:3])


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _parse(path: Path) -> Plan:
    try:
        values = json.loads(path.read_text())
        schema = values["schema"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is not a readable engine record ({error}): build the engine again") from error
    if schema != SCHEMA:
        raise ModelError(f"{path} has schema {schema}, this version reads {SCHEMA}: update, or build the engine again")
    known = {f.name for f in fields(Plan)}
    try:
        return Plan(**{name: _typed(name, value) for name, value in values.items() if name in known})
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is damaged ({error}): build the engine again") from error


def _typed(name: str, value: Any) -> Any:
    if name == "contract":
        return Contract.from_json(json.dumps(value))
    if name == "compute_capabilities":
        return tuple((int(major), int(minor)) for major, minor in value)
    if name.endswith("_shape"):
        return tuple(int(length) for length in value)
    return value
