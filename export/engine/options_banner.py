"""What was asked for, as trtexec lists it before it works: sections that scripts look up by their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from export.engine.accuracy import ALGORITHMS
from export.engine.measure_request import MeasureRequest
from export.engine.performance_report import by
from export.engine.request import EngineRequest
from runtime.files.contract import INPUT, OUTPUT
from runtime.files.engine_record import Profile

if TYPE_CHECKING:
    from runtime.backends.device_memory import Gpu

MIB = 1 << 20
POOLS = {"WORKSPACE": "workspace", "TACTIC_SHARED_MEMORY": "tacticSharedMem"}
VERBOSITY_NUMBERS = {"layer_names_only": 0, "none": 1, "detailed": 2}  # TensorRT's
TYPE_WORDS = {"fp16": "+FP16", "bf16": "+BF16", "int8": "+INT8", "fp8": "+FP8"}


def options_banner(request: MeasureRequest, shape: Sequence[int]) -> Iterator[str]:
    """Line by line. `shape` is that of the input."""
    build, loop, run, report = request.build, request.loop, request.run, request.report
    yield "=== Model Options ==="
    yield f"Format: {'ONNX' if build else '*'}"
    yield f"Model: {build.onnx if build else ''}"
    yield "Output:"
    yield ""
    if build:
        yield from _build_options(request, build)
    yield "=== System Options ==="
    yield f"Device: {run.device}"
    yield "DLACore:"
    yield ""
    yield "=== Inference Options ==="
    yield "Batch: Explicit"
    yield f"Input inference shape : {INPUT}={by(shape)}"
    yield f"Iterations: {loop.iterations}"
    yield f"Duration: {loop.duration:g}s (+ {loop.warmup:g}ms warm up)"
    yield f"Sleep time: {loop.hold:g}ms"
    yield f"Idle time: {loop.idle:g}ms"
    yield f"Inference Streams: {run.streams}"
    yield f"ExposeDMA: {_word(not loop.overlap)}"
    yield f"Data transfers: {_word(loop.transfers)}"
    yield f"Spin-wait: {_word(run.spin)}"
    yield f"Multithreading: {_word(loop.threads)}"
    yield f"CUDA Graph: {_word(run.cuda_graph)}"
    yield f"Time Deserialize: {_word(request.time_loading)}"
    yield f"Persistent Cache Ratio: {run.cache_ratio:g}"
    yield f"Optimization Profile Index: {run.profile}"
    yield f"Accuracy Algorithm: {ALGORITHMS[request.accuracy.algorithm]}"
    if request.accuracy.algorithm == "l0":
        yield f"Absolute Tolerance (atol): {request.accuracy.atol:g}"
        yield f"Relative Tolerance (rtol): {request.accuracy.rtol:g}"
    if request.accuracy.threshold:
        yield f"Accuracy Threshold: {request.accuracy.threshold:g}"
    yield "Inputs:"
    yield from (f"{INPUT}<-{pair.inputs}" for pair in request.pairs)
    if any(pair.reference for pair in request.pairs):
        yield "RefOutputs:"
        yield from (f"{OUTPUT}<-{pair.reference}" for pair in request.pairs if pair.reference)
    yield "=== Reporting Options ==="
    yield f"Verbose: {_word(report.verbose)}"
    yield f"Averages: {report.averages} inferences"
    yield f"Percentiles: {','.join(f'{percent:g}' for percent in report.percentiles)}"
    yield f"Dump output: {_word(report.print_output)}"
    yield f"Profile: {_word(report.print_profile)}"
    yield f"Export timing to JSON file: {report.times or ''}"
    yield f"Export output to JSON file: {report.output or ''}"
    yield f"Export profile to JSON file: {report.profile or ''}"
    yield ""


def device_lines(gpu: Gpu) -> Iterator[str]:
    """The GPU, as far as the runner knows it."""
    yield "=== Device Information ==="
    yield f"Selected Device: {gpu.name}"
    yield f"Selected Device ID: {gpu.index}"
    yield f"Compute Capability: {gpu.compute_capability[0]}.{gpu.compute_capability[1]}"
    yield f"Device Global Memory: {gpu.memory // MIB} MiB"
    yield ""


def profile_lines(profiles: Sequence[Profile]) -> Iterator[str]:
    """--dumpOptimizationProfile."""
    yield "Optimization Profile Information:"
    for number, profile in enumerate(profiles):
        yield f"Model input {INPUT} (profile {number}): min={by(profile.min)}, opt={by(profile.opt)}, max={by(profile.max)}"


def _build_options(request: MeasureRequest, build: EngineRequest) -> Iterator[str]:
    sizes = dict(build.memory_pools)
    pools = (f"{word}: {f'{sizes[pool] / MIB:g} MiB' if pool in sizes else 'default'}" for pool, word in POOLS.items())
    types = [TYPE_WORDS[name] for name in (build.rest, build.quantised) if name in TYPE_WORDS]
    yield "=== Build Options ==="
    yield f"Memory Pools: {', '.join(pools)}"
    yield f"avgTiming: {'default' if build.avg_timing is None else build.avg_timing}"
    yield f"Precision: FP32{''.join(types)}"
    yield f"LayerPrecisions: {','.join(f'{pattern}:{kind}' for pattern, kind in build.layer_types)}"
    yield f"Calibration: {build.ranges or build.calibration_data or ''}"
    yield f"Refit: {_word(build.refit)}"
    yield f"Strip weights: {_word(build.strip_weights)}"
    yield f"Version Compatible: {_word(build.version_compatible)}"
    yield f"Exclude Lean Runtime: {_word(build.exclude_lean_runtime)}"
    yield f"Sparsity: {_word(build.sparsity)}"
    yield f"Skip inference: {_word(request.skip)}"
    yield f"Save engine: {request.engine or ''}"
    yield "Load engine:"
    yield f"Profiling verbosity: {VERBOSITY_NUMBERS[build.profiling_verbosity]}"
    yield f"Tactic sources: {','.join(build.tactic_sources) or 'Using default tactic sources'}"
    yield f"timingCacheMode: {'global' if build.builder_cache else 'disable'}"
    yield f"timingCacheFile: {build.timing_cache or ''}"
    yield f"Enable Compilation Cache: {_word(build.compilation_cache)}"
    yield f"errorOnTimingCacheMiss: {_word(build.error_on_timing_cache_miss)}"
    yield f"MaxAuxStreams: {_number(build.max_aux_streams)}"
    yield f"BuilderOptimizationLevel: {'default' if build.optimization_level is None else build.optimization_level}"
    yield f"MaxTactics: {_number(build.max_tactics)}"
    yield f"Runtime Platform: {'Same As Build' if build.runtime_platform == 'SameAsBuild' else build.runtime_platform}"
    for number, profile in enumerate(build.profiles):
        yield f"Input build shape (profile {number}): {INPUT}={by(profile.min)}+{by(profile.opt)}+{by(profile.max)}"
    yield ""


def _number(value: int | None) -> int:
    return -1 if value is None else value


def _word(enabled: bool) -> str:
    return "Enabled" if enabled else "Disabled"
