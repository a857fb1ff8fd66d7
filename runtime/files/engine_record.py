"""`EngineRecord`: what is known of a TensorRT engine file, kept in a JSON file beside it, and checked before TensorRT sees a byte.

An engine ("plan") is native code for one library version and one kind of GPU. Loading one runs it: load only files you trust.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from runtime.errors import BackendError, InputError, ModelError
from runtime.files.contract import INPUT, OUTPUT, Contract
from runtime.files.on_disk import Read, file_sha256, partial_file
from runtime.files.records import read_object, read_record

SUFFIXES = (".engine", ".plan", ".trt")  # what people call engine files
LIBRARIES = ("tensorrt", "tensorrt_rtx", "tensorrt_lean")  # Python modules that run them
HARDWARE_LEVELS = ("none", "ampere+", "sameComputeCapability")  # trtexec's words
AMPERE = (8, 0)
SCHEMA = 1
BUILT_HERE, REBUILT, RAN, UNPROVEN = "built here", "rebuilt the same", "ran on golden frames", "unproven"
ORIGINS = (BUILT_HERE, REBUILT, RAN, UNPROVEN)  # the last three are engines of other tools, which videodeblur adopt took in

# The first bytes of an engine file: whose it is, and at 24 to 27 the version (NVIDIA/TensorRT issue 3073; seen in RTX engines)
MAGIC = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
VERSION_AT = slice(24, 28)


@dataclass(frozen=True)
class Profile:
    """The input shapes (N, F, H, W) that an engine takes; it is tuned for `opt`."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises InputError unless 1 <= min <= opt <= max in every dimension."""
        if not len(self.min) == len(self.opt) == len(self.max):
            raise InputError(f"the profile's shapes {self.min}, {self.opt}, {self.max} differ in rank")
        if not all(1 <= low <= middle <= high for low, middle, high in zip(self.min, self.opt, self.max)):
            raise InputError(f"the profile is {self.min}, {self.opt}, {self.max}, expected 1 <= min <= opt <= max everywhere")

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether an input of `shape` fits."""
        return len(shape) == len(self.min) and all(low <= got <= high for low, got, high in zip(self.min, shape, self.max))


@dataclass(frozen=True)
class Measured:
    """What an engine did on one GPU."""

    gpu: str  # its name
    library: str  # that ran it, with its version, such as "tensorrt 11.4.0.106"
    shape: tuple[int, ...]  # (N, F, H, W) that was timed
    milliseconds: float  # median of a window of that shape, from host memory to host memory
    device_memory: int  # bytes of the GPU that opening and running it took
    parity: float | None  # dB on golden frames against what `reference_sha256` makes of them; None: not compared
    reference_sha256: str | None  # of the ONNX file on ONNX Runtime


@dataclass(frozen=True)
class EngineRecord:
    """The record of an engine file."""

    library: str  # "tensorrt" or "tensorrt_rtx", the library that built it
    version: str  # of that library, for example "11.4.0.106"
    compute_capabilities: tuple[tuple[int, int], ...]  # GPUs it was built for, (8, 9) is Ada; empty: any, says the library
    hardware_compatibility: str  # one of HARDWARE_LEVELS
    version_compatible: bool  # runs on later releases and on the lean runtime, and contains host code
    tf32: bool  # its fp32 convolutions may round their inputs to 10 bits
    stripped: bool  # its weights were left out
    profiles: tuple[Profile, ...]
    sha256: str  # of the engine file
    onnx_sha256: str  # of the ONNX file it was built from
    contract: Contract
    type_shares: dict[str, float] = field(default_factory=dict)  # share of the convolutions' arithmetic by executed type, 0 to 1
    build_seconds: float = 0.0  # 0: not measured
    origin: str = BUILT_HERE  # one of ORIGINS: why the engine is held to be what the contract says
    measured: Measured | None = None  # None: it never ran
    tensors: tuple[str, str] = (INPUT, OUTPUT)  # names of its only input and output
    schema: int = SCHEMA

    @property
    def precision(self) -> str:
        """The contract's, or "tf32" where that is fp32 and may be rounded."""
        return "tf32" if self.tf32 and self.contract.precision == "fp32" else self.contract.precision

    @property
    def narrowed(self) -> Contract:
        """The contract of the graph with the sizes that the engine is built for, where all its profiles take one alone."""
        batch, height, width = (self._only_length(axis) for axis in (0, 2, 3))
        return replace(self.contract, batch=batch, height=height, width=width)

    def save(self, engine: Path) -> None:
        """Writes the record beside the engine file; it appears whole or not at all."""
        with partial_file(record_path(engine)) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def check_machine(self, library: str, version: str, compute_capability: tuple[int, int]) -> None:
        """Raises BackendError where `library` of `version` on a GPU of `compute_capability` cannot run this engine."""
        if library != self.library and not (library == "tensorrt_lean" and self.version_compatible):
            raise BackendError(
                f"the engine was built by {self.library}, this machine has {library}: install the former, or build here"
            )
        if self.stripped:
            raise BackendError("the engine has no weights, they were stripped: build it without --stripWeights")
        ours, theirs = release(version), release(self.version)
        if ours != theirs and not (self.version_compatible and ours > theirs):
            raise BackendError(
                f"the engine was built by {self.library} {self.version}, this machine has {version}: build it again here"
            )
        if not self._runs_on(compute_capability):
            built = ", ".join(_dotted(capability) for capability in self.compute_capabilities)
            raise BackendError(
                f"the engine was built for GPUs of compute capability {built}, this is {_dotted(compute_capability)}: build it here"
            )

    def profile_of(self, shape: tuple[int, ...]) -> int:
        """The number of the first profile that takes an input of `shape`. Raises InputError when none does."""
        for number, profile in enumerate(self.profiles):
            if profile.holds(shape):
                return number
        taken = " or ".join(f"{profile.min} to {profile.max}" for profile in self.profiles)
        raise InputError(f"got {shape}, this engine takes {taken}: build one for this size")

    def _only_length(self, axis: int) -> int | None:
        lengths = {length for profile in self.profiles for length in (profile.min[axis], profile.max[axis])}
        return lengths.pop() if len(lengths) == 1 else None

    def _runs_on(self, capability: tuple[int, int]) -> bool:
        if not self.compute_capabilities or capability in self.compute_capabilities:
            return True
        return self.hardware_compatibility == "ampere+" and capability >= AMPERE


def record_path(engine: Path) -> Path:
    """Where the record of an engine file is kept."""
    return engine.with_name(engine.name + ".json")


def load_record(engine: Path) -> EngineRecord:
    """The record of an engine file, which is there and unchanged.

    Raises ModelError when either file is missing or damaged, or the record is of another version.
    """
    record = record_beside(engine)
    _check_sha256(engine, file_sha256(engine), record)
    return record


def read_engine(engine: Path, read: Read = Path.read_bytes) -> tuple[EngineRecord, bytes]:
    """The record of an engine file, and the bytes that it is of. Raises ModelError as `load_record` does."""
    record = record_beside(engine, read)
    plan = read(engine)
    _check_sha256(engine, hashlib.sha256(plan).hexdigest(), record)
    return record, plan


def read_header(engine: Path) -> tuple[str, str]:
    """(library, version) in the first bytes of an engine file, which no library needs to see for that.

    Raises ModelError when the file is missing or is no engine.
    """
    try:
        with engine.open("rb") as file:
            start = file.read(VERSION_AT.stop)
    except OSError as error:
        raise ModelError(f"{engine}: {error.strerror or error}") from error
    if len(start) < VERSION_AT.stop or start[:4] not in MAGIC:
        raise ModelError(f"{engine} is no TensorRT engine, it begins with {start[:4]!r}: build one with export/to_engine.py")
    return MAGIC[start[:4]], ".".join(str(part) for part in start[VERSION_AT])


def record_beside(engine: Path, read: Read = Path.read_bytes) -> EngineRecord:
    """The record of an engine file that is there; whether it is unchanged is not looked at. Raises ModelError as `load_record`."""
    if not engine.is_file():
        raise ModelError(f"{engine}: no such engine file")
    path = record_path(engine)
    if not path.is_file():
        raise ModelError(
            f"{engine} has no record {path.name} beside it: copy both files, or, if another tool built it, "
            f"videodeblur adopt {engine} --like the .onnx file that it was built from"
        )
    return _parse(path, read)


def _check_sha256(engine: Path, found: str, record: EngineRecord) -> None:
    if found != record.sha256:
        name = record_path(engine).name
        raise ModelError(
            f"{engine} has sha256 {found[:12]}, {name} says {record.sha256[:12]}: copy both files again, or, if another tool built "
            "it since, take it in with videodeblur adopt"
        )


def _parse(path: Path, read: Read = Path.read_bytes) -> EngineRecord:
    try:
        values = read_object(path, read)
        if values.get("schema") != SCHEMA:
            raise ModelError(
                f"{path} has schema {values.get('schema')}, this version reads {SCHEMA}: update, or build the engine again"
            )
        record = read_record(EngineRecord, values)
        _check(record)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not a readable engine record ({error}): build the engine again") from error
    return record


def _check(record: EngineRecord) -> None:
    """Raises ValueError on what has the right type and cannot be."""
    if record.library not in MAGIC.values() or record.hardware_compatibility not in HARDWARE_LEVELS:
        raise ValueError(f"it names {record.library}, {record.hardware_compatibility}")
    if not re.fullmatch(r"\d+(\.\d+){2,3}", record.version):
        raise ValueError(f"the version is {record.version!r}")
    if not record.profiles:
        raise ValueError("it has no profile")
    if record.origin not in ORIGINS:
        raise ValueError(f"the origin is {record.origin!r}")


def release(version: str) -> tuple[int, ...]:
    """Major, minor and patch; engines are bound to all three."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
