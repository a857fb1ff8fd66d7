"""What an engine of another tool says of itself once its library has loaded it, which needs the GPU that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.backends.device_memory import Gpu, enter_gpu, open_gpu
from runtime.backends.tensorrt_engine import library_for, start_runtime
from runtime.backends.tensorrt_library import Library
from runtime.errors import ModelError
from runtime.files.contract import Contract
from runtime.files.engine_record import HARDWARE_LEVELS, EngineRecord, Profile

TYPES = {"f32": "FLOAT", "u8": "UINT8", "u16": "UINT8"}  # trt.DataType's name, by a contract's io


@dataclass(frozen=True)
class EngineFacts:
    """A loaded engine's own facts."""

    tensors: tuple[str, str]  # names of the only input and the only output
    profiles: tuple[Profile, ...]
    hardware_compatibility: str  # one of HARDWARE_LEVELS


def runs_here(record: EngineRecord, device: int = 0) -> tuple[Library, Gpu]:
    """What runs an engine of this record, with the GPU current for this thread. Raises BackendError, with the reason, where nothing
    does; the file is not touched."""
    gpu, library = open_gpu(device), library_for(record)
    record.check_machine(library.name, library.version, gpu.compute_capability)
    enter_gpu(gpu)
    return library, gpu


def read_facts(library: Library, path: Path, contract: Contract, host_code: bool = False) -> EngineFacts:
    """Loads the file and looks; a driver must be there. `host_code` lets a version-compatible engine execute what it contains.

    Raises ModelError when the library cannot load it, or it has not one input and one output, of
    the contract's type and frames; their names may be others.
    """
    runtime = start_runtime(library)
    with library.messages() as messages:
        if host_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ModelError(
            f"{library.name} {library.version} cannot load {path}: {messages.reason()}: copy it again, or build it for this GPU"
        )
    tensors = _tensors(engine, library.module, path)
    _check_tensors(engine, library.module, path, tensors, contract)
    shapes = [engine.get_tensor_profile_shape(tensors[0], number) for number in range(engine.num_optimization_profiles)]
    return EngineFacts(tensors, tuple(Profile(*map(tuple, shape)) for shape in shapes), _hardware_level(engine))


def _tensors(engine: Any, trt: Any, path: Path) -> tuple[str, str]:
    """The names of the only input and the only output."""
    inputs: list[str] = []
    outputs: list[str] = []
    for name in (engine.get_tensor_name(number) for number in range(engine.num_io_tensors)):
        (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(name)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{path} has the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)}, expected one of each: it is another "
            "network's"
        )
    return inputs[0], outputs[0]


def _check_tensors(engine: Any, trt: Any, path: Path, tensors: tuple[str, str], contract: Contract) -> None:
    for name in tensors:
        kind, shape = engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))
        if kind != getattr(trt.DataType, TYPES[contract.io]):
            raise ModelError(f"{path} has {name} as {kind}, the contract says {contract.io}: name the file that it was built from")
        if len(shape) != (5 if contract.io == "u16" else 4) or shape[1] not in (-1, contract.frames):
            raise ModelError(f"{path} has {name} of {shape}, expected (N, {contract.frames}, H, W): it is of another network")


def _hardware_level(engine: Any) -> str:
    """In trtexec's words."""
    if not hasattr(engine, "hardware_compatibility_level"):  # TensorRT-RTX and old versions
        return "none"
    name = str(engine.hardware_compatibility_level).rpartition(".")[2].lower()
    words = {"none": "none", "ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
    return words.get(name, HARDWARE_LEVELS[0])
