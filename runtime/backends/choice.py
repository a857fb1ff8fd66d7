"""Picks the backend and its arithmetic for a model file or an engine file, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from runtime.backends.runner import Choice
from runtime.errors import BackendError, InputError, MissingPackageError, ModelError
from runtime.files.contract import MIN_PARITY, Contract, read_model
from runtime.files.engine_record import SUFFIXES, UNPROVEN, record_beside
from runtime.files.on_disk import Read
from runtime.machine.requirements import requirement

CPU_BACKENDS = ("openvino", "onnxruntime")  # in order of preference
GPU_BACKENDS = ("onnxruntime-cuda", "tensorrt")
PACKAGES = {  # backend: what brings it
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime-gpu",
    "tensorrt": "cuda-bindings",  # the library itself is named by the engine's record
    "triton": "tritonclient",
}
MODULES = {  # the modules without which a package counts as missing, not as broken
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-cuda": ("onnxruntime", "cuda"),
    "tensorrt": ("cuda",),
    "triton": ("tritonclient",),
}
PRECISIONS = ("auto", "fp32", "tf32", "bf16")


@dataclass(frozen=True)
class How:
    """How the caller wants a model to be run."""

    backend: str = "auto"  # "auto", or one of CPU_BACKENDS or GPU_BACKENDS
    precision: str = "auto"  # arithmetic of what the graph has in fp32
    threads: int | None = None  # CPU cores, all when None
    device: int = 0  # the GPU
    fallback: bool = True  # of a bundle: whether the next member is tried when one fails

    def __post_init__(self) -> None:
        """Raises InputError on another word, or fewer threads than one."""
        known = ("auto", *CPU_BACKENDS, *GPU_BACKENDS)
        if self.backend not in known:
            raise InputError(f"backend is {self.backend!r}, expected one of {', '.join(known)}")
        if self.precision not in (*PRECISIONS, *MIN_PARITY):
            raise InputError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}, expected 1 or more, or None for all cores")


@dataclass(frozen=True)
class Decision:
    """What runs an ONNX file, and why."""

    backend: str  # one of CPU_BACKENDS or GPU_BACKENDS
    precision: str  # arithmetic
    reason: str


def open_model(path: Path, how: How, read: Read = Path.read_bytes, known: bool = False) -> Choice:
    """The runner for an ONNX file or an engine file. Raises ModelError on a broken, changed or foreign file.

    The bytes that are checked are those that the backend gets. Of an ONNX file that is `known`, since it ran here before, a backend
    may take what it compiled then.
    """
    if path.suffix in SUFFIXES:
        return _open_engine(path, how, read)
    if path.suffix != ".onnx":
        raise ModelError(f"{path} is not an .onnx file, an engine or a bundle's folder: make one with export/to_onnx.py")
    contract, data = read_model(path, read)
    return open_runner(path, contract, how, data, known)


def open_runner(path: Path, contract: Contract, how: How, data: bytes | None = None, known: bool = False) -> Choice:
    """The runner for an ONNX file, or for `data`, which was read from it; see `decide` and `open_model`."""
    if how.precision not in PRECISIONS:
        raise InputError(f"precision is {how.precision!r}, expected one of {', '.join(PRECISIONS)}")
    if how.backend == "tensorrt":
        raise InputError(f"TensorRT runs engines, not {path.name}: build one with export/to_engine.py")
    if how.backend != "auto" and (departure := _departure(contract, how.backend)):
        raise BackendError(f"{path}: {departure}: take another backend")
    chosen = decide(contract, how)
    if chosen.backend in CPU_BACKENDS and how.device:
        raise InputError(
            f"device {how.device} is a GPU, and {path.name} runs on {chosen.backend}, on the CPU: leave out the device"
        )
    if chosen.backend == "openvino":
        runner = _load("openvino").OpenVinoRunner(path, chosen.precision, how.threads, data, known)
        return Choice(runner, contract, chosen.reason)
    if chosen.backend == "onnxruntime-cuda":
        runner = _load(chosen.backend).OnnxRuntimeCudaRunner(path, contract.precision, how.device, chosen.precision, data=data)
        return Choice(runner, contract, chosen.reason)
    return Choice(_load(chosen.backend).OnnxRuntimeRunner(path, contract.precision, how.threads, data), contract, chosen.reason)


def decide(contract: Contract, how: How) -> Decision:
    """What runs an ONNX file of this contract here.

    Backend "auto" takes the first of OpenVINO and ONNX Runtime that is installed and came close enough to PyTorch when the file
    was made. Precision "auto" takes bf16 where the CPU multiplies it natively and the model's contract records a sufficient parity
    for it, and fp32 otherwise. Raises BackendError when there is none.
    """
    name, missing = _first_usable(contract) if how.backend == "auto" else (how.backend, "")
    if name == "openvino":
        return Decision(name, *_openvino_precision(contract, how.precision))
    if name == "onnxruntime-cuda":
        return Decision(name, "fp32" if how.precision == "auto" else how.precision, "asked for")
    if how.precision in ("tf32", "bf16"):
        raise BackendError("ONNX Runtime computes in the graph's own types on a CPU: for bf16 use backend='openvino'")
    return Decision(name, contract.precision, f"the graph's own types{missing}")


def open_served(url: str, how: How) -> Choice:
    """The runner for a model on a Triton server, "grpc://HOST:PORT/MODEL". The server chose what computes, so `how` may not."""
    if how != How(fallback=how.fallback):
        raise InputError(f"{url} runs as its server was told: leave out backend, precision, threads and device, or open a file")
    choice: Choice = _load("triton").open_served(url)
    return choice


def _open_engine(path: Path, how: How, read: Read) -> Choice:
    record = record_beside(path, read)  # the runner checks the engine that it is of
    if how.backend not in ("auto", "tensorrt"):
        raise InputError(f"{path.name} is a TensorRT engine, {how.backend} runs .onnx files: name the one it was built from")
    if how.precision not in ("auto", record.precision):
        raise InputError(f"{path.name} computes in {record.precision}, not {how.precision}: build another, with --noTF32 for fp32")
    runner = _load("tensorrt").TensorRtRunner(path, how.device, read=read)
    record = runner.record
    doubt = f"; nobody has shown that it is this network: videodeblur adopt {path}" if record.origin == UNPROVEN else ""
    return Choice(runner, record.narrowed, f"{record.library} {record.version} on {runner.gpu.name}{doubt}")


def _first_usable(contract: Contract) -> tuple[str, str]:
    """The first backend that is installed and right, and what to say of those before it."""
    passed_over = ""
    for name in CPU_BACKENDS:
        if departure := _departure(contract, name):
            passed_over += f"; {departure}"
            continue
        try:
            _load(name)
        except MissingPackageError:
            passed_over += f"; often faster: pip install '{requirement(PACKAGES[name])}'"
        except BackendError as error:
            passed_over += f"; {error}"
        else:
            return name, passed_over
    if passed_over and "pip" not in passed_over:
        raise BackendError(f"no backend runs this file as it should{passed_over}: make it again with other layers")
    raise MissingPackageError(requirement("openvino"), "running a model on the CPU")


def _load(name: str) -> Any:
    try:
        return import_module(f"runtime.backends.{name.replace('-', '_')}_runner")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in MODULES[name]:
            raise MissingPackageError(requirement(PACKAGES[name]), f"backend {name!r}") from error
        remedy = f"pip install --force-reinstall '{requirement(PACKAGES[name])}'"
        raise BackendError(f"backend {name!r} is installed and does not load ({error}): {remedy}") from error


def _openvino_precision(contract: Contract, asked: str) -> tuple[str, str]:
    parity = contract.parity.get("openvino:bf16")
    measured = f"{parity:.1f} dB against PyTorch, measured at export" if parity is not None else "its parity was never measured"
    if asked != "auto":
        return asked, f"asked for; {measured}" if asked == "bf16" else "asked for"
    least = min(MIN_PARITY["bf16"], MIN_PARITY[contract.precision])
    if not _load("openvino").native_bf16():
        return "fp32", "this CPU has no bf16 arithmetic"
    if parity is None:
        return "fp32", "bf16 would be faster, but its parity was not measured when the model was exported: export it on this CPU"
    if parity < least:
        return "fp32", f"bf16 would be faster, but {measured}, is under {least:.0f} dB"
    return "bf16", f"the fastest arithmetic of this CPU; {measured}"


def _departure(contract: Contract, name: str) -> str:
    """Why a backend must not run this file, by the parities in its contract; empty when it may, or was not measured."""
    least, found = (
        MIN_PARITY[contract.precision],
        contract.parity.get(f"{name}:{'fp32' if name == 'openvino' else contract.precision}"),
    )
    if contract.io != "f32" or found is None or found >= least:  # those of codes are judged by how many differ
        return ""
    return f"{name} reached {found:.1f} dB when the file was made, expected at least {least:.0f}"
