"""NVIDIA's trtexec as far as TensorRT's bindings reach: builds or loads an engine and measures it, with its flags, log and files."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.engine.accuracy import ALGORITHMS, loss
from export.engine.measure_flags import parse_measure_flags
from export.engine.measure_request import MeasureRequest, Pair
from export.engine.options_banner import device_lines, options_banner, profile_lines
from export.engine.performance_report import (
    by,
    output_json,
    output_text,
    print_performance,
    print_profile,
    profile_json,
    times_json,
)
from export.engine.size_presets import check_sizes
from export.engine.time_statistics import after_warmup
from export.engine.trtexec_log import TrtexecLog
from export.make_engine import make_engine
from runtime.backends.inference_loop import ENDLESS, Device, Lane, fetch, measure, run_once
from runtime.backends.layer_times import LayerTimes
from runtime.backends.run_options import RunOptions
from runtime.backends.tensorrt_library import load_library
from runtime.command_line import USER_ERROR, clean_up_when_stopped, command, stop_if_told
from runtime.errors import BackendError, DeployError, InputError, MissingPackageError
from runtime.files.contract import INPUT, OUTPUT, Contract, read_contract
from runtime.files.engine_record import Profile, load_record, read_header
from runtime.files.on_disk import check_not_input, partial_file, place_of, refusals
from runtime.machine.requirements import requirement

if TYPE_CHECKING:
    from runtime.backends.device_memory import Gpu
    from runtime.backends.measured_engine import MeasuredEngine

MIB = 1 << 20
HELP = {"-h", "--help"}
SLOW_START = 2.0  # times the mean of loading; trtexec fails where the first load took longer
TENSOR_TYPES = {"float32": "Float", "uint8": "UInt8"}  # numpy's: TensorRT's, in file names


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, builds or loads, measures, prints and writes; status 1 when any of it fails."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    words, version = ("videodeblur", "trtexec", *arguments), _library_version(arguments)
    log = TrtexecLog(verbose="--verbose" in arguments)
    if not HELP & set(arguments):
        log.banner("RUNNING", version, words)
    try:
        clean_up_when_stopped()
        passed = run(parse_measure_flags(arguments), log)
    except DeployError as error:
        log.error(str(error))
        passed = False
    log.banner("PASSED" if passed else "FAILED", version, words)
    return 0 if passed else USER_ERROR


def run(request: MeasureRequest, log: TrtexecLog) -> bool:
    """Whether all went well: a comparison that fails is told and does not raise.

    What needs no work is checked first: sizes, files, places, the GPU. Raises what `make_engine` and `MeasuredEngine` raise.
    """
    if request.version_only:
        log.info("Plan was created with {} version {}".format(*read_header(request.source)))
        return True
    contract, profiles = _what_it_takes(request)
    how = request.run.with_shape(profiles)
    shape, dtype = how.shape or (), np.dtype(np.float32 if contract.io == "f32" else np.uint8)
    values = [_read_pair(pair, shape, dtype) for pair in request.pairs]
    for flag, path in request.report.files():
        _check_place(flag, path, request)
    for line in options_banner(request, shape):
        log.info(line)
    for note in request.notes:
        log.warn(note)
    if not request.skip:
        for line in device_lines(_open_gpu(how.device)):
            log.info(line)
    with _engine(request, log) as engine:
        if request.report.print_profiles:
            for line in profile_lines(profiles):
                log.info(line)
        if request.skip:
            log.info("Skipped inference phase since --skipInference is added.")
            return True
        if request.time_loading:
            return _time_loading(engine, how, log)
        with closing(_open_engine(engine, how)) as measured:
            return _measure(measured, request, values, log)


def _what_it_takes(request: MeasureRequest) -> tuple[Contract, Sequence[Profile]]:
    """Raises InputError where a build's sizes do not fit the model, or are missing; ModelError where a file is not in order."""
    if request.build is None:
        record = load_record(request.source)
        return record.contract, record.profiles
    contract = read_contract(request.build.onnx)
    check_sizes(request.build.profiles, contract)
    if request.build.profiles:
        return contract, request.build.profiles
    fixed = (contract.batch or 1, contract.frames, contract.height or 1, contract.width or 1)
    shape = (*fixed, 2) if contract.io == "u16" else fixed
    return contract, (Profile(shape, shape, shape),)


def _read_pair(pair: Pair, shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """The input's values, and what the output is compared with."""
    return _read(pair.inputs, shape, dtype), _read(pair.reference, shape, dtype) if pair.reference else None


def _read(path: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    expected = f"expected {size} bytes, raw {dtype} samples of {by(shape)} as numpy's tofile() writes them"
    try:
        got = path.stat().st_size
        if got != size:
            raise InputError(f"{path} has {got} bytes, {expected}")
        return np.fromfile(path, dtype).reshape(shape)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}, {expected}") from error


def _check_place(flag: str, path: Path, request: MeasureRequest) -> None:
    pairs = (file for pair in request.pairs for file in (pair.inputs, pair.reference))
    check_not_input(path, request.source, request.engine, *pairs)
    if path.is_dir():
        raise InputError(f"{flag} is {path}, which is a folder, expected a file's name")
    folder = place_of(path).parent
    with refusals(folder, flag), tempfile.TemporaryFile(dir=folder):
        pass  # told now, not after the measurement


@contextmanager
def _engine(request: MeasureRequest, log: TrtexecLog) -> Iterator[Path]:
    """The engine file, which is built where it is not named for loading; one that is not saved is gone afterwards."""
    if request.build is None:
        size = request.source.stat().st_size
        log.info(f"Loaded engine with size: {size / MIB:g} MiB")
        yield request.source
        return
    with tempfile.TemporaryDirectory(prefix="videodeblur-trtexec-") as folder:
        engine = request.engine or Path(folder) / f"{request.build.onnx.stem}.engine"
        layers = request.build.layer_information
        if request.skip and request.report.print_layers:
            layers = layers or Path(folder) / "layers"
        with load_library(request.build.library).told_to(log.library_said):
            made = make_engine(replace(request.build, engine=engine, layer_information=layers), None, log.info)
        log.info(f"Engine built in {made.record.build_seconds:g} sec.")
        log.info(f"Created engine with size: {engine.stat().st_size / MIB:g} MiB")
        for name, share in made.record.type_shares.items():
            log.info(f"Convolution FLOPs in {name}: {100 * share:.1f}%")
        for note in made.notes:
            log.warn(note)
        if request.skip and request.report.print_layers and layers:
            log.info(f"Layer Information:\n{layers.read_text().strip()}")
        yield engine


def _measure(engine: MeasuredEngine, request: MeasureRequest, values: Sequence[Any], log: TrtexecLog) -> bool:
    """Everything on the GPU, in trtexec's order: layers, comparisons, the measurement, the output, the layers' times."""
    report, loop, exact = request.report, request.loop, True
    if loop.duration == ENDLESS:
        log.warn("--duration=-1: runs until Ctrl-C, and reports nothing")
    with closing(engine.device(request.run.cuda_graph)) as device:
        for note in device.notes:
            log.warn(note)
        if report.print_layers:
            log.info(f"Layer Information:\n{engine.layers(device, 'ONELINE').strip()}")
        if report.layers:
            _write(report.layers, engine.layers(device, "JSON"))
        log.info("Starting inference")
        exact = _compare(device.lanes[0], request, values, log)
        _fill(device, values)
        measured = after_warmup(measure(device, loop, stop_if_told), loop.warmup)
        print_performance(measured, loop.warmup, report.averages, report.percentiles, len(device.lanes), log)
        if report.times:
            _write(report.times, times_json(measured.traces))
        _give_output(device.lanes[0], request, log)
    if report.print_profile or report.profile:
        _profile(engine, request, values, log)
    if not exact:
        log.error("Accuracy validation FAILED: one or more tensors exceeded the threshold.")
    return exact


def _compare(lane: Lane, request: MeasureRequest, values: Sequence[Any], log: TrtexecLog) -> bool:
    """Whether each output that has a reference is near enough to it."""
    exact, how = True, request.accuracy
    for (inputs, reference), pair in zip(values, request.pairs):
        if reference is None:
            continue
        lane.input[...] = inputs
        run_once(lane)
        found = loss(lane.output, reference, how)
        failed = how.fails(found)
        verdict = f" [FAIL: >= threshold {how.threshold:f}]" if failed else ""
        log.detail(f"Loaded reference output for tensor {OUTPUT} from {pair.reference}")
        log.info(f"Accuracy loss for tensor {OUTPUT} ({ALGORITHMS[how.algorithm]}): {found:.6f}{verdict}")
        exact = exact and not failed
    return exact


def _fill(device: Device, values: Sequence[Any]) -> None:
    """The last input that was named, as trtexec leaves it; noise where there is none."""
    for lane in device.lanes if values else ():
        lane.input[...] = values[-1][0]


def _give_output(lane: Lane, request: MeasureRequest, log: TrtexecLog) -> None:
    report = request.report
    if not (report.print_output or report.output or report.raw):
        return
    fetch(lane)
    if report.print_output:
        log.info(output_text(OUTPUT, lane.output))
    if report.raw:
        for name, kind, array in ((INPUT, "input", lane.input), (OUTPUT, "output", lane.output)):
            words = ".".join(map(str, array.shape))
            path = Path(f"{name}.{kind}.{words}.{TENSOR_TYPES[array.dtype.name]}.raw")
            log.info(f"Writing file for {kind} binding {name} (with dimensions {words}) to {path}")
            with refusals(path.parent, "another working folder"):
                array.tofile(path)
    if report.output:
        _write(report.output, output_json({OUTPUT: lane.output}))


def _profile(engine: MeasuredEngine, request: MeasureRequest, values: Sequence[Any], log: TrtexecLog) -> None:
    """A run of its own, without a graph: each query waits for its layers' times."""
    times = LayerTimes()
    with closing(engine.device(cuda_graph=False, times=times)) as device:
        _fill(device, values)
        measure(device, replace(request.loop, overlap=False, threads=False), stop_if_told)
    if not times.runs:
        raise BackendError("TensorRT told no layer's time: leave --dumpProfile and --exportProfile out")
    if request.report.print_profile:
        print_profile(times, log)
    if request.report.profile:
        _write(request.report.profile, profile_json(times))
    if engine.aux_streams:
        log.warn(
            f'The engine uses {engine.aux_streams} auxiliary streams: layers may run in parallel, "Total" is more than they take'
        )


def _time_loading(engine: Path, how: RunOptions, log: TrtexecLog) -> bool:
    """As trtexec does: fails where the first load is far slower than the rest."""
    from runtime.backends.measured_engine import LOADS, time_loading

    first, total = time_loading(engine, how)
    mean = total / LOADS
    log.info(
        f"Total deserialization time = {total:g} milliseconds in {LOADS} iterations, average time = {mean:g} milliseconds, "
        f"first time = {first:g} milliseconds."
    )
    if first > SLOW_START * mean:
        log.error(
            f"First deserialization time divided by average time is {first / mean:g}, expected {SLOW_START:g} or less: try again"
        )
    return first <= SLOW_START * mean


def _open_gpu(device: int) -> Gpu:
    try:
        from runtime.backends.device_memory import open_gpu

        return open_gpu(device)
    except ImportError as error:
        raise MissingPackageError(requirement("cuda-bindings"), "measuring on a GPU (--skipInference only builds)") from error
    except BackendError as error:
        raise BackendError(f"{error}, or only build, with --skipInference") from error


def _open_engine(path: Path, how: RunOptions) -> MeasuredEngine:
    from runtime.backends.measured_engine import MeasuredEngine

    return MeasuredEngine(path, how)


def _write(path: Path, text: str) -> None:
    with partial_file(path) as part:
        part.write_text(text)


def _library_version(arguments: Sequence[str]) -> str:
    """Of the library that the command line leads to, by its package: none is loaded for a line of the log."""
    names = ("tensorrt_rtx",) if {"rtx", "--runtime=rtx"} & set(arguments) else ("tensorrt", "tensorrt_rtx")
    for name in names:
        try:
            return installed_version(name)
        except PackageNotFoundError:
            continue
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
