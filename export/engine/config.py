"""EngineRequest -> the configuration of a TensorRT builder of any version; flags and numbers are read back, since the libraries
refuse them in their log only."""

from __future__ import annotations

from typing import Any

from export.engine.request import TYPE_FLAGS, EngineRequest
from runtime.backends.tensorrt_library import Library
from runtime.errors import InputError

HARDWARE_VALUES = {"none": "NONE", "ampere+": "AMPERE_PLUS", "sameComputeCapability": "SAME_COMPUTE_CAPABILITY"}
PLATFORM_VALUES = {"SameAsBuild": "SAME_AS_BUILD", "WindowsAMD64": "WINDOWS_AMD64"}
SHARED_PROFILES = "PROFILE_SHARING_0806"  # several contexts of one profile, as the runner has
GONE_SOURCES = ("CUBLAS", "CUBLAS_LT", "CUDNN")  # tactic sources that old scripts name and newer versions dropped


def configure(library: Library, builder: Any, options: EngineRequest) -> Any:
    """A trt.IBuilderConfig. Raises InputError, naming what there is, on an option that this library or version lacks."""
    config = builder.create_builder_config()
    _set_flags(library, config, options)
    _set_numbers(library, config, options)
    for name, size in options.memory_pools:
        pool = _member(library, "MemoryPoolType", name)
        config.set_memory_pool_limit(pool, size)
        if name != "WORKSPACE":  # of which a library may take less: what the GPU has
            _check_taken(library, f"{size} bytes of {name}", config.get_memory_pool_limit(pool) == size)
    if not strongly_typed(library):  # later versions always do
        config.set_preview_feature(_member(library, "PreviewFeature", SHARED_PROFILES), True)
    config.profiling_verbosity = _member(library, "ProfilingVerbosity", options.profiling_verbosity.upper())
    if options.hardware_compatibility != "none":
        level = HARDWARE_VALUES[options.hardware_compatibility]
        config.hardware_compatibility_level = _member(library, "HardwareCompatibilityLevel", level)
    if options.runtime_platform != "SameAsBuild":
        config.runtime_platform = _member(library, "RuntimePlatform", PLATFORM_VALUES[options.runtime_platform])
    if options.tactic_sources:
        sources = _tactic_sources(library, config, options.tactic_sources)
        taken = config.set_tactic_sources(sources)
        _check_taken(library, f"the tactic sources {','.join(options.tactic_sources)}", taken)
    if options.compute_capabilities:
        _set_targets(library, config, options.compute_capabilities)
    return config


def _set_flags(library: Library, config: Any, options: EngineRequest) -> None:
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
        "DISTRIBUTIVE_INDEPENDENCE": options.distributive_independence,
    }
    if not strongly_typed(library):
        wanted.update({TYPE_FLAGS[name]: True for name in options.types})
    for name, on in wanted.items():
        if on:
            flag = _member(library, "BuilderFlag", name)
            config.set_flag(flag)
            _check_taken(library, name, config.get_flag(flag))
        elif name in library.module.BuilderFlag.__members__:
            config.clear_flag(_member(library, "BuilderFlag", name))


def _set_numbers(library: Library, config: Any, options: EngineRequest) -> None:
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
            _check_taken(library, f"{name} {value}", getattr(config, name) == value)


def _tactic_sources(library: Library, config: Any, changes: tuple[str, ...]) -> int:
    mask = int(config.get_tactic_sources())
    gone = {name for name in GONE_SOURCES if name not in library.module.TacticSource.__members__}
    for change in (change for change in changes if change[1:] not in gone):
        bit = 1 << int(_member(library, "TacticSource", change[1:]))
        mask = mask | bit if change[0] == "+" else mask & ~bit
    return mask


def gone_sources(library: Library, changes: tuple[str, ...]) -> tuple[str, ...]:
    """A note for each tactic source that old scripts name and this version has no more."""
    known = library.module.TacticSource.__members__
    return tuple(f"{library.name} {library.version} has no tactic source {each[1:]}" for each in changes if each[1:] not in known)


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


def _check_taken(library: Library, what: str, taken: bool) -> None:
    if not taken:
        raise InputError(f"{library.name} {library.version} does not take {what}: change the option, or leave it out")


def strongly_typed(library: Library) -> bool:
    """Whether the engine's types are those of the ONNX file; else the builder chooses among `EngineRequest.types`."""
    return "STRONGLY_TYPED" in library.module.NetworkDefinitionCreationFlag.__members__


def _member(library: Library, kind: str, name: str) -> Any:
    """A value of an enumeration of the library. Raises InputError, naming what there is, when this version has none such."""
    members = getattr(library.module, kind).__members__ if hasattr(library.module, kind) else {}
    if name not in members:
        offered = f", it has {', '.join(members)}" if members else ""
        raise InputError(f"{library.name} {library.version} has no {kind} {name}{offered}")
    return members[name]
