"""trtexec's flags, those that TensorRT 11 removed but everybody types, and a few of our own -> the engine to make."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from export.engine import flag_values
from export.engine.request import LOWERED_FLOATS, PLATFORMS, QUANTISED, VERBOSITIES, EngineRequest
from export.engine.size_presets import PRESETS, presets
from export.engine.unused_flags import MEASURES, NO_EFFECT, NO_EFFECT_ON_RTX, OUR_MEASURE, REFUSED, RESULTS
from runtime.errors import InputError, MissingPackageError
from runtime.files.contract import INPUT, read_contract
from runtime.files.engine_record import HARDWARE_LEVELS, Profile
from runtime.machine.requirements import requirement

RUNTIMES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
SHAPE = f"{INPUT}:NxFxHxW"
NUMBERS_OF_EFFORT = {
    "maxAuxStreams": ("max_aux_streams", "streams beside the main one, at most"),
    "maxTactics": ("max_tactics", "kernels to measure for a layer, at most"),
    "avgTiming": ("avg_timing", "runs whose mean is a measurement"),
}
LEAST_ALIKE = 0.8  # share of the letters of a flag that nobody knows and of the one it may mean; --fp32 and --fp8 are less alike
BEST = ("fp16", "int8")
BUILT_ANYWAY = {"--skipInference", "--buildOnly"}

USAGE = "%(prog)s --onnx=FILE [--saveEngine=FILE] [--fp16 | --bf16 | --int8 | --fp8] [--for 720p,1080p] [flags of trtexec]"
DESCRIPTION = """Builds a TensorRT or TensorRT-RTX engine from an ONNX file, with trtexec's flags.

  videodeblur build --onnx=model.onnx --fp16 --for 720p
  videodeblur build --onnx=model.onnx --saveEngine=m.engine --int8 --calib=clips/ --optShapes=blurry:1x5x720x1280

Beside the engine it writes its record (FILE.json) and the library's log (FILE.log)."""


def parse_flags(argv: Sequence[str] | None) -> EngineRequest | Path:
    """Reads `argv`, the process's own when None: an engine to make, or with --getPlanVersionOnly one whose version is asked for.

    Raises InputError, naming the nearest flag, on one that nobody knows.
    """
    parser = parser_for("videodeblur build", USAGE, DESCRIPTION)
    for flag, takes_value in {**MEASURES, **RESULTS}.items():
        add_hidden(parser, flag, takes_value)
    given = read_flags(parser, argv)
    for flag in RESULTS:
        if getattr(given, name_of(flag)):
            raise InputError(f"{flag}: {OUR_MEASURE}")
    if given.getPlanVersionOnly and given.loadEngine:
        loaded: Path = given.loadEngine
        return loaded
    if given.getPlanVersionOnly or given.loadEngine:
        raise InputError(
            "--loadEngine=FILE and --getPlanVersionOnly go together; measure an engine with videodeblur trtexec --loadEngine=FILE, "
            "run it with videodeblur run --model FILE"
        )
    unused = {flag: OUR_MEASURE for flag in MEASURES if getattr(given, name_of(flag))}
    for flag in BUILT_ANYWAY & unused.keys():
        unused[flag] = "it is what happens anyway"
    return engine_request(given, unused)


def read_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What a parser of `parser_for` makes of `argv`. Raises InputError on a flag that nobody knows, or that is answered with what
    to do instead."""
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_unknown(unknown[0], parser))
    for flag, remedy in REFUSED.items():
        if getattr(given, name_of(flag)) is not None:
            raise InputError(f"{flag}: {remedy}")
    return given


def engine_request(given: argparse.Namespace, unused: Mapping[str, str]) -> EngineRequest:
    """The engine to make. `unused` are further flags that were given and have no effect, with the reason."""
    if given.onnx is None:
        raise InputError("name the model with --onnx=FILE: make one with export/to_onnx.py")
    if given.sizes and given.shapes_given:
        raise InputError(
            "got --for and shapes, expected one of them: several profiles of your own go as --profile=I before the shapes of each"
        )
    asked = vars(given)
    asked["engine"] = given.engine or given.onnx.with_suffix(".engine")
    asked["library"] = _library(given.runtime)
    asked["profiles"] = presets(given.sizes, read_contract(given.onnx)) if given.sizes else _profiles(given.shapes_given)
    asked["quantised"], asked["rest"] = _types(given)
    asked["notes"] = tuple(_notes(given, unused))
    if given.workspace is not None:
        asked["memory_pools"] = (*given.memory_pools, ("WORKSPACE", given.workspace))
    if given.heuristic and given.optimization_level is None:
        asked["optimization_level"] = 2
    return EngineRequest(**{field.name: asked[field.name] for field in fields(EngineRequest)})


def _types(given: argparse.Namespace) -> tuple[str | None, str]:
    """What is quantised, if anything, and the type of the rest."""
    asked = [name for name in (*QUANTISED, *LOWERED_FLOATS) if getattr(given, name) or (given.best and name in BEST)]
    for group in (QUANTISED, LOWERED_FLOATS):
        if set(group) <= set(asked):
            raise InputError(f"got {' and '.join(f'--{name}' for name in group)}, expected one of them")
    return next((name for name in asked if name in QUANTISED), None), next(
        (name for name in asked if name in LOWERED_FLOATS), "fp32"
    )


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


def _notes(given: argparse.Namespace, unused: Mapping[str, str]) -> Iterator[str]:
    reasons = {flag: reason for flag, (_, reason) in NO_EFFECT.items() if getattr(given, name_of(flag))}
    for flag, reason in {**reasons, **unused}.items():
        yield f"{flag} has no effect: {reason}"
    ignored = [flag for name, flag in NO_EFFECT_ON_RTX.items() if getattr(given, name) != getattr(EngineRequest, name)]
    if ignored and given.library == "tensorrt_rtx":
        yield f"TensorRT-RTX's builder ignores {', '.join(ignored)}"
    if given.heuristic:
        yield "--heuristic is --builderOptimizationLevel=2 now"
    if given.refit or given.strip_weights:
        yield "engines with stripped or refittable weights are for other tools: this project's runner loads whole ones"


def parser_for(program: str, usage: str, description: str) -> argparse.ArgumentParser:
    """A parser of all flags of a build, and of those that are only answered."""
    parser = _Parser(
        prog=program,
        usage=usage,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(**{field.name: None if field.default is MISSING else field.default for field in fields(EngineRequest)})
    parser.set_defaults(shapes_given=[], profile_number=0)
    for fill in (_add_files, _add_precision, _add_shapes, _add_target, _add_effort, _add_compatibility):
        fill(parser)
    for flag, (takes_value, _) in NO_EFFECT.items():
        add_hidden(parser, flag, takes_value)
    for flag in REFUSED:
        parser.add_argument(flag, nargs="?", const="", help=argparse.SUPPRESS)
    return parser


def add_hidden(parser: argparse.ArgumentParser, flag: str, takes_value: bool) -> None:
    """A flag that is read and not in the help."""
    if takes_value:
        parser.add_argument(flag, help=argparse.SUPPRESS)
    else:
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("files").add_argument
    file = flag_values.file
    add("--onnx", type=file, metavar="FILE", help="fp32 file of videodeblur export, or one with its types in it")
    text = "engine to write, or to replace (default: the model's name with .engine)"
    add("--saveEngine", dest="engine", type=file, metavar="FILE", help=text)
    add("--getPlanVersionOnly", action="store_true", help="print the version of --loadEngine's file; runs nothing of it")
    add("--loadEngine", type=file, metavar="FILE", help="engine to read, with --getPlanVersionOnly only")
    text = "list of layers and types to write: JSON of full TensorRT, text of RTX"
    add("--exportLayerInfo", dest="layer_information", type=file, metavar="FILE", help=text)
    add("--verbose", action="store_true", help="print what the library says, instead of only to the log")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    title = "precision (TensorRT 11 dropped these flags; here they write the types into the graph first)"
    add, file = parser.add_argument_group(title).add_argument, flag_values.file
    add("--fp16", action="store_true", help="make all FP16, but for what comes near its limit on real clips")
    add("--bf16", action="store_true", help="make all BF16")
    text = "quantise convolutions, by --ranges or --calib; the rest in fp32, or by --fp16 or --bf16"
    add("--int8", action="store_true", help=text)
    add("--fp8", action="store_true", help="quantise as --int8, in FP8; compute capability 8.9 and newer")
    add("--best", action="store_true", help="take --int8 --fp16")
    text = "compute exact fp32, for parity with PyTorch; TF32 is on by default"
    add("--noTF32", dest="tf32", action="store_false", help=text)
    text = "types of layers or nodes, such as c1*:fp32; * matches anything; a later one wins"
    add("--layerPrecisions", dest="layer_types", type=flag_values.layer_types, metavar="PATTERN:TYPE,...", help=text)
    add("--precision", dest="precisions", type=file, metavar="FILE", help="precision.json, from videodeblur search")
    add("--ranges", type=file, metavar="FILE", help="ranges.json, from videodeblur calibrate")
    text = "video or folder to calibrate on, not trtexec's cache file (default: the shipped clip)"
    add("--calib", dest="calibration_data", type=flag_values.clips, metavar="DATA", help=text)
    text = "fail when less of the convolutions' arithmetic runs in the types that were asked for (default %(default)s)"
    add("--minTypeShare", dest="min_type_share", type=flag_values.share, metavar="SHARE", help=text)


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("shapes").add_argument
    for kind, text in (("min", "smallest shape"), ("opt", "shape it is tuned for; alone, the only one"), ("max", "largest shape")):
        add(f"--{kind}Shapes", action=_Shape, type=flag_values.shape, const=kind, metavar=SHAPE, help=text)
    text = "shape, the only one: minimum, optimum and maximum"
    add("--shapes", action=_Shape, type=flag_values.shape, const="shapes", metavar=SHAPE, help=text)
    add("--profile", action=_ProfileNumber, type=int, metavar="I", help="profile of the shapes that follow")
    text = f"sizes, each with a profile of one window: {', '.join(PRESETS)} or WIDTHxHEIGHT"
    add("--for", dest="sizes", type=flag_values.names, metavar="SIZE,...", help=text)


def _add_target(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("target").add_argument
    add("--runtime", choices=tuple(RUNTIMES), help="library (default: tensorrt if it is installed, else rtx)")
    text = "GPUs to build for with --runtime rtx, such as 8.6,8.9 (default: any from 8.0 on)"
    add("--computeCapabilities", dest="compute_capabilities", type=flag_values.capabilities, metavar="X.Y,...", help=text)
    add("--device", type=int, metavar="N", help="GPU that full TensorRT builds on and for")


def _add_effort(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("effort and memory").add_argument
    text = "effort of the search (default: the library's, 3)"
    add("--builderOptimizationLevel", dest="optimization_level", type=int, metavar="0..5", help=text)
    text = "memory limits of workspace or tacticSharedMem; MiB, or B, K, M, G"
    add("--memPoolSize", dest="memory_pools", type=flag_values.pools, metavar="POOL:SIZE,...", help=text)
    add("--workspace", type=flag_values.size, metavar="MIB", help="old name of --memPoolSize=workspace")
    text = "timing cache (default: one for each GPU and version, in the user's cache)"
    add("--timingCacheFile", dest="timing_cache", type=flag_values.file, metavar="FILE", help=text)
    text = "measure every kernel anew, even within the build"
    add("--noBuilderCache", dest="builder_cache", action="store_false", help=text)
    text = "fail where the timing cache lacks a kernel, instead of measuring it"
    add("--errorOnTimingCacheMiss", dest="error_on_timing_cache_miss", action="store_true", help=text)
    text = "keep no compiled kernels in the timing cache"
    add("--noCompilationCache", dest="compilation_cache", action="store_false", help=text)
    add("--heuristic", action="store_true", help="old name of --builderOptimizationLevel=2")
    for flag, (name, text) in NUMBERS_OF_EFFORT.items():
        add(f"--{flag}", dest=name, type=int, metavar="N", help=text)
    text = "tiling: none, fast, moderate, full"
    add("--tilingOptimizationLevel", dest="tiling_level", type=flag_values.tiling, metavar="0..3", help=text)
    add("--l2LimitForTiling", dest="l2_limit", type=int, metavar="BYTES", help="bytes of L2 cache that tiling may use")
    text = "let the library regroup sums where that is faster"
    add("--distributiveIndependence", dest="distributive_independence", action="store_true", help=text)
    text = "libraries to take kernels from or not"
    add("--tacticSources", dest="tactic_sources", type=flag_values.sources, metavar="+X,-Y", help=text)
    add("--sparsity", type=flag_values.sparsity, metavar="{disable,enable}", help="kernels of 2:4 sparsity (default disable)")


def _add_compatibility(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("compatibility").add_argument
    text = "GPUs that it runs on besides this kind (default %(default)s)"
    add(
        "--hardwareCompatibilityLevel", dest="hardware_compatibility", type=flag_values.hardware, choices=HARDWARE_LEVELS, help=text
    )
    text = "make an engine that runs on later versions and the lean runtime; contains code that loading it executes"
    add("--versionCompatible", "--vc", dest="version_compatible", action="store_true", help=text)
    text = "leave that code out of a --versionCompatible engine"
    add("--excludeLeanRuntime", dest="exclude_lean_runtime", action="store_true", help=text)
    add("--runtimePlatform", dest="runtime_platform", choices=PLATFORMS, help="system it runs on (default %(default)s)")
    text = "leave weights out, for other tools: videodeblur does not run such engines"
    add("--stripWeights", dest="strip_weights", action="store_true", help=text)
    add("--refit", action="store_true", help="make weights refittable, for other tools")
    text = "detail of the engine's list of layers; below %(default)s, the default, the types that run cannot be checked"
    add("--profilingVerbosity", dest="profiling_verbosity", type=flag_values.verbosity, choices=VERBOSITIES, help=text)
    parser.add_argument("--nvtxMode", dest="profiling_verbosity", type=flag_values.verbosity, help=argparse.SUPPRESS)  # of 7 to 9
    for side in ("input", "output"):
        parser.add_argument(f"--{side}IOFormats", type=flag_values.plain_format, help=argparse.SUPPRESS)


class _Parser(argparse.ArgumentParser):
    """Leaves errors to the caller, who knows one form for all."""

    def error(self, message: str) -> NoReturn:
        valued = re.fullmatch(r"argument (\S+): ignored explicit argument (.*)", message)
        raise InputError(f"{valued[1]} takes no value, got {valued[2]}: write it alone" if valued else message)


class _Shape(argparse.Action):
    """Notes a shape together with the profile that it is of."""

    def __call__(self, parser: argparse.ArgumentParser, given: Any, value: Any, flag: str | None = None) -> None:
        given.shapes_given = [*given.shapes_given, (given.profile_number, self.const, value)]


class _ProfileNumber(argparse.Action):
    """`--profile=I`: the shapes that follow are of profile I."""

    def __call__(self, parser: argparse.ArgumentParser, given: Any, value: Any, flag: str | None = None) -> None:
        given.profile_number = value


def name_of(flag: str) -> str:
    return flag.lstrip("-")


def _unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    flag = argument.partition("=")[0]
    if not flag.startswith("-"):
        return f"got {argument!r}, expected flags: name the model with --onnx={argument}"
    known = [option for action in parser._actions for option in action.option_strings]
    lower = {option.lower(): option for option in known}
    near = difflib.get_close_matches(flag.lower(), lower, n=1, cutoff=LEAST_ALIKE)
    return f"no flag {flag}{f', did you mean {lower[near[0]]}?' if near else ''}; --help lists them"
