"""NVIDIA's trtexec as far as TensorRT's bindings reach: builds or loads an engine and measures it; same flags, log and files."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.engine.measure_checks import check_place, read_pair, what_it_takes
from export.engine.measure_flags import parse_measure_flags
from export.engine.measure_request import MeasureRequest
from export.engine.measurement import measure_engine, tell_loading
from export.engine.options_banner import device_lines, options_banner, profile_lines
from export.engine.trtexec_log import TrtexecLog
from export.make_engine import make_engine
from runtime.backends.run_options import RunOptions
from runtime.backends.tensorrt_library import load_library
from runtime.command_line import USER_ERROR, clean_up_when_stopped, command
from runtime.errors import BackendError, DeployError, MissingPackageError
from runtime.files.engine_record import read_header
from runtime.machine.packages import installed_version
from runtime.machine.requirements import requirement

if TYPE_CHECKING:
    from runtime.backends.device_memory import Gpu
    from runtime.backends.measured_engine import MeasuredEngine

MIB = 1 << 20
HELP = {"-h", "--help"}


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
    contract, profiles = what_it_takes(request)
    how = request.run.with_shape(profiles)
    shape, dtype = how.shape or (), np.dtype(np.float32 if contract.io == "f32" else np.uint8)
    values = [read_pair(pair, shape, dtype) for pair in request.pairs]
    for flag, path in request.report.files():
        check_place(flag, path, request)
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
            from runtime.backends.measured_engine import LOADS, time_loading

            return tell_loading(*time_loading(engine, how), LOADS, log)
        with closing(_open_engine(engine, how)) as measured:
            return measure_engine(measured, request, values, log)


@contextmanager
def _engine(request: MeasureRequest, log: TrtexecLog) -> Iterator[Path]:
    """The engine file, which is built where it is not named for loading; one that is not saved is gone afterwards."""
    if request.build is None:
        size = request.source.stat().st_size
        log.info(f"Loaded engine with size: {size / MIB:g} MiB")
        if request.skip and (request.report.print_layers or request.report.layers):
            log.warn("the layers of a loaded engine are read on a GPU: leave --skipInference out")
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


def _library_version(arguments: Sequence[str]) -> str:
    """Of the library that the command line leads to, by its package: none is loaded for a line of the log."""
    names = ("tensorrt_rtx",) if {"rtx", "--runtime=rtx"} & set(arguments) else ("tensorrt", "tensorrt_rtx")
    return next(filter(None, map(installed_version, names)), "")


if __name__ == "__main__":
    raise SystemExit(main())
