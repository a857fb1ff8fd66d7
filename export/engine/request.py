"""`EngineRequest`: an engine to be made, of what, for what, and how hard the builder tries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError
from runtime.files.engine_record import HARDWARE_LEVELS, SUFFIXES, Profile

BUILDERS = ("tensorrt", "tensorrt_rtx")
VERBOSITIES = ("layer_names_only", "detailed", "none")
TILING_LEVELS = ("none", "fast", "moderate", "full")
PLATFORMS = ("SameAsBuild", "WindowsAMD64")
TYPE_FLAGS = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}  # of weakly typed builders

MIN_TYPE_SHARE = 0.9  # of the convolutions' arithmetic that asked for less than fp32
QUANTISED = ("int8", "fp8")
LOWERED_FLOATS = ("fp16", "bf16")


@dataclass(frozen=True)
class EngineRequest:
    """An engine to be made, of what, for what, and how hard the builder tries: all that was asked for, handed down whole.

    None and empty leave the choice to the library; names follow trtexec's.
    """

    onnx: Path  # the file that the user named, fp32 or typed; for the builder, the one to read
    engine: Path  # to be written
    library: str = "tensorrt"  # one of BUILDERS
    profiles: tuple[Profile, ...] = ()  # empty: the file's own fixed shape
    quantised: str | None = None  # one of QUANTISED
    rest: str = "fp32"  # type of what is not quantised, or one of LOWERED_FLOATS; fp32 and nothing quantised: the types of the file
    layer_types: tuple[tuple[str, str], ...] = ()  # (pattern of layer or node names, precision); a later one wins
    precisions: Path | None = None  # precision.json, from videodeblur search
    ranges: Path | None = None  # ranges.json, from videodeblur calibrate; None: measured where they are needed
    calibration_data: Path | None = None  # to measure on; None: the shipped clip
    min_type_share: float = MIN_TYPE_SHARE
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
    distributive_independence: bool = False  # sums may be regrouped
    runtime_platform: str = "SameAsBuild"  # one of PLATFORMS
    refit: bool = False
    strip_weights: bool = False
    sparsity: bool = False
    profiling_verbosity: str = "detailed"  # one of VERBOSITIES; type truth needs "detailed"
    log: Path | None = None  # everything that the library says is written here, whether or not it builds
    layer_information: Path | None = None  # to be written: the layers, as the library tells them
    verbose: bool = False  # tell what the library says, instead of only writing it to the log
    notes: tuple[str, ...] = ()  # what was asked for and has no effect, and why

    def __post_init__(self) -> None:
        """Raises InputError on a value that no library knows, and on a name that no engine has."""
        if self.engine.suffix not in SUFFIXES:
            endings = ", ".join(SUFFIXES)
            raise InputError(f"the engine is {self.engine}, expected a name that ends with {endings}: nothing opens another")
        _expect("library", self.library, BUILDERS)
        _expect("quantised type", self.quantised, (None, *QUANTISED))
        _expect("type of the rest", self.rest, ("fp32", *LOWERED_FLOATS))
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
        if self.layer_types and self.precisions:
            raise InputError("got --layerPrecisions and --precision, expected one of them")


def _expect(what: str, got: str | None, expected: tuple[str | None, ...]) -> None:
    if got not in expected:
        raise InputError(f"{what} is {got!r}, expected one of {', '.join(str(name) for name in expected)}")
