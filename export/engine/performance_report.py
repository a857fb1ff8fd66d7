"""What trtexec prints and writes of a measurement, in its layout (samples/common/sampleReporting.cpp of version 11.1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import numpy.typing as npt

from export.engine.time_statistics import Measured, QueryTime, Summary, query_time, summary
from export.engine.trtexec_log import TrtexecLog
from runtime.backends.inference_loop import Trace
from runtime.backends.layer_times import LayerTimes

MOST_LINES = 200  # of the trace, from its start and from its end
PARTS = {  # of the summary: what they are of a query
    "Latency": lambda time: time.latency,
    "Enqueue Time": lambda time: time.enqueue,
    "H2D Latency": lambda time: time.h2d,
    "GPU Compute Time": lambda time: time.compute,
    "D2H Latency": lambda time: time.d2h,
}
ENQUEUE_BOUND = 0.8  # of the compute: from there on queueing may be what limits
UNSTABLE = 2.5  # percent of variation
EXPLANATIONS = """
=== Explanations of the performance metrics ===
Total Host Walltime: from the first query's start, after the warm-up, to the last one's end.
GPU Compute Time: of a query, on the GPU. Total GPU Compute Time: of all queries; much less than the walltime leaves the GPU idle.
Throughput: queries divided by the Total Host Walltime.
Enqueue Time: of a query, on the host. Longer than the GPU Compute Time leaves the GPU idle.
H2D Latency, D2H Latency: of a query's copies to and from the GPU.
Latency: of a query, its copies and its compute."""


def print_performance(
    measured: Measured, warmup: float, averages: int, percents: Sequence[float], lanes: int, log: TrtexecLog
) -> None:
    """Everything between the last query and the profile. `warmup` in milliseconds."""
    times = measured.times
    log.info(f"Warmup completed {measured.warmups} queries over {warmup:g} ms")
    log.info(f"Timing trace has {len(times)} queries over {measured.milliseconds / 1000:g} s")
    log.info()
    log.info("=== Trace details ===")
    log.info(f"Trace averages of {averages} runs:")
    for line in _averages(times, averages):
        log.info(line)
    found = {name: summary([part(time) for time in times], percents) for name, part in PARTS.items()}
    log.info()
    log.info("=== Performance summary ===")
    log.info(f"Throughput: {measured.throughput:g} qps")
    for name, part in found.items():
        log.info(f"{name}: {_words(part, percents)}")
    log.info(f"Total Host Walltime: {measured.milliseconds / 1000:g} s")
    log.info(f"Total GPU Compute Time: {sum(time.compute for time in times) / 1000:g} s")
    for line in _warnings(found, lanes):
        log.warn(line)
    log.info("Explanations of the performance metrics are printed in the verbose logs.")
    log.detail(EXPLANATIONS)
    log.info()


def print_profile(times: LayerTimes, log: TrtexecLog) -> None:
    """Every layer that ran, and the total."""
    log.info()
    log.info(f"=== Profile ({times.runs} iterations ) ===")
    log.info("   Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer")
    for name, each in zip(times.names, times.milliseconds):
        if sum(each):
            log.info(_profile_line(sum(each), sum(each) / len(each), median(each), 100 * sum(each) / times.total, name))
    log.info(_profile_line(times.total, times.total / max(times.runs, 1), times.median, 100.0, "Total"))
    log.info()


def times_json(traces: Sequence[Trace]) -> str:
    """--exportTimes: an object for each query that counts."""
    return _json_list([_times_of(trace) for trace in traces])


def profile_json(times: LayerTimes) -> str:
    """--exportProfile: the number of runs, then an object for each layer."""
    layers = [
        {
            "name": name,
            "timeMs": sum(each),
            "averageMs": sum(each) / len(each),
            "medianMs": median(each),
            "percentage": 100 * sum(each) / times.total if times.total else 0.0,
        }
        for name, each in zip(times.names, times.milliseconds)
    ]
    return _json_list([{"count": times.runs}, *layers])


def output_json(outputs: dict[str, npt.NDArray[Any]]) -> str:
    """--exportOutput: name, dimensions and values of each output."""
    found = [{"name": name, "dimensions": by(array.shape), "values": array.ravel().tolist()} for name, array in outputs.items()]
    return _json_list(found)


def output_text(name: str, array: npt.NDArray[Any]) -> str:
    """--dumpOutput."""
    return f"{name}: ({by(array.shape)})\n{' '.join(f'{value:g}' for value in array.ravel().tolist())}"


def by(shape: Sequence[int]) -> str:
    """1x5x64x96."""
    return "x".join(map(str, shape))


def _averages(times: Sequence[QueryTime], runs: int) -> Iterator[str]:
    blocks = [times[start : start + runs] for start in range(0, len(times) - runs + 1, runs)]
    left_out = len(blocks) - 2 * MOST_LINES
    for number, block in enumerate(blocks):
        if left_out > 0 and number == MOST_LINES:
            yield f"... Omitting {left_out} lines"
        if left_out <= 0 or not MOST_LINES <= number < MOST_LINES + left_out:
            gpu, host, queued = (
                sum(PARTS[part](time) for time in block) / runs for part in ("GPU Compute Time", "Latency", "Enqueue Time")
            )
            yield f"Average on {runs} runs - GPU latency: {gpu:g} ms - Host latency: {host:g} ms (enqueue {queued:g} ms)"


def _words(found: Summary, percents: Sequence[float]) -> str:
    ranks = "".join(f", percentile({percent:g}%) = {value:g} ms" for percent, value in zip(percents, found.percentiles))
    return f"min = {found.min:g} ms, max = {found.max:g} ms, mean = {found.mean:g} ms, median = {found.median:g} ms{ranks}"


def _warnings(found: dict[str, Summary], lanes: int) -> Iterator[str]:
    compute = found["GPU Compute Time"]
    if found["Enqueue Time"].median > ENQUEUE_BOUND * compute.median:
        yield "* Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized."
        yield "  If you are using --noCudaGraph, removing it may increase throughput."
    for name, way in (
        ("H2D Latency", "host-to-device transfers for the inputs"),
        ("D2H Latency", "device-to-host transfers for the outputs"),
    ):
        if found[name].median >= compute.median:
            yield f"* Throughput may be bound by {way} rather than GPU Compute and the GPU may be under-utilized."
            yield "  Consider removing --includeDataTransfers to disable data transfers and potentially increase throughput."
    if compute.variation > UNSTABLE:
        yield f"* GPU compute time is unstable, with coefficient of variance = {compute.variation:g}%."
        yield "  If not already in use, locking GPU clock frequency may improve the stability."
    if lanes > 1:
        yield "* Multiple inference streams are used: they may run in parallel, so that latencies are not those of one alone."
        yield '  Please use "Throughput" as the performance metric instead.'


def _profile_line(total: float, average: float, middle: float, share: float, name: str) -> str:
    return f"{total:11.2f}{average:13.4f}{middle:13.4f}{share:10.1f}   {name}"


def _times_of(trace: Trace) -> dict[str, float]:
    time = query_time(trace)
    found = {
        "startEnqMs": trace.enqueue_start,
        "endEnqMs": trace.enqueue_end,
        "startH2dMs": trace.h2d_start,
        "endH2dMs": trace.h2d_end,
        "startComputeMs": trace.compute_start,
        "endComputeMs": trace.compute_end,
        "startD2hMs": trace.d2h_start,
        "endD2hMs": trace.d2h_end,
        "h2dMs": time.h2d,
        "computeMs": time.compute,
        "d2hMs": time.d2h,
        "latencyMs": time.latency,
    }
    return {name: round(value, 6) for name, value in found.items()}


def _json_list(entries: Sequence[Any]) -> str:
    return "[\n  " + "\n, ".join(json.dumps(entry) for entry in entries) + "\n]\n"
