"""`make_engine`: the precision asked for becomes the graph's types, the graph an engine, and the engine proves its types."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from export.engine.builder import BuiltEngine, build_engine
from export.engine.built_types import inspector_types, tensorrt_types
from export.engine.config import strongly_typed
from export.engine.monitor import Progress
from export.engine.request import LOWERED_FLOATS, TYPE_FLAGS, BuildOptions, EngineRequest
from runtime.backends.tensorrt_library import Library, load_library
from runtime.errors import BackendError, InputError, MissingPackageError, ModelError
from runtime.files.contract import Contract, read_contract, read_versions
from runtime.files.engine_record import EngineRecord
from runtime.files.on_disk import file_sha256, partial_file, refusals
from runtime.machine.requirements import requirement
from runtime.progress import Say

LAST_WITH_OPSET_17 = 9  # TensorRT's major version
OPSET_OF_8 = 17  # the newest that it reads
CALIBRATION_WINDOWS = 16  # of the clip, where no ranges were measured beforehand
WEAK_FP16 = "this TensorRT chooses layers for fp16 by itself: none is kept in fp32 for its range, whatever --ranges says"


@dataclass(frozen=True)
class MadeEngine:
    """An engine file, with its record and its log beside it."""

    engine: Path
    source: Path  # the file that the user named
    onnx: Path  # the file with the engine's types; the same when none were asked for
    record: EngineRecord
    layer_log: str
    log: Path
    notes: tuple[str, ...]


def make_engine(request: EngineRequest, progress: Progress | None = None, say: Say = lambda text: None) -> MadeEngine:
    """Writes the engine, its record and its log.

    The typed graph is written beside the engine and compared with the fp32 file (see `export.compare.typed_file`). Raises what
    that and `build_engine` raise, and BackendError when too little of the arithmetic runs in the types that were asked for.
    """
    library = load_library(request.build.library)
    _check_model(request.build.onnx)
    with refusals(request.engine.parent, "--saveEngine"):
        request.engine.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(request.engine, "--saveEngine") as partial:
        made, built = _made(request, library, progress, say)
        partial.write_bytes(built.plan)
        record = replace(made.record, sha256=file_sha256(partial))
        record.save(request.engine)  # an engine without its record, or the other way round, is refused when it is loaded
    return replace(made, record=record)


def _check_model(path: Path) -> None:
    """Raises ModelError where a file is not what its contract says, as far as onnx is there to look."""
    if find_spec("onnx"):
        from calibration.onnx_file import load_model

        load_model(path)


def _made(request: EngineRequest, library: Library, progress: Progress | None, say: Say) -> tuple[MadeEngine, BuiltEngine]:
    """The engine, and all about it but the SHA-256 of its file."""
    strong = strongly_typed(library)
    onnx_path, typing_notes = _typed_graph(request, strong, say)
    log = request.engine.with_name(request.engine.name + ".log")
    options = replace(request.build, onnx=_readable_graph(onnx_path, request, library), log=log)
    if not strong:
        options = replace(options, types=_builder_types(onnx_path, request))
    built = build_engine(options, progress)
    shares, notes = _type_shares(onnx_path, options, built, request, strong)
    record = EngineRecord(
        library=built.library,
        version=built.version,
        compute_capabilities=built.compute_capabilities,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        tf32=options.tf32,
        stripped=options.strip_weights,
        profiles=built.profiles,
        sha256="",
        onnx_sha256=file_sha256(options.onnx),
        contract=_contract(onnx_path, request, strong),
        type_shares=shares,
        build_seconds=round(built.seconds, 2),
    )
    told = (*typing_notes, *built.notes, *notes)
    return MadeEngine(request.engine, request.build.onnx, onnx_path, record, built.layer_log, log, told), built


def _typed_graph(request: EngineRequest, strong: bool, say: Say) -> tuple[Path, tuple[str, ...]]:
    """The file whose types are what was asked for, the user's own or one made of it, and what the user should know."""
    source, contract = request.build.onnx, read_contract(request.build.onnx)
    notes = () if strong or "fp16" not in request.precision else (WEAK_FP16,)
    if contract.precision != "fp32":
        _check_types_of_file(request, contract.precision, strong)
        return source, notes
    if request.by_layer and not strong:
        raise InputError(
            "--layerPrecisions and --precision need TensorRT 10 or newer, this one chooses types by itself: quantise the file with "
            "videodeblur quantize --layers, and build that"
        )
    rest = request.rest if strong else "fp32"  # a weakly typed builder lowers the rest by itself
    if not (request.by_layer or request.quantised or rest != "fp32"):
        return source, notes
    _need_onnx("writing types into a graph")
    word = "-".join(dict.fromkeys([*(["mixed"] if request.by_layer else []), *filter(None, [request.quantised]), rest]))
    output = request.engine.with_name(f"{source.stem}.{word}.onnx")
    say(f"writing {output} and comparing it with {source.name}")
    if request.by_layer or request.quantised:
        return _quantised_graph(request, rest, output, say), notes
    return _lowered_graph(request, rest, output)


def _check_types_of_file(request: EngineRequest, precision: str, strong: bool) -> None:
    """Raises InputError where the flags ask a file, which has its types, for others."""
    source = request.build.onnx
    if request.by_layer:
        raise InputError(f"{source} is in {precision} already: name the fp32 file, or leave --layerPrecisions and --precision out")
    if not request.precision:
        return
    held = {precision, *_types_in(source)} | (set() if strong else set(LOWERED_FLOATS))  # a weakly typed builder lowers the rest
    if precision not in request.precision or not held.issuperset(request.precision):
        flags = " ".join(f"--{name}" for name in request.precision)
        raise InputError(
            f"{source} is in {precision} already, got {flags}: name the fp32 file, or leave the precision flags out"
            + ("" if find_spec("onnx") else " (pip install onnx to have all its types read)")
        )


def _types_in(path: Path) -> set[str]:
    """The types that a file's convolutions ask for; none where onnx, which reads them, is not installed."""
    if find_spec("onnx") is None:
        return set()
    from calibration.onnx_file import load_onnx
    from export.graph.layer_precision import asked_precisions

    return set(asked_precisions(load_onnx(path)).values())


def _builder_types(path: Path, request: EngineRequest) -> tuple[str, ...]:
    """What a weakly typed builder may choose: what was asked for, and what the file has, without which it cannot be built."""
    wanted = {*request.build.types, read_contract(path).precision, *_types_in(path)}
    return tuple(name for name in TYPE_FLAGS if name in wanted)


def _lowered_graph(request: EngineRequest, rest: str, output: Path) -> tuple[Path, tuple[str, ...]]:
    from export.shipped_clips import DEFAULT_CLIP  # these need onnx, which a machine that only builds may lack
    from export.to_bf16 import to_bf16
    from export.to_fp16 import to_fp16

    clip = request.calibration_data or DEFAULT_CLIP
    if rest == "bf16":
        return to_bf16(request.build.onnx, output, clip).path, ()
    typed, kept = to_fp16(request.build.onnx, output, request.ranges, clip)
    node, reason = next(iter(kept.items()), ("", ""))
    return typed.path, (f"{len(kept)} nodes stay fp32, such as {node}: {reason}; --bf16 has no such limit",) if kept else ()


def _quantised_graph(request: EngineRequest, rest: str, output: Path, say: Say) -> Path:
    from export.graph.qdq_rules import QdqOptions
    from export.shipped_clips import DEFAULT_CLIP  # these need onnx, which a machine that only builds may lack
    from export.to_qdq import QuantizeRequest, to_qdq

    clip = request.calibration_data or DEFAULT_CLIP
    ranges = request.ranges or _measured_ranges(request.build.onnx, clip, output, say)
    layers = request.precisions or (_layer_file(request, rest, output) if request.layer_types else None)
    asked = QuantizeRequest(
        onnx=request.build.onnx,
        ranges=ranges,
        output=output,
        precision=request.quantised or "int8",
        layers=str(layers) if layers else None,
        clip=clip,
        how=QdqOptions(rest=rest),
    )
    return to_qdq(asked).path


def _measured_ranges(onnx_path: Path, clip: Path, output: Path, say: Say) -> Path:
    from calibration.collect_ranges import CollectOptions, collect

    path = output.with_suffix(".ranges.json")
    say(f"no --ranges: measuring {CALIBRATION_WINDOWS} windows of {clip}; your own clips tell more")
    collect(CollectOptions(data=clip, onnx=onnx_path, windows=CALIBRATION_WINDOWS)).save(path)
    return path


def _layer_file(request: EngineRequest, rest: str, output: Path) -> Path:
    """A precision.json for --layerPrecisions."""
    from calibration.onnx_file import load_onnx
    from export.graph.layer_precision import default_precisions, layers

    model = load_onnx(request.build.onnx)
    chosen = default_precisions(model, request.quantised, rest) if request.quantised else dict.fromkeys(layers(model), rest)
    for pattern, precision in request.layer_types:
        matching = [name for name, layer in layers(model).items() if _matches(pattern, name, layer.nodes)]
        if not matching:
            raise InputError(
                f"--layerPrecisions: no layer is called {pattern!r}: names are module paths such as {next(iter(chosen))}"
            )
        chosen.update(dict.fromkeys(matching, precision))
    path = output.with_suffix(".precision.json")
    path.write_text(json.dumps({"layers": chosen}, indent=1) + "\n")
    return path


def _matches(pattern: str, name: str, nodes: tuple[str, ...]) -> bool:
    return any(fnmatchcase(candidate, pattern) for candidate in (name, *nodes))


def _readable_graph(path: Path, request: EngineRequest, library: Library) -> Path:
    """What TensorRT 8.6 reads: opset 17, and weights quantised in the graph instead of beforehand."""
    if library.name != "tensorrt" or int(library.version.split(".")[0]) > LAST_WITH_OPSET_17 or find_spec("onnx") is None:
        return path
    if read_versions(path)[1] <= OPSET_OF_8 and read_contract(path).precision == "fp32":
        return path
    from export.to_trt8 import to_trt8

    output = request.engine.with_name(f"{path.stem}.trt8.onnx")
    to_trt8(path, output)
    return output


def _contract(onnx_path: Path, request: EngineRequest, strong: bool) -> Contract:
    """Parities were measured elsewhere, and say nothing about an engine."""
    contract = replace(read_contract(onnx_path), parity={})
    if strong or not request.precision:
        return contract
    return replace(contract, precision=request.quantised or request.rest)


def _type_shares(
    typed: Path, options: BuildOptions, built: BuiltEngine, request: EngineRequest, strong: bool
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The types that the convolutions of the file `typed` run in; what the library does not tell is a note.

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
    if not strong:  # the graph's fp32 asked the builder to choose
        rows = [replace(row, asked=request.rest if row.asked == "fp32" else row.asked) for row in rows]
    granted, ran_in = granted_share(rows), shares(rows)
    if granted < request.min_type_share:
        asked_for = _percents(shares(rows, asked=True))
        raise BackendError(
            f"{granted:.1%} of the convolution FLOPs that asked for less than fp32 got it, expected {request.min_type_share:.0%}: "
            f"asked {asked_for}, runs {_percents(ran_in)}; name other targets, or lower --minTypeShare ({options.log})"
        )
    unread = ran_in.get(NOT_READ)
    return ran_in, (f"the library does not tell the type of {unread:.1%} of the convolution FLOPs",) if unread else ()


def _percents(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.1%} {name}" for name, share in shares.items())


def _need_onnx(purpose: str) -> None:
    if find_spec("onnx") is None:
        raise MissingPackageError(requirement("onnx"), purpose)
