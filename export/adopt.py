"""Takes in what other tools made of this project's network: engines, and graphs that they rewrote.

videodeblur adopt theirs.engine --like model.onnx --optShapes=blurry:1x5x720x1280      trtexec, Polygraphy, Torch-TensorRT
videodeblur adopt slimmed.onnx --like model.onnx                  onnxslim, polygraphy surgeon, ModelOpt, opset converters

An engine gets a record beside it, a graph gets its contract back in a new file, after they were held to the file of --like as
far as this machine can. What is another network is refused, with the numbers.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.onnx_file import load_model, load_onnx
from export.compare.adopted_graph import AdoptedGraph, adopt_graph
from export.compare.engine_measurement import measure_engine, told
from export.compare.typed_file import parity_lines
from export.engine import flag_values
from export.engine.built_types import tensorrt_types
from export.engine.rebuilt import Rebuilt, rebuilt
from export.engine.size_presets import check_sizes
from export.graph.layer_types import layer_types, shares
from export.shipped_clips import DEFAULT_CLIP
from runtime.backends.tensorrt_library import load_library
from runtime.command_line import command, quoted
from runtime.errors import BackendError, InputError, MissingPackageError, ModelError
from runtime.files.contract import INPUT, MIN_PARITY, OUTPUT
from runtime.files.engine_header import EngineHeader, check_names, read_whole
from runtime.files.engine_record import (
    MAGIC,
    RAN,
    REBUILT,
    SUFFIXES,
    UNPROVEN,
    EngineRecord,
    Profile,
    load_record,
    record_path,
    release,
)
from runtime.files.on_disk import file_sha256
from runtime.machine.requirements import requirement

HEAD = 16  # bytes of a file that tell what it is
CACHE = b"TRT-"  # how TensorRT's calibration caches begin


@dataclass(frozen=True)
class AdoptRequest:
    """What is adopted, and what it is held to."""

    file: Path  # an engine or an ONNX file
    like: Path  # the ONNX file of this project that it was made of; for a graph, the fp32 one
    output: Path | None = None  # of a graph; None: FILE.adopted.onnx
    clip: Path = DEFAULT_CLIP  # to compare on
    profile: Profile | None = None  # that an engine was built for; None: it tells, where it can be loaded, or `like` is of one size
    precision: str | None = None  # of an engine whose builder chose types; None: that of `like`
    version_compatible: bool = False  # the engine holds code that loading it executes
    device: int = 0


@dataclass(frozen=True)
class AdoptedEngine:
    """An engine with its record."""

    engine: Path
    record: EngineRecord
    checked: tuple[str, ...]  # what was found out here
    unchecked: tuple[str, ...]  # what was not, and why


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, adopts, prints what was compared and what to do next."""
    given = _parser().parse_args(argv)
    request = AdoptRequest(
        file=given.file,
        like=given.like,
        output=given.output,
        clip=given.clip,
        profile=_profile(given.minShapes, given.optShapes, given.maxShapes),
        precision=given.precision,
        version_compatible=given.versionCompatible,
        device=given.device,
    )
    print(_adopted(request))
    return 0


def _adopted(request: AdoptRequest) -> str:
    if _kind(request.file) == "engine":
        if request.output:
            raise InputError("--output names an adopted graph; the record of an engine goes beside it: leave --output out")
        return engine_summary(adopt_engine(request))
    if any([request.profile, request.precision, request.version_compatible, request.device]):
        raise InputError(
            f"shapes, --precision, --versionCompatible and --device are for engines, {request.file} is a graph: leave them out"
        )
    return graph_summary(
        adopt_graph(request.file, request.like, request.output or _output_of(request.file), request.clip), request.like
    )


def adopt_engine(request: AdoptRequest) -> AdoptedEngine:
    """Writes the record of an engine, or adds to the one that is there what this machine measures.

    Where the engine runs here, it must come close enough to `like` on golden frames; else, where it is of this machine's
    TensorRT-RTX, a build of `like` must be the same; else its record says that nobody showed what it computes.
    Raises ModelError or BackendError on an engine that is cut off, of another network, or differs, with the numbers.
    """
    header = read_whole(request.file)
    record = _first_record(request, header)
    checked = [f"its header: {header.library} {header.version}" + _wholeness(request.file, header)]
    try:
        found = _run(request, record)
    except _NotHereError as reason:
        not_run = str(reason)
    else:
        if found.measured:
            checked.append(f"it ran {told(found.measured, request.like)}")
        found.save(request.file)
        return AdoptedEngine(request.file, found, tuple(checked), ())
    check_names(request.file)
    checked.append(f"it names {INPUT} and {OUTPUT}")
    unchecked = [f"it was not run: {not_run}"]
    if record.origin != UNPROVEN:
        checked.append(f"its record {record_path(request.file).name}, which was there and stays as it is")
    else:
        record, again = _rebuilt(request, record)
        if isinstance(again, Rebuilt):
            same = "the same bytes" if again.exact else "the same, but for its temporary tensors, which differ in every build,"
            checked.append(f"{record.library} builds {same} from {request.like}, {'with' if again.tf32 else 'without'} TF32")
        else:
            unchecked.append(f"it was not built again: {again}")
    record.save(request.file)
    return AdoptedEngine(request.file, record, tuple(checked), tuple(unchecked))


class _NotHereError(Exception):
    """Why an engine cannot be run on this machine."""


def _first_record(request: AdoptRequest, header: EngineHeader) -> EngineRecord:
    """The record that is there, if it is of this file and says where that comes from; else one that claims nothing yet."""
    contract = load_model(request.like)[1]
    try:
        kept = load_record(request.file)
    except ModelError:  # none, or of another file
        kept = None
    if kept and kept.contract.checkpoint_sha256 != contract.checkpoint_sha256:
        raise ModelError(
            f"{record_path(request.file)} is of another checkpoint than {request.like}: name the file that it was built from"
        )
    if kept and kept.origin != UNPROVEN:
        return kept
    if request.profile:
        check_sizes((request.profile,), contract)
    return EngineRecord(
        library=header.library,
        version=header.version,
        compute_capabilities=header.compute_capabilities,
        hardware_compatibility="none",
        version_compatible=request.version_compatible,
        tf32=True,
        stripped=False,
        profiles=(request.profile,) if request.profile else kept.profiles if kept else (),
        sha256=file_sha256(request.file),
        onnx_sha256=file_sha256(request.like),
        contract=replace(contract, parity={}, precision=request.precision or contract.precision),
        origin=UNPROVEN,
    )


def _run(request: AdoptRequest, record: EngineRecord) -> EngineRecord:
    """The record with what was measured. Raises _NotHereError where nothing runs it, ModelError or BackendError where it fails."""
    try:
        from runtime.backends.tensorrt_facts import read_facts, runs_here  # here: it needs CUDA's library

        library, gpu = runs_here(record, request.device)
    except BackendError as error:
        raise _NotHereError(str(error)) from error
    except ImportError as error:
        raise _NotHereError(str(MissingPackageError(requirement("cuda-bindings"), "running an engine"))) from error
    if record.origin == UNPROVEN:
        facts = read_facts(library, request.file, record.contract, record.version_compatible)
        record = replace(
            record,
            tensors=facts.tensors,
            profiles=facts.profiles,
            hardware_compatibility=facts.hardware_compatibility,
            compute_capabilities=record.compute_capabilities or (gpu.compute_capability,),
            origin=RAN,
        )
    with TemporaryDirectory() as folder:  # the file gets its record when it has passed
        copy = Path(folder, request.file.name)
        shutil.copyfile(request.file, copy)
        record.save(copy)
        return replace(record, measured=measure_engine(copy, request.like, request.clip, request.device))


def _rebuilt(request: AdoptRequest, record: EngineRecord) -> tuple[EngineRecord, Rebuilt | str]:
    """The record with what a build of the same bytes tells, and that build, or why there is none."""
    record = replace(record, profiles=record.profiles or _only_profile(request, record))
    if record.library != "tensorrt_rtx":
        return record, "only TensorRT-RTX builds the same each time"
    try:
        version = load_library(record.library).version
    except MissingPackageError as error:
        return record, str(error)
    if release(version) != release(record.version):
        return record, f"this machine has {record.library} {version}"
    again = rebuilt(request.file, request.like, record.profiles, record.compute_capabilities)
    types: dict[str, float] = {}
    if again.built.layer_log:
        rows = layer_types(load_onnx(request.like), tensorrt_types(again.built.layer_log), *record.profiles[0].opt[2:4])
        types = shares(rows)
    return replace(record, tf32=again.tf32, type_shares=types, origin=REBUILT), again


def _only_profile(request: AdoptRequest, record: EngineRecord) -> tuple[Profile, ...]:
    """That of a file of one size. Raises InputError on any other."""
    contract = record.contract
    if not (contract.batch and contract.height and contract.width):
        raise InputError(
            f"{request.file} can only be asked for its shapes where it runs: name those it was built for, with "
            f"--optShapes={INPUT}:1x{contract.frames}x720x1280, and --minShapes and --maxShapes where they differ"
        )
    shape = (contract.batch, contract.frames, contract.height, contract.width, *((2,) if contract.io == "u16" else ()))
    return (Profile(shape, shape, shape),)


def engine_summary(adopted: AdoptedEngine) -> str:
    """What was checked, what was not, and what the record claims, as text."""
    record = adopted.record
    shapes = " or ".join(f"{_shape(profile.min)} to {_shape(profile.max)}" for profile in record.profiles)
    name, precision = record_path(adopted.engine).name, record.contract.precision
    claims = f"its record {name} claims: {precision}, input {shapes}; origin: {record.origin}"
    if record.origin == UNPROVEN:
        claims += "; that it is this network, its shapes and its types are your word: adopt it again on a machine that runs it"
    lines = [
        f"{adopted.engine}: adopted",
        *(f"  checked: {text}" for text in adopted.checked),
        *(f"  not checked: {text}" for text in adopted.unchecked),
        f"  {claims}",
        "next: " + quoted("videodeblur", "run", "IN.mp4", "OUT.mp4", "--model", adopted.engine),
    ]
    return "\n".join(lines)


def graph_summary(adopted: AdoptedGraph, like: Path) -> str:
    """The new file and its parities, as text."""
    lines = [
        f"{adopted.path}: {adopted.contract.precision}, with the contract of {like} and parities of its own",
        parity_lines(adopted.parities, adopted.contract.precision, adopted.remarks),
        "next: " + quoted("videodeblur", "run", "IN.mp4", "OUT.mp4", "--model", adopted.path),
    ]
    return "\n".join(lines)


def _wholeness(engine: Path, header: EngineHeader) -> str:
    if header.library == "tensorrt_rtx":
        return f"; all its {engine.stat().st_size} bytes are there"
    return "; whether it is whole, it does not tell"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _profile(smallest: tuple[int, ...] | None, tuned: tuple[int, ...] | None, largest: tuple[int, ...] | None) -> Profile | None:
    """As trtexec does: what is not given is what is."""
    opt = tuned or largest or smallest
    return Profile(smallest or opt, opt, largest or opt) if opt else None


def _output_of(graph: Path) -> Path:
    return graph.with_name(f"{graph.stem}.adopted.onnx")


def _kind(file: Path) -> str:
    """ "engine" or "graph", by what the file holds. Raises InputError, and says what it is, on what is neither."""
    if file.is_dir():
        raise InputError(f"{file} is a folder, expected an engine or an .onnx file: name one of its files")
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}: name an engine or an .onnx file") from error
    if head[:4] in MAGIC:
        if file.suffix not in SUFFIXES:
            raise InputError(f"{file} is a TensorRT engine, expected a name that ends with {', '.join(SUFFIXES)}: rename it")
        return "engine"
    if head.startswith(CACHE):
        raise InputError(
            f"{file} is TensorRT's calibration cache, which holds ranges: name the engine or the graph that it was made for"
        )
    if head.lstrip()[:1] in (b"{", b"["):
        raise InputError(f"{file} is JSON, expected an engine or an .onnx file: name the file that it is about")
    if file.suffix in SUFFIXES:
        raise ModelError(f"{file} is no TensorRT engine, it begins with {head[:4]!r}: copy it again, or build it again")
    if file.suffix != ".onnx":
        raise InputError(f"{file} is neither a TensorRT engine nor an .onnx file, which can be adopted: name one")
    return "graph"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodeblur adopt", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("file", type=flag_values.file, metavar="FILE", help="engine, or rewritten .onnx file")
    add(
        "--like",
        type=flag_values.file,
        required=True,
        metavar="ONNX",
        help="file of videodeblur export, fp16, bf16 or quantize that it was made of",
    )
    add("--output", type=flag_values.file, metavar="ONNX", help="adopted graph to write (default: FILE with .adopted.onnx)")
    add(
        "--clip",
        type=flag_values.file,
        default=DEFAULT_CLIP,
        metavar="VIDEO",
        help="clip to compare on (default: the shipped one)",
    )
    for kind, text in (("min", "smallest shape"), ("opt", "shape it is tuned for; alone, the only one"), ("max", "largest shape")):
        add(f"--{kind}Shapes", type=flag_values.shape, metavar="blurry:NxFxHxW", help=f"{text}, of an engine that cannot run here")
    text = "types that a builder of TensorRT 8 to 10 chose by itself, with --fp16 and the like (default: those of --like)"
    add("--precision", choices=tuple(MIN_PARITY), help=text)
    text = "load an engine that was built so, which executes code that it holds: only one that you trust"
    add("--versionCompatible", "--vc", action="store_true", help=text)
    add("--device", type=int, default=0, metavar="N", help="GPU to run it on (default %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
