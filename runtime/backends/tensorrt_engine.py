"""A deserialised TensorRT engine and what it runs with: the library, compiled kernels, execution contexts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backends.device_memory import MIB, DeviceBuffer, Stream, free_memory
from runtime.backends.tensorrt_library import Library, load_library
from runtime.errors import BackendError, MissingPackageError, ModelError
from runtime.files.engine_record import EngineRecord
from runtime.files.on_disk import cache_folder, partial_file

log = logging.getLogger("videodeblur.tensorrt")


class LoadedEngine:
    """A deserialised engine, checked to be what its record says, and everything that must live as long."""

    def __init__(self, library: Library, path: Path, record: EngineRecord, plan: bytes) -> None:
        self.library, self.record = library, record
        self._runtime = start_runtime(library)
        self._scratch: DeviceBuffer | None = None
        self.engine = self._deserialize(path, plan)
        self.dtype = np.dtype(np.float32 if record.contract.io == "f32" else np.uint8)  # of both tensors
        self._check_tensors(path)

    @property
    def memory(self) -> int:
        """Bytes that contexts compute in beside the weights and the frames, for the largest shape."""
        engine = self.engine
        return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)

    def scratch(self) -> DeviceBuffer:
        """That memory, allocated once for all contexts. Raises BackendError when it is more than the GPU has free."""
        if self._scratch is None:
            free = free_memory()
            if self.memory > free:
                needed, left = (f"{size / MIB:.0f} MiB" for size in (self.memory, free))
                raise BackendError(
                    f"the engine needs {needed} for its largest shape, {left} are free: build it for smaller frames, or free memory"
                )
            self._scratch = DeviceBuffer(max(self.memory, 1))
        return self._scratch

    def layer_information(self) -> str:
        """Its layers as TensorRT's own JSON. Raises BackendError on the lean runtime, which cannot tell."""
        if not hasattr(self.library.module, "EngineInspector"):  # the lean runtime has the engine's method all the same
            raise BackendError(f"{self.library.name} cannot inspect engines: use full TensorRT")
        layout = self.library.module.LayerInformationFormat.JSON
        return str(self.engine.create_engine_inspector().get_engine_information(layout))

    def close(self) -> None:
        """Frees the engine, then what made it; contexts must be gone."""
        if self._scratch is not None:
            self._scratch.close()
        self.engine = None
        self._runtime = None

    def _deserialize(self, path: Path, plan: bytes) -> Any:
        runtime = self._runtime
        with self.library.messages() as messages:
            if hasattr(runtime, "get_engine_validity"):
                self._check_validity(plan, path)
            if self.record.version_compatible:
                runtime.engine_host_code_allowed = True  # the hash was checked: these are the bytes that the record is of
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            name = f"{self.library.name} {self.library.version}"
            raise ModelError(f"{name} cannot load {path}: {messages.reason()}; build it again on this machine")
        return engine

    def _check_validity(self, plan: bytes, path: Path) -> None:
        """TensorRT-RTX tells from the header what runs here."""
        trt = self.library.module
        validity, mask = self._runtime.get_engine_validity(plan[: self._runtime.engine_header_size])
        names = [name for name, bit in trt.EngineInvalidityDiagnostics.__members__.items() if int(mask) & int(bit)]
        reason = ", ".join(names) or "no reason given"
        if validity == trt.EngineValidity.INVALID:
            raise BackendError(f"TensorRT-RTX says that {path} does not run on this GPU or release ({reason}): build it here")
        if validity != trt.EngineValidity.VALID:
            log.warning("TensorRT-RTX says that %s runs here, but not at its best (%s): build it on this machine", path, reason)

    def _check_tensors(self, path: Path) -> None:
        names = {self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)}
        if names != set(self.record.tensors):
            expected = " and ".join(self.record.tensors)
            raise ModelError(f"{path} has tensors {sorted(names)}, expected {expected}: build it from export/to_onnx.py's file")
        for name in self.record.tensors:
            kind = self.engine.get_tensor_dtype(name)
            try:
                found = np.dtype(self.library.module.nptype(kind))
            except TypeError:  # a type that numpy lacks
                found = None
            if found != self.dtype:
                raise ModelError(f"{path} has {name} as {kind}, its contract says {self.dtype}: build it again")


def start_runtime(library: Library) -> Any:
    """A trt.Runtime; there must be a driver. Raises BackendError where it is older than the library."""
    with library.messages() as messages:
        try:
            return library.module.Runtime(library.logger)
        except TypeError as error:  # the bindings' word for a null pointer: no driver, or one older than the library
            name = f"{library.name} {library.version}"
            raise BackendError(f"{name} does not start: {messages.reason()}: update the driver, or install an older one") from error


def library_for(record: EngineRecord) -> Library:
    """The library that built the engine; the lean runtime where that is missing and the engine allows it."""
    try:
        return load_library(record.library)
    except MissingPackageError as error:
        if not record.version_compatible:
            release = f"{record.library.replace('_', '-')}=={record.version}"
            raise MissingPackageError(release, f"running this engine ({error.__cause__})") from error
        return load_library("tensorrt_lean")


class KernelCache:
    """TensorRT-RTX's compiled kernels, kept from one process to the next."""

    def __init__(self, config: Any, path: Path) -> None:
        self.config, self._path = config, path
        self._cache = config.create_runtime_cache()
        if path.is_file() and not self._cache.deserialize(path.read_bytes()):
            log.info("the kernels in %s are of another environment and will be compiled anew", path)
        if not config.set_runtime_cache(self._cache):
            log.warning("TensorRT-RTX does not take a cache, the next start will compile its kernels again")

    def save(self) -> None:
        """Written whole, then renamed: of several processes, the last one's stays."""
        try:
            if (kernels := self._cache.serialize()) is None:
                raise OSError("TensorRT-RTX does not hand them out")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial_file(self._path) as partial:
                partial.write_bytes(memoryview(kernels))
        except OSError as error:
            log.warning("the compiled kernels could not be kept, the next start will compile again: %s", error)


def cache_path(record: EngineRecord, gpu: str) -> Path:
    """Where the compiled kernels of an engine on a kind of GPU are kept: in the user's cache."""
    name = "".join(letter if letter.isalnum() else "-" for letter in gpu)
    return cache_folder() / "kernels" / f"{record.sha256[:12]}-{record.version}-{name}.cache"


def kernel_cache(loaded: LoadedEngine, path: Path) -> KernelCache | None:
    """None where the library compiles when it builds, as full TensorRT does."""
    if not hasattr(loaded.library.module, "CudaGraphStrategy"):
        return None
    return KernelCache(loaded.engine.create_runtime_config(), path)


def create_context(loaded: LoadedEngine, kernels: KernelCache | None, cuda_graph: bool, profile: int, stream: Stream) -> Any:
    """A trt.IExecutionContext of one of the engine's profiles; TensorRT-RTX's records CUDA graphs by itself if `cuda_graph`.

    All contexts of an engine compute in the same memory: queue their work on one stream. Raises BackendError when the library
    makes none, or its memory is more than the GPU has free.
    """
    scratch = loaded.scratch()
    with loaded.library.messages() as messages:
        context = bare_context(loaded, kernels, cuda_graph, "USER_MANAGED")
        if context is None or not context.set_optimization_profile_async(profile, stream.handle):
            raise BackendError(f"TensorRT makes no context for profile {profile}: {messages.reason()}: build the engine again here")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(scratch.pointer, scratch.size)
        else:
            context.device_memory = scratch.pointer
        stream.synchronize()
    return context


def bare_context(loaded: LoadedEngine, kernels: KernelCache | None, cuda_graph: bool, strategy: str) -> Any:
    """A trt.IExecutionContext, None where the library makes none, whose memory is allocated by `strategy`: STATIC,
    ON_PROFILE_CHANGE, or USER_MANAGED by the caller. Raises BackendError where the version has no such strategy."""
    trt, engine = loaded.library.module, loaded.engine
    if not hasattr(trt, "ExecutionContextAllocationStrategy"):
        if strategy == "STATIC":
            return engine.create_execution_context()
        if strategy == "USER_MANAGED":
            return engine.create_execution_context_without_device_memory()
        raise BackendError(f"{loaded.library.name} {loaded.library.version} allocates for all profiles: leave the strategy out")
    managed = trt.ExecutionContextAllocationStrategy.__members__[strategy]
    if kernels is None:
        return engine.create_execution_context(managed)
    config = kernels.config
    config.set_execution_context_allocation_strategy(managed)
    config.cuda_graph_strategy = getattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE" if cuda_graph else "DISABLED")
    # compiled when a shape is first met: a fall-back kernel first would change the picture in mid-video
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(config)
