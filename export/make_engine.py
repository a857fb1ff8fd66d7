"""`make_engine`: the precision asked for becomes the graph's types, the graph an engine, and the engine proves its types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from export.engine.builder import BuiltEngine, build_engine
from export.engine.built_types import inspector_types, tensorrt_types
from export.engine.config import strongly_typed
from export.engine.monitor import Progress
from export.engine.request import LOWERED_FLOATS, TYPE_FLAGS, EngineRequest
from export.engine.size_presets import check_sizes
from runtime.backends.tensorrt_library import Library, load_library
from runtime.errors import BackendError, InputError, MissingPackageError, ModelError
from runtime.files.contract import read_contract, read_metadata, read_versions
from runtime.files.engine_record import EngineRecord, record_path
from runtime.files.on_disk import check_not_input, file_sha256, partial_file, refusals
from runtime.machine.requirements import requirement
from runtime.progress import Say

LAST_WITH_OPSET_17 = 9  # TensorRT's major version
OPSET_OF_8 = 17  # the newest that it reads
CALIBRATION_WINDOWS = 16  # of the clip, where no ranges were measured beforehand
MAKER = "videodeblur build"  # in the notes of the typed files that are written here
WEAK_FP16 = "this TensorRT chooses layers for fp16 by itself: none is kept in fp32 for its range, whatever --ranges says"


@dataclass(frozen=True)
class MadeEngine:
    """An engine file, with its record and its log beside it."""

    engine: Path
    source: Path  # the file that the user named
    onnx: Path  # the file with the engine's types; the same when none were asked for
    record: EngineRecord
    log: Path
    notes: tuple[str, ...]


def make_engine(request: EngineRequest, progress: Progress | None = None, say: Say = lambda text: None) -> MadeEngine:
    """Writes the engine, its record and its log.

    What the request gets wrong is told before anything is written or run. The typed graph is written beside the engine and
    compared with the fp32 file (see `export.compare.typed_file`). Raises what that and `build_engine` raise, and BackendError when
    too little of the arithmetic runs in the types that were asked for.
    """
    library = load_library(request.library)
    strong = strongly_typed(library)
    _check_model(request.onnx)
    layers = checked(request, strong)
    with refusals(request.engine.parent, "--saveEngine"):
        request.engine.parent.mkdir(parents=True, exist_ok=True)
    if request.layer_information:
        with refusals(request.layer_information.parent, "--exportLayerInfo"):
            request.layer_information.open("a").close()
    with partial_file(request.engine, "--saveEngine") as partial:
        typed, notes = typed_graph(request, layers, strong, say)
        readable = _readable_graph(typed, request.engine, library)
        log = _log_of(request.engine)
        types = () if strong else _builder_types(typed, _asked(request))
        built = build_engine(replace(request, onnx=readable, types=types, log=log), progress)
        shares, told = _type_shares(typed, built, "fp32" if strong else request.rest, request.min_type_share, log)
        partial.write_bytes(built.plan)
        contract = replace(read_contract(typed), parity={})  # measured elsewhere, and says nothing about an engine
        if not strong and _asked(request):
            contract = replace(contract, precision=request.quantised or request.rest)
        record = EngineRecord(
            library=built.library,
            version=built.version,
            compute_capabilities=built.compute_capabilities,
            hardware_compatibility=request.hardware_compatibility,
            version_compatible=request.version_compatible,
            tf32=request.tf32,
            stripped=request.strip_weights,
            profiles=built.profiles,
            sha256=file_sha256(partial),
            onnx_sha256=file_sha256(readable),
            contract=contract,
            type_shares=shares,
            build_seconds=round(built.seconds, 2),
        )
        record.save(request.engine)  # an engine without its record, or the other way round, is refused when it is loaded
    if request.layer_information:
        request.layer_information.write_text(built.layer_log)
    return MadeEngine(request.engine, request.onnx, typed, record, log, (*notes, *built.notes, *told))


def _check_model(path: Path) -> None:
    """Raises ModelError where a file is not what its contract says, as far as onnx is there to look."""
    if find_spec("onnx"):
        from calibration.onnx_file import load_model

        load_model(path)


def checked(request: EngineRequest, strong: bool) -> Mapping[str, str] | None:
    """The precision of every layer, None where the request names none; reads files, writes and runs nothing.

    Raises InputError, or ModelError on a file that is no model of this project, where the file does not take what is asked for.
    """
    contract = read_contract(request.onnx)
    sources = (request.onnx, request.ranges, request.precisions, request.calibration_data)
    for output in (request.engine, record_path(request.engine), _log_of(request.engine), request.layer_information):
        check_not_input(output, *sources)
    by_layer = bool(request.layer_types or request.precisions)
    if contract.precision != "fp32":
        _check_types_of_file(request.onnx, contract.precision, _asked(request), by_layer, strong)
    elif by_layer and not strong:
        raise InputError(
            "--layerPrecisions and --precision need TensorRT 10 or newer, this one chooses types by itself: quantise the file with "
            "videodeblur quantize --layers, and build that"
        )
    check_sizes(request.profiles, contract)
    return _layer_precisions(request) if by_layer else None


def typed_graph(request: EngineRequest, layers: Mapping[str, str] | None, strong: bool, say: Say) -> tuple[Path, tuple[str, ...]]:
    """The file whose types are what was asked for, the user's own or one made of it, and what the user should know."""
    source = request.onnx
    notes = () if strong or request.rest != "fp16" else (WEAK_FP16,)
    rest = request.rest if strong else "fp32"  # a weakly typed builder lowers the rest by itself
    if read_contract(source).precision != "fp32" or not (layers or request.quantised or rest != "fp32"):
        return source, notes
    _need_onnx("writing types into a graph")
    word = "-".join(dict.fromkeys([*(["mixed"] if layers else []), *filter(None, [request.quantised]), rest]))
    output = request.engine.with_name(f"{source.stem}.{word}.onnx")
    _check_made_here(output)
    say(f"writing {output} and comparing it with {source.name}")
    from export.graph.qdq_rules import QdqOptions
    from export.shipped_clips import DEFAULT_CLIP  # these need onnx, which a machine that only builds may lack
    from export.to_bf16 import to_bf16
    from export.to_fp16 import to_fp16
    from export.to_qdq import QuantizeRequest, to_qdq

    clip, ranges = request.calibration_data or DEFAULT_CLIP, request.ranges
    if layers or request.quantised:
        ranges = ranges or _measured_ranges(source, request.calibration_data, output, say)
        how = QdqOptions(rest=rest)
        return to_qdq(QuantizeRequest(source, ranges, output, request.quantised or "int8", layers, clip, how, MAKER)).path, notes
    if rest == "bf16":
        return to_bf16(source, output, clip, MAKER).path, notes
    typed, kept = to_fp16(source, output, ranges, clip, MAKER)
    node, reason = next(iter(kept.items()), ("", ""))
    told = (f"{len(kept)} nodes stay fp32, such as {node}: {reason}; --bf16 has no such limit",) if kept else ()
    return typed.path, told


def _check_types_of_file(source: Path, precision: str, asked: Sequence[str], by_layer: bool, strong: bool) -> None:
    """Raises InputError where the flags ask a file, which has its types, for others."""
    if by_layer:
        raise InputError(f"{source} is in {precision} already: name the fp32 file, or leave --layerPrecisions and --precision out")
    held = {precision, *_types_in(source)} | (set() if strong else set(LOWERED_FLOATS))  # a weakly typed builder lowers the rest
    if asked and (precision not in asked or not held.issuperset(asked)):
        flags = " ".join(f"--{name}" for name in asked)
        raise InputError(
            f"{source} is in {precision} already, got {flags}: name the fp32 file, or leave the precision flags out"
            + ("" if find_spec("onnx") else " (pip install onnx to have all its types read)")
        )


def _asked(request: EngineRequest) -> tuple[str, ...]:
    """The types beyond fp32 that flags name."""
    return tuple(name for name in (request.rest, request.quantised) if name and name != "fp32")


def _log_of(engine: Path) -> Path:
    return engine.with_name(engine.name + ".log")


def _types_in(path: Path) -> set[str]:
    """The types that a file's convolutions ask for; none where onnx, which reads them, is not installed."""
    if find_spec("onnx") is None:
        return set()
    from calibration.onnx_file import load_onnx
    from export.graph.layer_precision import asked_precisions

    return set(asked_precisions(load_onnx(path)).values())


def _layer_precisions(request: EngineRequest) -> dict[str, str]:
    """Those of precision.json, or the usual ones changed by --layerPrecisions."""
    _need_onnx("choosing the types of layers")
    from calibration.onnx_file import load_onnx
    from export.graph.layer_precision import complete_precisions, default_precisions, layers, read_precisions

    model = load_onnx(request.onnx)
    if request.precisions:
        return complete_precisions(model, read_precisions(request.precisions), request.rest)
    found = layers(model)
    chosen = default_precisions(model, request.quantised, request.rest) if request.quantised else dict.fromkeys(found, request.rest)
    for pattern, precision in request.layer_types:
        matching = [name for name in found if any(fnmatchcase(each, pattern) for each in (name, *found[name].nodes))]
        if not matching:
            raise InputError(
                f"--layerPrecisions: no layer is called {pattern!r}: names are module paths such as {next(iter(chosen))}"
            )
        chosen.update(dict.fromkeys(matching, precision))
    return chosen


def _check_made_here(output: Path) -> None:
    """Raises InputError where a file is in the way that no build has written."""
    from export.compare.typed_file import NOTES_KEY

    if output.exists() and json.loads(read_metadata(output).get(NOTES_KEY, "{}")).get("maker") != MAKER:
        raise InputError(
            f"{output} is there and no build has written it: rename it, name another folder with --saveEngine, "
            f"or build that file with --onnx={output}"
        )


def _builder_types(path: Path, asked: Sequence[str]) -> tuple[str, ...]:
    """What a weakly typed builder may choose: what was asked for, and what the file has, without which it cannot be built."""
    wanted = {*asked, read_contract(path).precision, *_types_in(path)}
    return tuple(name for name in TYPE_FLAGS if name in wanted)


def _measured_ranges(onnx_path: Path, data: Path | None, output: Path, say: Say) -> Path:
    from calibration.collect_ranges import CollectOptions, collect
    from export.shipped_clips import DEFAULT_CLIP

    clip, path = data or DEFAULT_CLIP, output.with_suffix(".ranges.json")
    advice = "" if data else "; your own clips tell more: name them with --calib"
    say(f"no --ranges: measuring {CALIBRATION_WINDOWS} windows of {clip}{advice}")
    collect(CollectOptions(data=clip, onnx=onnx_path, windows=CALIBRATION_WINDOWS)).save(path)
    return path


def _readable_graph(path: Path, engine: Path, library: Library) -> Path:
    """What TensorRT 8.6 reads: opset 17, and weights quantised in the graph instead of beforehand."""
    if library.name != "tensorrt" or int(library.version.split(".")[0]) > LAST_WITH_OPSET_17 or find_spec("onnx") is None:
        return path
    if read_versions(path)[1] <= OPSET_OF_8 and read_contract(path).precision == "fp32":
        return path
    from export.to_trt8 import to_trt8

    output = engine.with_name(f"{path.stem}.trt8.onnx")
    to_trt8(path, output)
    return output


def _type_shares(
    typed: Path, built: BuiltEngine, unasked: str, least: float, log: Path
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The types that the convolutions of the file `typed` run in; what the library does not tell is a note. `unasked` is the type
    asked for where the file says fp32, which is another where the builder chooses.

    Raises BackendError when they are too little of what was asked for.
    """
    if not built.layer_log:
        return {}, (
            "the types that it runs in were not read: that needs --profilingVerbosity=detailed, and no --excludeLeanRuntime",
        )
    if find_spec("onnx") is None:
        return {}, ("the types that it runs in were not read: pip install onnx",)
    from calibration.onnx_file import load_onnx
    from export.graph.layer_types import NOT_READ, granted_share, layer_types, shares

    size = built.profiles[0].opt[2:4]
    if built.library == "tensorrt_rtx":
        rows = layer_types(load_onnx(typed), tensorrt_types(built.layer_log), *size)
    else:
        try:
            ran = inspector_types(built.layer_log)
        except ModelError as error:
            return {}, (f"the types that it runs in were not read: {error}",)
        rows = layer_types(load_onnx(typed), ran, *size, NOT_READ)
    rows = [replace(row, asked=unasked if row.asked == "fp32" else row.asked) for row in rows]
    granted, ran_in = granted_share(rows), shares(rows)
    if granted < least:
        asked_for = _percents(shares(rows, asked=True))
        raise BackendError(
            f"{granted:.1%} of the convolution FLOPs that asked for less than fp32 got it, expected {least:.0%}: "
            f"asked {asked_for}, runs {_percents(ran_in)}; name other targets, or lower --minTypeShare ({log})"
        )
    unread = ran_in.get(NOT_READ)
    return ran_in, (f"the library does not tell the type of {unread:.1%} of the convolution FLOPs",) if unread else ()


def _percents(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.1%} {name}" for name, share in shares.items())


def _need_onnx(purpose: str) -> None:
    if find_spec("onnx") is None:
        raise MissingPackageError(requirement("onnx"), purpose)
