"""The loop that measures and its statistics, on recorded times."""

import json

import pytest
from recorded_gpu import RecordedGpu

from export.engine.performance_report import profile_json, times_json
from export.engine.time_statistics import after_warmup, summary
from runtime.backends.inference_loop import ENDLESS, LoopOptions, fetch, measure, run_once
from runtime.backends.layer_times import LayerTimes, build_profiler
from runtime.backends.tensorrt_library import load_library
from runtime.errors import BackendError, InputError

QUICK = {"warmup": 0, "duration": 0}


def test_copies_hide_behind_compute_unless_exposed():
    def found(**options):
        return after_warmup(measure(RecordedGpu(), LoopOptions(iterations=100, transfers=True, **QUICK, **options)), 0)

    beside, exposed = found(), found(overlap=False)
    assert beside.throughput == pytest.approx(1000 / 3, rel=0.05)  # the compute alone
    assert exposed.throughput == pytest.approx(1000 / (2 + 3 + 1), rel=0.05)
    for trace in (*beside.traces, *exposed.traces):
        assert trace.h2d_end <= trace.compute_start
        assert trace.compute_end <= trace.d2h_start
    assert {(time.h2d, time.d2h) for time in (round_times(exposed.times))} == {(2.0, 1.0)}


def round_times(times):
    return [type(time)(*(round(value, 6) for value in vars(time).values())) for time in times]


def test_without_transfers_a_query_is_its_compute():
    traces = measure(RecordedGpu(), LoopOptions(iterations=10, **QUICK))
    assert len(traces) == 10
    for trace in traces:
        assert trace.h2d_start == trace.h2d_end == trace.compute_start
        assert trace.d2h_start == trace.d2h_end == trace.compute_end
        assert trace.enqueue_end - trace.enqueue_start == pytest.approx(0.1)
    assert traces[1].enqueue_start < traces[0].compute_end  # the second is queued while the first computes


def test_warmup_does_not_count_and_the_iterations_follow_it():
    options = LoopOptions(iterations=20, warmup=30, duration=0)
    measured = after_warmup(measure(RecordedGpu(), options), options.warmup)
    assert measured.warmups == 10
    assert len(measured.traces) >= 20
    assert measured.traces[0].compute_start >= 30


def test_duration_is_kept_after_the_warmup():
    options = LoopOptions(iterations=1, warmup=30, duration=0.3)
    assert after_warmup(measure(RecordedGpu(), options), 30).milliseconds >= 300 - 3


def test_all_in_the_warmup_is_an_error():
    with pytest.raises(BackendError, match="all 5 queries began within 1e"):
        after_warmup(measure(RecordedGpu(), LoopOptions(iterations=5, **QUICK)), 1e9)


def test_idle_time_is_between_iterations_after_the_warmup():
    gpu = RecordedGpu()
    measured = after_warmup(measure(gpu, LoopOptions(iterations=10, warmup=30, duration=0, idle=7)), 30)
    assert set(gpu.slept) == {7}
    assert len(gpu.slept) <= len(measured.traces)
    assert measured.throughput < 1000 / 6


def test_held_gpu_lets_the_host_queue_first():
    gpu = RecordedGpu()
    first = measure(gpu, LoopOptions(iterations=3, hold=50, **QUICK))[0]
    assert first.compute_start == 0  # of the GPU's clock, which the pause is before
    assert first.enqueue_end < 50 < gpu.now()


@pytest.mark.parametrize("threads", [False, True])
def test_streams_are_measured_together(threads):
    gpu = RecordedGpu(lanes=3)
    traces = measure(gpu, LoopOptions(iterations=10, threads=threads, **QUICK))
    assert sorted(trace.lane for trace in traces) == [0] * 10 + [1] * 10 + [2] * 10
    assert [trace.h2d_start for trace in traces] == sorted(trace.h2d_start for trace in traces)
    assert len(gpu.entered) >= 1 + threads


def test_endless_measurement_ends_when_it_is_told():
    calls = []

    def stop():
        calls.append(None)
        if len(calls) == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(RecordedGpu(), LoopOptions(duration=ENDLESS), stop)


def test_one_query_with_its_copies():
    lane = RecordedGpu().lanes[0]
    lane.input[...] = 7
    run_once(lane)
    assert (lane.output == 7).all()
    lane.input[...] = 8
    fetch(lane)
    assert (lane.output == 7).all()


@pytest.mark.parametrize("wrong", [{"iterations": -1}, {"warmup": -1}, {"duration": -2}, {"idle": -1}, {"hold": -1}])
def test_lengths_that_cannot_be(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        LoopOptions(**wrong)


def test_statistics_are_trtexecs():
    """Of 1 to 200: a percentile is a value, at trtexec's place."""
    found = summary([float(value) for value in range(200, 0, -1)], (0, 90, 99, 100))
    assert (found.min, found.max, found.mean, found.median) == (1, 200, 100.5, 100.5)
    assert found.percentiles == (1, 180, 199, 200)  # 1 - 0.9 is a little more than 0.1, 1 - 0.99 a little less than 0.01
    assert found.variation == pytest.approx(100 * 57.734 / 100.5, rel=1e-3)
    assert summary([3.0], (99,)).percentiles == (3,)


def test_times_are_written_as_trtexec_writes_them():
    calls = json.loads(times_json(measure(RecordedGpu(), LoopOptions(iterations=4, transfers=True, **QUICK))))
    keys = ["startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs"]
    assert [list(call) for call in calls] == [[*keys, "h2dMs", "computeMs", "d2hMs", "latencyMs"]] * 4
    for call in calls:
        assert call["latencyMs"] == pytest.approx(call["h2dMs"] + call["computeMs"] + call["d2hMs"])


def test_layers_are_told_apart_by_their_place():
    times = LayerTimes()
    profiler = build_profiler(load_library("tensorrt_rtx").module, times.add)
    for factor in (1, 3):
        for name, milliseconds in (("a", 1.0), ("b", 2.0), ("b", 4.0)):
            profiler.report_layer_time(name, factor * milliseconds)
    assert (times.runs, times.names, times.total) == (2, ["a", "b", "b"], 28)
    counted, *layers = json.loads(profile_json(times))
    assert counted == {"count": 2}
    assert layers[2] == {"name": "b", "timeMs": 16, "averageMs": 8, "medianMs": 8, "percentage": pytest.approx(100 * 16 / 28)}
