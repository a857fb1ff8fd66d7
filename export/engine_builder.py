"""`build_engine`: an ONNX file -> a TensorRT engine, with full TensorRT 8.6 to 11 or TensorRT-RTX, as `BuildOptions` say.

Strongly typed wherever the library can be (TensorRT 10 and newer, TensorRT-RTX): the types of the ONNX file are the types of the
engine. TensorRT 8.6 chooses types itself, among those that `BuildOptions.types` allows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.build_monitor import Progress, build_monitor
from export.timing_cache import TimingCache, cache_name
from runtime.contract import INPUT
from runtime.default_model import cache_folder
from runtime.errors import BackendError, DeployError, InputError, MissingPackageError, ModelError
from runtime.plan import HARDWARE_LEVELS, Profile
from runtime.tensorrt_library import Library, Messages, load_library

if TYPE_CHECKING:
    from runtime.device_memory import Gpu

BUILDERS = ("tensorrt", "tensorrt_rtx")
VERBOSITIES = ("layer_names_only", "detailed", "none")
TILING_LEVELS = ("none", "fast", "moderate", "full")
PLATFORMS = ("SameAsBuild", "WindowsAMD64")
TYPE_FLAGS = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}  # of weakly typed builders
HARDWARE_VALUES = {"none": "NONE", "ampere+": "AMPERE_PLUS", "sameComputeCapability": "SAME_COMPUTE_CAPABILITY"}
PLATFORM_VALUES = {"SameAsBuild": "SAME_AS_BUILD", "WindowsAMD64": "WINDOWS_AMD64"}
GONE_SOURCES = ("CUBLAS", "CUBLAS_LT", "CUDNN")  # tactic sources that old scripts name and newer versions dropped
NO_EFFECT_ON_RTX = {  # option: flag as trtexec spells it; TensorRT-RTX accepts and ignores them, tried with 1.7
    "optimization_level": "--builderOptimizationLevel",
    "max_aux_streams": "--maxAuxStreams",
    "tiling_level": "--tilingOptimizationLevel",
    "avg_timing": "--avgTiming",
    "max_tactics": "--maxTactics",
    "timing_cache": "--timingCacheFile",
}
LAYERS = "Layers:\n"  # begins the builder's message that lists what it built


@dataclass(frozen=True)
class BuildOptions:
    """What to build. None and empty leave the choice to the library; names follow trtexec's."""

    onnx: Path
    library: str = "tensorrt"  # one of BUILDERS
    profiles: tuple[Profile, ...] = ()  # empty: the file's own fixed shape
    types: tuple[str, ...] = ()  # beyond fp32, of TYPE_FLAGS: what a weakly typed builder (8.6) may choose
    tf32: bool = True  # fp32 convolutions may round their inputs to 10 bits; False for parity with PyTorch
    compute_capabilities: tuple[tuple[int, int], ...] = ()  # TensorRT-RTX's targets; empty: any GPU from 8.0 on, says the library
    device: int = 0  # the GPU that full TensorRT builds on and for
    memory_pools: tuple[tuple[str, int], ...] = ()  # (trt.MemoryPoolType's name, bytes)
    optimization_level: int | None = None  # 0..5
    max_aux_streams: int | None = None
    max_tactics: int | None = None
    avg_timing: int | None = None  # repeats of each measurement
    tiling_level: str | None = None  # one of TILING_LEVELS
    l2_limit: int | None = None  # bytes, for tiling
    tactic_sources: tuple[str, ...] = ()  # "+NAME" or "-NAME"
    timing_cache: Path | None = None  # read, extended and kept; None: one for the GPU and version, in the user's cache
    builder_cache: bool = True  # False: no timing cache even within the build
    error_on_timing_cache_miss: bool = False
    compilation_cache: bool = True
    hardware_compatibility: str = "none"  # one of HARDWARE_LEVELS
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    runtime_platform: str = "SameAsBuild"  # one of PLATFORMS
    refit: bool = False
    strip_weights: bool = False
    sparsity: bool = False
    profiling_verbosity: str = "detailed"  # one of VERBOSITIES; type truth needs "detailed"
    log: Path | None = None  # everything that the library says is written here, whether or not it builds

    def __post_init__(self) -> None:
        """Raises InputError on a value that no library knows."""
        _expect("library", self.library, BUILDERS)
        _expect("hardware compatibility", self.hardware_compatibility, HARDWARE_LEVELS)
        _expect("runtime platform", self.runtime_platform, PLATFORMS)
        _expect("profiling verbosity", self.profiling_verbosity, VERBOSITIES)
        _expect("tiling level", self.tiling_level, (None, *TILING_LEVELS))
        for name in self.types:
            _expect("type", name, tuple(TYPE_FLAGS))
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise InputError(f"the builder optimization level is {self.optimization_level}, expected 0 to 5")
        if self.exclude_lean_runtime and not self.version_compatible:
            raise InputError("--excludeLeanRuntime only means something with --versionCompatible")


@dataclass(frozen=True)
class BuiltEngine:
    """A built engine and what is known of it."""

    plan: bytes  # the engine, as it is written to a file
    library: str  # that built it
    version: str  # of the library
    compute_capabilities: tuple[tuple[int, int], ...]  # that it is for; empty: any, says TensorRT-RTX
    profiles: tuple[Profile, ...]
    layer_log: str  # its layers: TensorRT-RTX's own text, or the inspector's JSON; "" below verbosity "detailed"
    seconds: float  # the build took
    messages: tuple[str, ...]  # everything the library said
    notes: tuple[str, ...]  # what the user should know: options without effect


def build_engine(options: BuildOptions, progress: Progress | None = None) -> BuiltEngine:
    """Builds an engine. Full TensorRT needs the GPU that it is for; TensorRT-RTX needs none.

    Raises ModelError when the file does not parse, InputError on an option that the library lacks, BackendError when the build
    fails; each quotes what the library said.
    """
    library = load_library(options.library)
    gpu = _open_gpu(options.device) if library.name == "tensorrt" else None
    started = time.monotonic()
    with library.messages(verbose=True) as messages, _log_file(options.log, messages):
        builder = library.module.Builder(library.logger)
        network, parser = _parse(library, builder, options.onnx, messages)
        config = _configure(library, builder, options)
        profiles = _add_profiles(builder, config, network, options.profiles)
        monitor = _monitor(library, config, progress)
        with _timing_cache(config, library, options, gpu):
            plan = builder.build_serialized_network(network, config)
        del parser  # it owned the weights until here
        if monitor is not None and monitor.failure is not None:
            raise monitor.failure
        if plan is None:
            raise BackendError(f"{library.name} {library.version} could not build the engine: {messages.reason()}")
        data = bytes(memoryview(plan))
        layers = _layers(library, options, data, messages)
    return BuiltEngine(
        plan=data,
        library=library.name,
        version=library.version,
        compute_capabilities=(gpu.compute_capability,) if gpu else options.compute_capabilities,
        profiles=profiles,
        layer_log=layers,
        seconds=time.monotonic() - started,
        messages=tuple(messages.all),
        notes=_notes(library, options),
    )


@contextmanager
def _log_file(path: Path | None, messages: Messages) -> Iterator[None]:
    """Keeps the messages; an error names the file."""
    try:
        yield
    except DeployError as error:
        if path is not None:
            error.args = (f"{error} (all that the library said: {path})",)
        raise
    finally:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(messages.all) + "\n")


def _open_gpu(device: int) -> Gpu:
    try:
        from runtime.device_memory import open_gpu  # its CUDA library is not needed to build for TensorRT-RTX
    except ImportError as error:
        raise MissingPackageError("cuda-bindings>=12.9", "building on a GPU") from error
    return open_gpu(device)


def _parse(library: Library, builder: Any, path: Path, messages: Messages) -> tuple[Any, Any]:
    """The network, and the parser that owns its weights."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    trt = library.module
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(path.resolve())):
        errors = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ModelError(f"{library.name} {library.version} cannot read {path}: {'; '.join(errors) or messages.reason()}")
    return network, parser


def _network_flags(trt: Any) -> int:
    """By name, since the bits mean other things in other versions."""
    known = trt.NetworkDefinitionCreationFlag.__members__
    return sum(1 << int(known[name]) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if name in known)


def _parser_error(error: Any) -> str:
    text = error.desc()
    if not hasattr(error, "node_name"):  # TensorRT 8.6 knows the number only
        return f"node {error.node()}: {text}"
    name, operator = error.node_name(), error.node_operator()
    module = name.rpartition("/")[0]
    return f"node {name} ({operator}{f', of the PyTorch module {module}' if module else ''}): {text}" if name else text


def _configure(library: Library, builder: Any, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    _set_flags(library, config, options)
    _set_numbers(library, config, options)
    for pool, size in options.memory_pools:
        config.set_memory_pool_limit(_member(library, "MemoryPoolType", pool), size)
    config.profiling_verbosity = _member(library, "ProfilingVerbosity", options.profiling_verbosity.upper())
    if options.hardware_compatibility != "none":
        level = HARDWARE_VALUES[options.hardware_compatibility]
        config.hardware_compatibility_level = _member(library, "HardwareCompatibilityLevel", level)
    if options.runtime_platform != "SameAsBuild":
        config.runtime_platform = _member(library, "RuntimePlatform", PLATFORM_VALUES[options.runtime_platform])
    if options.tactic_sources:
        config.set_tactic_sources(_tactic_sources(library, config, options.tactic_sources))
    if options.compute_capabilities:
        _set_targets(library, config, options.compute_capabilities)
    return config


def _set_flags(library: Library, config: Any, options: BuildOptions) -> None:
    wanted = {
        "TF32": options.tf32,
        "VERSION_COMPATIBLE": options.version_compatible,
        "EXCLUDE_LEAN_RUNTIME": options.exclude_lean_runtime,  # after VERSION_COMPATIBLE, or it is not taken
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_weights,
        "SPARSE_WEIGHTS": options.sparsity,
        "DISABLE_TIMING_CACHE": not options.builder_cache,
        "ERROR_ON_TIMING_CACHE_MISS": options.error_on_timing_cache_miss,
        "DISABLE_COMPILATION_CACHE": not options.compilation_cache,
    }
    if not strongly_typed(library):
        wanted.update({TYPE_FLAGS[name]: True for name in options.types})
    for name, on in wanted.items():
        if on:
            config.set_flag(_member(library, "BuilderFlag", name))
        elif name in library.module.BuilderFlag.__members__:
            config.clear_flag(_member(library, "BuilderFlag", name))


def _set_numbers(library: Library, config: Any, options: BuildOptions) -> None:
    tiling = options.tiling_level
    numbers = {
        "builder_optimization_level": options.optimization_level,
        "max_aux_streams": options.max_aux_streams,
        "max_num_tactics": options.max_tactics,
        "avg_timing_iterations": options.avg_timing,
        "l2_limit_for_tiling": options.l2_limit,
        "tiling_optimization_level": tiling and _member(library, "TilingOptimizationLevel", tiling.upper()),
    }
    for name, value in numbers.items():
        if value is not None and not hasattr(config, name):
            raise InputError(f"{library.name} {library.version} has no {name}: leave the option out")
        if value is not None:
            setattr(config, name, value)


def _tactic_sources(library: Library, config: Any, changes: tuple[str, ...]) -> int:
    mask = int(config.get_tactic_sources())
    for change in changes:
        if change[1:] in GONE_SOURCES and change[1:] not in library.module.TacticSource.__members__:
            continue
        bit = 1 << int(_member(library, "TacticSource", change[1:]))
        mask = mask | bit if change[0] == "+" else mask & ~bit
    return mask


def _set_targets(library: Library, config: Any, targets: tuple[tuple[int, int], ...]) -> None:
    if not hasattr(config, "num_compute_capabilities"):
        raise InputError(f"--computeCapabilities is for --runtime rtx: {library.name} builds for the GPU it runs on")
    known = library.module.ComputeCapability.__members__
    config.num_compute_capabilities = len(targets)
    for i, (major, minor) in enumerate(targets):
        value = known.get(f"SM{major}{minor}")
        if value is None or not config.set_compute_capability(value, i):
            offered = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in known if name.startswith("SM"))
            raise InputError(f"{library.name} has no target {major}.{minor}, expected some of {offered}")


def _add_profiles(builder: Any, config: Any, network: Any, profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    """Adds the profiles; a network of fixed shape has one without being told."""
    shape = tuple(network.get_input(0).shape)
    if network.num_inputs != 1 or network.get_input(0).name != INPUT:
        raise ModelError(f"the network has inputs {_input_names(network)}, expected {INPUT}: use export/to_onnx.py's file")
    if -1 in shape and not profiles:
        raise InputError(f"{INPUT} is {shape} in the file: name its sizes with --optShapes={INPUT}:1x5x720x1280 or --for 720p")
    for profile in profiles:
        _check_profile(profile, shape)
        added = builder.create_optimization_profile()
        added.set_shape(INPUT, profile.min, profile.opt, profile.max)
        if config.add_optimization_profile(added) < 0:
            raise InputError(f"the library refuses the profile {profile.min}, {profile.opt}, {profile.max} for {INPUT} {shape}")
    return profiles or (Profile(shape, shape, shape),)


def _check_profile(profile: Profile, shape: tuple[int, ...]) -> None:
    for given in (profile.min, profile.opt, profile.max):
        if len(given) != len(shape) or any(fixed not in (-1, got) for fixed, got in zip(shape, given)):
            raise InputError(f"the profile has {given}, {INPUT} is {shape} in the file: -1 is free, the rest is fixed")


def _input_names(network: Any) -> str:
    return ", ".join(network.get_input(i).name for i in range(network.num_inputs))


def _monitor(library: Library, config: Any, progress: Progress | None) -> Any:
    """TensorRT 8.6 has no monitor: the build is silent there."""
    if progress is None or not hasattr(library.module, "IProgressMonitor"):
        return None
    monitor = build_monitor(library.module, progress)
    config.progress_monitor = monitor
    return monitor


@contextmanager
def _timing_cache(config: Any, library: Library, options: BuildOptions, gpu: Gpu | None) -> Iterator[None]:
    """Full TensorRT's measurements, kept from build to build; TensorRT-RTX measures nothing when it builds."""
    if gpu is None or not options.builder_cache:
        yield
        return
    own = cache_folder() / "timing" / cache_name(library.name, library.version, gpu.name, gpu.compute_capability)
    cache = TimingCache(options.timing_cache or own, config)
    yield
    cache.keep()


def strongly_typed(library: Library) -> bool:
    """Whether the engine's types are those of the ONNX file; else the builder chooses among `BuildOptions.types`."""
    return "STRONGLY_TYPED" in library.module.NetworkDefinitionCreationFlag.__members__


def _layers(library: Library, options: BuildOptions, plan: bytes, messages: Messages) -> str:
    if options.profiling_verbosity != "detailed":
        return ""
    if library.name == "tensorrt_rtx":  # its builder tells, and its inspector would need the GPU
        return "\n".join(message[len(LAYERS) :] for message in messages.all if message.startswith(LAYERS))
    trt = library.module
    engine = trt.Runtime(library.logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"{library.name} cannot load the engine that it has just built: {messages.reason()}")
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _notes(library: Library, options: BuildOptions) -> tuple[str, ...]:
    ignored = [flag for name, flag in NO_EFFECT_ON_RTX.items() if getattr(options, name) is not None]
    if options.hardware_compatibility != "none":
        ignored.append("--hardwareCompatibilityLevel")
    gone = [change for change in options.tactic_sources if change[1:] not in library.module.TacticSource.__members__]
    notes = [f"TensorRT-RTX ignores {', '.join(ignored)}"] if ignored and library.name == "tensorrt_rtx" else []
    return (*notes, *(f"{library.name} {library.version} has no tactic source {change[1:]}" for change in gone))


def _member(library: Library, kind: str, name: str) -> Any:
    """A value of an enumeration of the library. Raises InputError, naming what there is, when this version has none such."""
    members = getattr(library.module, kind).__members__ if hasattr(library.module, kind) else {}
    if name not in members:
        offered = f", it has {', '.join(members)}" if members else ""
        raise InputError(f"{library.name} {library.version} has no {kind} {name}{offered}")
    return members[name]


def _expect(what: str, got: str | None, expected: tuple[str | None, ...]) -> None:
    if got not in expected:
        raise InputError(f"{what} is {got!r}, expected one of {', '.join(str(name) for name in expected)}")
