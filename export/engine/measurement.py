"""`measure_engine`: everything that happens on the GPU, and what is told and written of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy.typing as npt

from export.engine.accuracy import ALGORITHMS, loss
from export.engine.measure_request import MeasureRequest
from export.engine.performance_report import (
    output_json,
    output_text,
    print_performance,
    print_profile,
    profile_json,
    times_json,
)
from export.engine.time_statistics import after_warmup
from export.engine.trtexec_log import TrtexecLog
from runtime.backends.inference_loop import ENDLESS, Device, Lane, fetch, measure, run_once
from runtime.backends.layer_times import LayerTimes
from runtime.command_line import stop_if_told
from runtime.errors import BackendError
from runtime.files.contract import INPUT, OUTPUT
from runtime.files.on_disk import partial_file, refusals

if TYPE_CHECKING:
    from runtime.backends.measured_engine import MeasuredEngine

SLOW_START = 2.0  # times the mean of loading; trtexec fails where the first load took longer
TENSOR_TYPES = {"float32": "Float", "uint8": "UInt8"}  # numpy's: TensorRT's, in file names
Values = Sequence[tuple[npt.NDArray[Any], Optional[npt.NDArray[Any]]]]  # of each pair: the input, what the output is compared with


def measure_engine(engine: MeasuredEngine, request: MeasureRequest, values: Values, log: TrtexecLog) -> bool:
    """Layers, comparisons, the measurement, the output and the layers' times, in trtexec's order.

    Returns whether each output is near enough to its reference. Raises BackendError when something fails on the GPU.
    """
    report, loop = request.report, request.loop
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


def tell_loading(first: float, total: float, loads: int, log: TrtexecLog) -> bool:
    """Whether the first load, of `first` milliseconds, was not far slower than the `loads` that followed, as trtexec wants it."""
    mean = total / loads
    log.info(
        f"Total deserialization time = {total:g} milliseconds in {loads} iterations, average time = {mean:g} milliseconds, "
        f"first time = {first:g} milliseconds."
    )
    if first > SLOW_START * mean:
        log.error(
            f"First deserialization time divided by average time is {first / mean:g}, expected {SLOW_START:g} or less: try again"
        )
    return first <= SLOW_START * mean


def _compare(lane: Lane, request: MeasureRequest, values: Values, log: TrtexecLog) -> bool:
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


def _fill(device: Device, values: Values) -> None:
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


def _profile(engine: MeasuredEngine, request: MeasureRequest, values: Values, log: TrtexecLog) -> None:
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


def _write(path: Path, text: str) -> None:
    with partial_file(path) as part:
        part.write_text(text)
