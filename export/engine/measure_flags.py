"""The command line of `videodeblur trtexec` -> `MeasureRequest`: trtexec's flags, those of a build and those that measure."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.engine import flag_values
from export.engine.accuracy import ALGORITHMS, AccuracyOptions
from export.engine.flags import engine_request, parser_for, read_flags
from export.engine.measure_request import PERCENTILES, MeasureRequest, Pair, ReportOptions
from export.engine.request import EngineRequest
from export.engine.unused_flags import DEFAULTS
from runtime.backends.inference_loop import LoopOptions
from runtime.backends.run_options import STRATEGIES, RunOptions
from runtime.errors import InputError
from runtime.files.contract import INPUT, OUTPUT

OF_A_RUN = ("exportTimes", "exportOutput", "exportProfile", "dumpProfile", "dumpOutput", "dumpRawBindingsToFile", "timeDeserialize")
ALSO_OF_A_RUN = {  # flags of a build that mean something for an engine that is loaded, too
    *("-h", "--help", "--loadEngine", "--getPlanVersionOnly", "--exportLayerInfo", "--verbose", "--device", "--shapes"),
    *("--minShapes", "--optShapes", "--maxShapes", "--saveEngine", "--onnx"),  # refused beside it
}
RUNTIMES = ("full", "lean", "dispatch")
USAGE = "%(prog)s {--onnx=FILE | --loadEngine=FILE} [--saveEngine=FILE] [--shapes=blurry:1x5x720x1280] [flags of trtexec]"
DESCRIPTION = """Builds an engine and measures it, or loads one and measures it, as NVIDIA's trtexec does, which no wheel brings.

  videodeblur trtexec --onnx=model.onnx --saveEngine=m.engine --fp16 --shapes=blurry:1x5x720x1280
  videodeblur trtexec --loadEngine=m.engine --includeDataTransfers --exportTimes=times.json --dumpProfile

Flags, log, files and exit status are trtexec's; docs/engines.md says what differs. For TensorRT-RTX, --skipInference
needs no GPU."""


def parse_measure_flags(argv: Sequence[str]) -> MeasureRequest:
    """Reads a command line, files excepted. Raises InputError, in one line, on a flag or value that is not taken."""
    parser = parser_for("videodeblur trtexec", USAGE, DESCRIPTION)
    of_a_build = {option for action in parser._actions for option in action.option_strings} - ALSO_OF_A_RUN
    parser.set_defaults(pairs=[])
    for fill in (_add_run, _add_length, _add_comparison, _add_report):
        fill(parser)
    for flag in DEFAULTS:
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    given = read_flags(parser, argv)
    skip = given.skipInference or given.runtime_platform != EngineRequest.runtime_platform
    saved = given.engine
    build = _build(given, skip)
    pairs = tuple(_pairs(given.pairs))
    named = dict.fromkeys(argument.partition("=")[0] for argument in argv)
    unused = [] if build else [flag for flag in named if flag in of_a_build]
    return MeasureRequest(
        build=build,
        engine=given.loadEngine or saved,
        run=_run(given, build),
        loop=LoopOptions(
            iterations=given.iterations,
            warmup=given.warmUp,
            duration=given.duration,
            hold=given.sleepTime,
            idle=given.idleTime,
            overlap=not given.exposeDMA,
            transfers=given.includeDataTransfers,
            threads=given.threads,
        ),
        accuracy=_accuracy(given, pairs),
        report=_report(given),
        pairs=pairs,
        skip=skip,
        time_loading=given.timeDeserialize,
        version_only=given.getPlanVersionOnly,
        notes=(*(build.notes if build else ()), *_notes(given, skip, unused)),
    )


def _build(given: argparse.Namespace, skip: bool) -> EngineRequest | None:
    if given.loadEngine is None:
        if given.getPlanVersionOnly:
            raise InputError("--getPlanVersionOnly: name the engine with --loadEngine=FILE")
        if given.useRuntime not in (None, "full"):
            raise InputError(f"--useRuntime={given.useRuntime} runs engines and builds none: name one with --loadEngine=FILE")
        built = engine_request(given, {})
        return (
            built if given.skipInference else replace(built, layer_information=None)
        )  # told by the engine itself, with its shapes
    if given.engine:
        raise InputError("got --loadEngine and --saveEngine, expected one of them")
    if given.onnx:
        raise InputError("got --loadEngine and --onnx, expected one of them: an engine is measured as it is")
    return None


def _run(given: argparse.Namespace, build: EngineRequest | None) -> RunOptions:
    if given.useRuntime == "dispatch":
        raise InputError("--useRuntime=dispatch is not offered: use full or lean")
    named = {number: shape for number, kind, shape in given.shapes_given if kind == "shapes"}
    if build is None and any(kind != "shapes" for _, kind, _ in given.shapes_given):
        raise InputError(
            "--minShapes, --optShapes and --maxShapes are of a build, an engine has its own: name the one to run with --shapes"
        )
    return RunOptions(
        shape=named.get(given.useProfile, next(iter(named.values()), None) if len(named) == 1 else None),
        profile=given.useProfile,
        device=given.device,
        streams=given.infStreams,
        cuda_graph=not given.noCudaGraph,
        spin=not given.noSpinWait,
        strategy=given.allocationStrategy,
        cache_ratio=given.persistentCacheRatio,
        lean=given.useRuntime == "lean",
    )


def _accuracy(given: argparse.Namespace, pairs: Sequence[Pair]) -> AccuracyOptions:
    for name in ("atol", "rtol"):
        if getattr(given, name) is not None and given.accuracyAlgorithm != "l0":
            raise InputError(f"--{name} is of --accuracyAlgorithm=l0 alone: leave it out, or compare with that")
    if given.accuracyThreshold and not any(pair.reference for pair in pairs):
        raise InputError(f"--accuracyThreshold compares with a reference: name it with --loadRefOutputs={OUTPUT}:FILE")
    tolerances = {name: getattr(given, name) for name in ("atol", "rtol") if getattr(given, name) is not None}
    return AccuracyOptions(given.accuracyAlgorithm, threshold=given.accuracyThreshold, **tolerances)


def _report(given: argparse.Namespace) -> ReportOptions:
    return ReportOptions(
        averages=given.avgRuns,
        percentiles=given.percentile,
        times=given.exportTimes,
        output=given.exportOutput,
        profile=given.exportProfile,
        layers=given.layer_information,
        print_output=given.dumpOutput,
        print_profile=given.dumpProfile,
        print_layers=given.dumpLayerInfo,
        print_profiles=given.dumpOptimizationProfile,
        raw=given.dumpRawBindingsToFile,
        verbose=given.verbose,
    )


def _notes(given: argparse.Namespace, skip: bool, unused: Sequence[str]) -> Iterator[str]:
    if unused:
        yield f"{', '.join(unused)}: of a build, without effect on an engine that is loaded"
    for flag, opposite in DEFAULTS.items():
        if getattr(given, flag.lstrip("-")):
            yield f"{flag} has no effect: it is what happens anyway" + (f", {opposite} turns it off" if opposite else "")
    if skip:
        asked = [flag for flag in OF_A_RUN if getattr(given, flag)] + (["loadInputs"] if given.pairs else [])
        if asked:
            yield f"{', '.join(f'--{flag}' for flag in asked)}: nothing is run, since the engine is only built"


def _pairs(given: Sequence[tuple[int | None, str, Path]]) -> Iterator[Pair]:
    """From (number of --refPair, None without one; "inputs" or "reference"; file), in the order of the command line."""
    numbered: dict[int, dict[str, Path]] = {}
    for number, kind, path in given:
        pair = numbered.setdefault(number or 0, {})
        if kind in pair:
            raise InputError(f"got two files for the {kind} of pair {number or 0}, expected one: number them with --refPair")
        pair[kind] = path
    if sorted(numbered) != list(range(len(numbered))):
        raise InputError(f"got the pairs {sorted(numbered)}, expected 0 to {len(numbered) - 1}: number them with --refPair")
    for number, pair in sorted(numbered.items()):
        if "inputs" not in pair:
            raise InputError(f"pair {number} has --loadRefOutputs and no --loadInputs: the reference is of an input, name that too")
        yield Pair(pair["inputs"], pair.get("reference"))


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    text = "profile that is run; --shapes is a shape that it holds (default: what it is tuned for)"
    add("--useProfile", type=int, default=0, metavar="I", help=text)
    add("--infStreams", "--streams", type=int, default=1, metavar="N", help="contexts at work at once (default %(default)s)")
    add("--threads", action="store_true", help="give each of them a thread")
    text = "copy input and output in every query, which trtexec did before version 11"
    add("--includeDataTransfers", action="store_true", help=text)
    add("--exposeDMA", action="store_true", help="wait for a query's copies before the next one begins")
    add("--noCudaGraph", action="store_true", help="launch every kernel by itself")
    add("--noSpinWait", action="store_true", help="sleep while the GPU works, instead of waiting in a loop")
    text = "memory of a context: for the largest profile, for its own, for its shape (default %(default)s)"
    add("--allocationStrategy", choices=tuple(STRATEGIES), default="static", help=text)
    text = "share of the L2 cache that may hold on to activations (default %(default)s)"
    add("--persistentCacheRatio", type=float, default=0.0, metavar="0..1", help=text)
    add("--useRuntime", choices=RUNTIMES, help="library that runs --loadEngine's file (default: the one that built it)")
    text = "build only; TensorRT-RTX needs no GPU for it"
    add("--skipInference", "--buildOnly", action="store_true", help=text)
    add("--timeDeserialize", action="store_true", help="measure how long loading takes, and nothing else")


def _add_length(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("length of the measurement").add_argument
    add("--iterations", type=int, default=10, metavar="N", help="queries, at least (default %(default)s)")
    add("--warmUp", type=float, default=200.0, metavar="MS", help="milliseconds that do not count (default %(default)g)")
    text = "seconds, at least (default %(default)g); -1 goes on until Ctrl-C"
    add("--duration", type=float, default=3.0, metavar="S", help=text)
    text = "milliseconds that the GPU waits while the first queries are queued (default %(default)g)"
    add("--sleepTime", type=float, default=0.0, metavar="MS", help=text)
    add("--idleTime", type=float, default=0.0, metavar="MS", help="milliseconds between two queries (default %(default)g)")


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("input and comparison").add_argument
    text = f"raw samples of the input, as numpy's tofile() writes them: {INPUT}:FILE (default: noise)"
    add("--loadInputs", action=_Values, const="inputs", type=_values(INPUT), metavar=f"{INPUT}:FILE", help=text)
    text = "raw samples that the output is compared with"
    add("--loadRefOutputs", action=_Values, const="reference", type=_values(OUTPUT), metavar=f"{OUTPUT}:FILE", help=text)
    add("--refPair", type=int, metavar="N", help="number of the input and reference that follow, where there are several")
    text = "loss: share of samples out of tolerance, mean error, mean square, largest error, 1 - cosine (default %(default)s)"
    add("--accuracyAlgorithm", choices=tuple(ALGORITHMS), default="l0", help=text)
    for name, kind in (("atol", "absolute"), ("rtol", "relative")):
        add(f"--{name}", type=float, metavar="X", help=f"{kind} tolerance of l0 (default 1e-5)")
    text = "loss from which on the output is wrong, which ends in status 1"
    add("--accuracyThreshold", type=float, default=0.0, metavar="X", help=text)


def _add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("report").add_argument
    file = flag_values.file
    add("--avgRuns", type=int, default=10, metavar="N", help="queries behind each line of the trace (default %(default)s)")
    text = "percentiles of the summary (default 90,95,99)"
    add("--percentile", type=_percentiles, default=PERCENTILES, metavar="P,...", help=text)
    add("--exportTimes", type=file, metavar="FILE", help="write every query's times as JSON")
    add("--exportOutput", type=file, metavar="FILE", help="write the output as JSON")
    add("--exportProfile", type=file, metavar="FILE", help="write every layer's time as JSON, from a run of its own")
    add("--dumpProfile", action="store_true", help="print every layer's time")
    add("--dumpLayerInfo", action="store_true", help="print the engine's layers")
    add("--dumpOptimizationProfile", action="store_true", help="print the shapes that the engine takes")
    add("--dumpOutput", action="store_true", help="print the output")
    text = "write input and output as raw samples into the working folder"
    add("--dumpRawBindingsToFile", action="store_true", help=text)


def _values(tensor: str) -> Callable[[str], Path]:
    def path(text: str) -> Path:
        name, _, file = text.replace("'", "").partition(":")
        if name != tensor or not file:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {tensor}:FILE")
        return flag_values.file(file)

    return path


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in flag_values.names(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected percents such as 90,99") from error


class _Values(argparse.Action):
    """Notes a file together with the pair that it is of."""

    def __call__(self, parser: argparse.ArgumentParser, given: Any, value: Any, flag: str | None = None) -> None:
        given.pairs = [*given.pairs, (given.refPair, self.const, value)]
