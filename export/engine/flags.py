"""trtexec's flags, those that TensorRT 11 removed but everybody types, and a few of our own -> the engine to make."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from export.engine import flag_values
from export.engine.request import MIN_TYPE_SHARE, PLATFORMS, VERBOSITIES, BuildOptions, EngineRequest
from export.engine.size_presets import PRESETS, presets
from export.engine.unused_flags import NO_EFFECT, REFUSED
from runtime.errors import InputError, MissingPackageError
from runtime.files.contract import INPUT, read_contract
from runtime.files.engine_record import HARDWARE_LEVELS, Profile
from runtime.machine.requirements import requirement

RUNTIMES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
SHAPE = f"{INPUT}:NxFxHxW"
SWITCHES_OF_EFFORT = {
    "noBuilderCache": "measure every kernel anew, even within the build",
    "errorOnTimingCacheMiss": "fail where the timing cache lacks a kernel, instead of measuring it",
    "noCompilationCache": "keep no compiled kernels in the timing cache",
    "heuristic": "the old name of --builderOptimizationLevel=2",
}
NUMBERS_OF_EFFORT = {
    "maxAuxStreams": "streams beside the main one, at most",
    "maxTactics": "kernels to measure for a layer, at most",
    "avgTiming": "runs that a measurement is the mean of",
}
PRECISION_FLAGS = ("fp16", "bf16", "int8", "fp8")
BEST = ("fp16", "int8")

DESCRIPTION = """Builds a TensorRT or TensorRT-RTX engine from an ONNX file, with trtexec's flags.

  videodeblur build --onnx=model.onnx --fp16 --for 720p
  videodeblur build --onnx=model.onnx --saveEngine=m.engine --int8 --calib=clips/ --optShapes=blurry:1x5x720x1280

Beside the engine it writes its record (FILE.json) and the library's log (FILE.log)."""


@dataclass(frozen=True)
class Flags:
    """What the command line asks for."""

    request: EngineRequest | None  # None where nothing is to be built
    notes: tuple[str, ...]  # what was read and not used, and why
    plan_version_of: Path | None  # --getPlanVersionOnly: print the version of this engine, build nothing
    layer_information: Path | None  # --exportLayerInfo
    verbose: bool


def parse_flags(argv: Sequence[str] | None) -> Flags:
    """Reads `argv`, the process's own when None. Raises InputError, naming the nearest flag, on one that nobody knows."""
    parser = _parser()
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_unknown(unknown[0], parser))
    for flag, remedy in REFUSED.items():
        if getattr(given, _name(flag)) is not None:
            raise InputError(f"{flag}: {remedy}")
    if given.getPlanVersionOnly and given.loadEngine:
        return Flags(None, (), given.loadEngine, None, given.verbose)
    if given.getPlanVersionOnly or given.loadEngine:
        raise InputError("--loadEngine=FILE and --getPlanVersionOnly go together; run an engine with videodeblur run --model FILE")
    if given.onnx is None:
        raise InputError("name the model with --onnx=FILE: make one with export/to_onnx.py")
    return Flags(_request(given), tuple(_notes(given)), None, given.exportLayerInfo, given.verbose)


def _request(given: argparse.Namespace) -> EngineRequest:
    if given.sizes and given.shapes_given:
        raise InputError(
            "got --for and shapes, expected one of them: several profiles of your own go as --profile=I before the shapes of each"
        )
    profiles = presets(given.sizes, read_contract(given.onnx)) if given.sizes else _profiles(given.shapes_given)
    return EngineRequest(
        build=_build_options(given, profiles),
        engine=given.saveEngine or given.onnx.with_suffix(".engine"),
        precision=_precision(given),
        layer_types=given.layerPrecisions or (),
        ranges=given.ranges,
        calibration_data=given.calib,
        precisions=given.precision,
        min_type_share=given.minTypeShare,
    )


def _build_options(given: argparse.Namespace, profiles: tuple[Profile, ...]) -> BuildOptions:
    pools = dict(given.memPoolSize or ())
    if given.workspace is not None:
        pools["WORKSPACE"] = given.workspace
    return BuildOptions(
        onnx=given.onnx,
        library=_library(given.runtime),
        profiles=profiles,
        types=_precision(given),
        tf32=not given.noTF32,
        compute_capabilities=given.computeCapabilities or (),
        device=given.device,
        memory_pools=tuple(pools.items()),
        optimization_level=2 if given.heuristic and given.builderOptimizationLevel is None else given.builderOptimizationLevel,
        max_aux_streams=given.maxAuxStreams,
        max_tactics=given.maxTactics,
        avg_timing=given.avgTiming,
        tiling_level=given.tilingOptimizationLevel,
        l2_limit=given.l2LimitForTiling,
        tactic_sources=given.tacticSources or (),
        timing_cache=given.timingCacheFile,
        builder_cache=not given.noBuilderCache,
        error_on_timing_cache_miss=given.errorOnTimingCacheMiss,
        compilation_cache=not given.noCompilationCache,
        hardware_compatibility=given.hardwareCompatibilityLevel,
        version_compatible=given.versionCompatible,
        exclude_lean_runtime=given.excludeLeanRuntime,
        runtime_platform=given.runtimePlatform,
        refit=given.refit,
        strip_weights=given.stripWeights,
        sparsity=given.sparsity == "enable",
        profiling_verbosity=given.profilingVerbosity,
    )


def _precision(given: argparse.Namespace) -> tuple[str, ...]:
    asked = tuple(name for name in PRECISION_FLAGS if getattr(given, name))
    return tuple(dict.fromkeys((*BEST, *asked))) if given.best else asked


def _library(runtime: str | None) -> str:
    """The one that is named, else the one that is installed, full TensorRT before TensorRT-RTX."""
    if runtime is not None:
        return RUNTIMES[runtime]
    installed = [module for module in RUNTIMES.values() if find_spec(module) is not None]
    if not installed:
        raise MissingPackageError(requirement("tensorrt-rtx"), "building engines (or, with a GPU, tensorrt)")
    return installed[0]


def _profiles(given: Sequence[tuple[int, str, tuple[int, ...]]]) -> tuple[Profile, ...]:
    """From (profile number, "min", "opt", "max" or "shapes", shape) in the order of the command line."""
    by_number: dict[int, dict[str, tuple[int, ...]]] = {}
    for number, kind, shape in given:
        by_number.setdefault(number, {})[kind] = shape
    if sorted(by_number) != list(range(len(by_number))):
        raise InputError(f"got profiles {sorted(by_number)}, expected 0 to {len(by_number) - 1}")
    return tuple(_filled(by_number[number]) for number in sorted(by_number))


def _filled(shapes: dict[str, tuple[int, ...]]) -> Profile:
    """As trtexec does: what is not given is what is."""
    opt = next(shapes[kind] for kind in ("opt", "shapes", "max", "min") if kind in shapes)
    return Profile(shapes.get("min", opt), opt, shapes.get("max", opt))


def _notes(given: argparse.Namespace) -> Iterator[str]:
    for flag, (_, reason) in NO_EFFECT.items():
        if getattr(given, _name(flag)):
            yield f"{flag} has no effect: {reason}"
    if given.heuristic:
        yield "--heuristic is --builderOptimizationLevel=2 now"
    if given.refit or given.stripWeights:
        yield "engines with stripped or refittable weights are for other tools: this project's runner loads whole ones"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="videodeblur build",
        usage="%(prog)s --onnx=FILE [--saveEngine=FILE] [--fp16 | --bf16 | --int8 | --fp8] [--for 720p,1080p] [flags of trtexec]",
        description=DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(shapes_given=[], profile_number=0)
    for fill in (_add_files, _add_precision, _add_shapes, _add_target, _add_effort, _add_compatibility):
        fill(parser)
    for flag, (takes_value, _) in NO_EFFECT.items():
        if takes_value:
            parser.add_argument(flag, help=argparse.SUPPRESS)
        else:
            parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    for flag in REFUSED:
        parser.add_argument(flag, nargs="?", const="", help=argparse.SUPPRESS)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument("--onnx", type=Path, metavar="FILE", help="fp32 model from videodeblur export, or one with its types in it")
    group.add_argument(
        "--saveEngine",
        type=Path,
        metavar="FILE",
        help="default: the model's name with .engine; an engine that is there is replaced",
    )
    group.add_argument(
        "--getPlanVersionOnly", action="store_true", help="print the version of --loadEngine's file; runs nothing of it"
    )
    group.add_argument("--loadEngine", type=Path, metavar="FILE", help="for --getPlanVersionOnly only")
    group.add_argument(
        "--exportLayerInfo",
        type=Path,
        metavar="FILE",
        help="layers and types: JSON of full TensorRT, text of RTX",
    )
    group.add_argument("--verbose", action="store_true", help="print what the library says, instead of only to the log")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("precision (TensorRT 11 dropped these flags; here they write the types into the graph first)")
    group.add_argument("--fp16", action="store_true", help="all FP16, but for what comes near its limit on real clips")
    group.add_argument("--bf16", action="store_true", help="all BF16")
    group.add_argument(
        "--int8", action="store_true", help="convolutions, by --ranges or --calib; the rest in fp32, or what --fp16 or --bf16 says"
    )
    group.add_argument("--fp8", action="store_true", help="the same in FP8; compute capability 8.9 and newer")
    group.add_argument("--best", action="store_true", help="the same as --int8 --fp16")
    group.add_argument("--noTF32", action="store_true", help="exact fp32, for parity with PyTorch; TF32 is on by default")
    group.add_argument(
        "--layerPrecisions",
        type=flag_values.layer_types,
        metavar="PATTERN:TYPE,...",
        help="types of layers or nodes, such as c1*:fp32; * matches anything; a later one wins",
    )
    group.add_argument("--precision", type=Path, metavar="FILE", help="precision.json, from videodeblur search")
    group.add_argument("--ranges", type=Path, metavar="FILE", help="ranges.json, from videodeblur calibrate")
    group.add_argument(
        "--calib",
        type=Path,
        metavar="DATA",
        help="a video or a folder to calibrate on, not trtexec's cache file (default: the shipped clip)",
    )
    text = "fail when less of the convolutions' arithmetic runs in the types that were asked for (default %(default)s)"
    group.add_argument("--minTypeShare", type=flag_values.share, default=MIN_TYPE_SHARE, metavar="SHARE", help=text)


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("shapes")
    for kind, text in (("min", "smallest"), ("opt", "tuned for; alone, the only one"), ("max", "largest")):
        group.add_argument(f"--{kind}Shapes", action=_Shape, type=flag_values.shape, const=kind, metavar=SHAPE, help=text)
    group.add_argument(
        "--shapes",
        action=_Shape,
        type=flag_values.shape,
        const="shapes",
        metavar=SHAPE,
        help="the only one: minimum, optimum and maximum",
    )
    group.add_argument("--profile", action=_ProfileNumber, type=int, metavar="I", help="the shapes that follow are of profile I")
    sizes = f"a profile of one window for each size: {', '.join(PRESETS)} or WIDTHxHEIGHT"
    group.add_argument("--for", dest="sizes", type=flag_values.names, metavar="SIZE,...", help=sizes)


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("target")
    group.add_argument("--runtime", choices=tuple(RUNTIMES), help="library (default: tensorrt if it is installed, else rtx)")
    text = "GPUs to build for with --runtime rtx, such as 8.6,8.9 (default: any from 8.0 on)"
    group.add_argument("--computeCapabilities", type=flag_values.capabilities, metavar="X.Y,...", help=text)
    group.add_argument("--device", type=int, default=0, metavar="N", help="the GPU that full TensorRT builds on and for")


def _add_effort(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("effort and memory")
    group.add_argument(
        "--builderOptimizationLevel", type=int, metavar="0..5", help="how long to search (default: the library's, 3)"
    )
    group.add_argument(
        "--memPoolSize", type=flag_values.pools, metavar="POOL:SIZE,...", help="workspace or tacticSharedMem; MiB, or B, K, M, G"
    )
    group.add_argument("--workspace", type=flag_values.size, metavar="MIB", help="the old name of --memPoolSize=workspace")
    text = "default: one for each GPU and version, in the user's cache"
    group.add_argument("--timingCacheFile", type=Path, metavar="FILE", help=text)
    for name, text in SWITCHES_OF_EFFORT.items():
        group.add_argument(f"--{name}", action="store_true", help=text)
    for name, text in NUMBERS_OF_EFFORT.items():
        group.add_argument(f"--{name}", type=int, metavar="N", help=text)
    group.add_argument("--tilingOptimizationLevel", type=flag_values.tiling, metavar="0..3", help="none, fast, moderate, full")
    group.add_argument("--l2LimitForTiling", type=int, metavar="BYTES", help="of L2 cache that tiling may count on")
    group.add_argument("--tacticSources", type=flag_values.sources, metavar="+X,-Y", help="libraries to take kernels from or not")
    group.add_argument("--sparsity", choices=("disable", "enable"), default="disable", help="2:4 kernels (default %(default)s)")


def _add_compatibility(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("compatibility")
    group.add_argument(
        "--hardwareCompatibilityLevel",
        choices=HARDWARE_LEVELS,
        default="none",
        help="GPUs that it runs on besides this kind (default %(default)s)",
    )
    text = "runs on later versions and the lean runtime; contains code that loading it executes"
    group.add_argument("--versionCompatible", "--vc", action="store_true", help=text)
    group.add_argument("--excludeLeanRuntime", action="store_true", help="with --versionCompatible: leave that code out")
    group.add_argument("--runtimePlatform", choices=PLATFORMS, default="SameAsBuild", help="where it runs (default %(default)s)")
    group.add_argument("--stripWeights", action="store_true", help="for other tools: videodeblur does not run such engines")
    group.add_argument("--refit", action="store_true", help="refittable weights, for other tools")
    group.add_argument(
        "--profilingVerbosity",
        choices=VERBOSITIES,
        default="detailed",
        help="default %(default)s: without it the types that run cannot be checked",
    )


class _Parser(argparse.ArgumentParser):
    """Leaves errors to the caller, who knows one form for all."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


class _Shape(argparse.Action):
    """Notes a shape together with the profile that it is of."""

    def __call__(self, parser: argparse.ArgumentParser, given: Any, value: Any, flag: str | None = None) -> None:
        given.shapes_given = [*given.shapes_given, (given.profile_number, self.const, value)]


class _ProfileNumber(argparse.Action):
    """`--profile=I`: the shapes that follow are of profile I."""

    def __call__(self, parser: argparse.ArgumentParser, given: Any, value: Any, flag: str | None = None) -> None:
        given.profile_number = value


def _name(flag: str) -> str:
    return flag.lstrip("-")


def _unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    flag = argument.partition("=")[0]
    if not flag.startswith("-"):
        return f"got {argument!r}, expected flags: name the model with --onnx={argument}"
    known = [option for action in parser._actions for option in action.option_strings]
    lower = {option.lower(): option for option in known}
    near = difflib.get_close_matches(flag.lower(), lower, n=1, cutoff=0.5)
    return f"no flag {flag}{f', did you mean {lower[near[0]]}?' if near else ''}; --help lists them"
