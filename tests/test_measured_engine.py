"""What `videodeblur trtexec` measures on a GPU, against CUDA calls that the host does itself and a TensorRT that only copies."""

import ctypes
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from host_cuda import HostCuda, HostDriver

from runtime.backends import device_memory, measured_engine
from runtime.backends.device_memory import Gpu
from runtime.backends.inference_loop import LoopOptions, measure, run_once
from runtime.backends.layer_times import LayerTimes
from runtime.backends.measured_engine import LOADS, WARM_LOADS, MeasuredEngine, noise, time_loading
from runtime.backends.run_options import RunOptions
from runtime.backends.tensorrt_library import load_library
from runtime.errors import BackendError

SHAPE = (1, 5, 64, 96)
SIZE = 4 * 5 * 64 * 96  # bytes
CONTEXT = 77  # of the GPU
SHORT = {"iterations": 5, "warmup": 0, "duration": 0}


class CopyingContext:
    """An execution context of TensorRT whose network is the identity."""

    def __init__(self, strategy):
        self.strategy, self.profiler, self.enqueue_emits_profile, self.persistent_cache_limit = strategy, None, True, 0
        self.addresses, self.runs, self.memory = {}, 0, None

    def set_optimization_profile_async(self, profile, stream):
        self.profile = profile
        return profile == 0

    def set_input_shape(self, name, shape):
        return (name, shape) == ("blurry", SHAPE)

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer
        return True

    def update_device_memory_size_for_shapes(self):
        return 1024

    def set_device_memory(self, pointer, size):
        self.memory = size

    def execute_async_v3(self, stream):
        self.runs += 1
        ctypes.memmove(self.addresses["sharp"], self.addresses["blurry"], SIZE)
        return True

    def report_to_profiler(self):
        assert not self.enqueue_emits_profile
        for name in ("a", "b"):
            self.profiler.report_layer_time(name, 0.5)
        return True


class CopyingEngine:
    """An engine of TensorRT that makes such contexts."""

    num_aux_streams = 2

    def __init__(self):
        self.contexts = []

    def create_execution_context(self, config):
        strategy = getattr(config, "strategy", config)
        self.contexts.append(CopyingContext(strategy))
        return self.contexts[-1]

    def create_engine_inspector(self):
        return SimpleNamespace(get_engine_information=lambda form: f"layers as {form.name}")


@pytest.fixture
def host(monkeypatch):
    """CUDA on the host, and an engine on it whose library is TensorRT-RTX's; full TensorRT's, where `kernels` stays None."""
    cuda, engine, loads = HostCuda(), CopyingEngine(), []

    def loaded(library, path, record, plan):
        loads.append(path)
        return SimpleNamespace(library=library, engine=engine, dtype=np.dtype(np.float32), close=lambda: None)

    driver = HostDriver()
    monkeypatch.setattr(device_memory, "cuda", cuda)
    monkeypatch.setattr(device_memory, "driver", driver)
    monkeypatch.setattr(measured_engine, "open_gpu", lambda index: Gpu(index, "a GPU", (8, 6), 8 << 30, 13000, CONTEXT))
    monkeypatch.setattr(measured_engine, "LoadedEngine", loaded)
    monkeypatch.setattr(measured_engine, "kernel_cache", lambda *_: None)
    return SimpleNamespace(cuda=cuda, driver=driver, engine=engine, loads=loads)


def test_a_query_goes_through_the_engine(tiny_engine, host):
    with closing(MeasuredEngine(tiny_engine, RunOptions(SHAPE))) as measured, closing(measured.device(cuda_graph=False)) as device:
        lane = device.lanes[0]
        np.testing.assert_array_equal(lane.input, noise(SHAPE, np.dtype(np.float32)))
        run_once(lane)
        np.testing.assert_array_equal(lane.output, lane.input)
        assert measured.layers(device, "JSON") == "layers as JSON"
        assert measured.aux_streams == 2
        assert host.driver.current == CONTEXT


def test_everything_is_freed(tiny_engine, host):
    with closing(MeasuredEngine(tiny_engine, RunOptions(SHAPE, streams=3))) as measured:
        device = measured.device(cuda_graph=True)
        assert host.cuda.open == {"stream": 3 * 3 + 1, "event": 3 * 12 + 1, "memory": 3 * 4, "graph": 3}
        device.close()
        device.close()
    assert set(host.cuda.open.values()) == {0}


def test_times_are_of_the_loop(tiny_engine, host):
    how = RunOptions(SHAPE, streams=2, spin=False)
    with closing(MeasuredEngine(tiny_engine, how)) as measured, closing(measured.device(cuda_graph=False)) as device:
        traces = measure(device, LoopOptions(transfers=True, hold=20, **SHORT))
    assert len(traces) == 10
    for trace in traces:
        assert 0 <= trace.h2d_start <= trace.h2d_end <= trace.compute_start <= trace.compute_end <= trace.d2h_start <= trace.d2h_end
        assert 0 <= trace.enqueue_start <= trace.enqueue_end


def test_graph_is_launched_instead_of_the_kernels(tiny_engine, host):
    with closing(MeasuredEngine(tiny_engine, RunOptions(SHAPE))) as measured, closing(measured.device(cuda_graph=True)) as device:
        assert host.engine.contexts[0].runs == 2  # plainly once, then recorded
        measure(device, LoopOptions(**SHORT))
        assert (host.engine.contexts[0].runs, host.cuda.launched) == (2, 5)
        assert not device.notes


def test_graph_that_cannot_be_recorded_is_a_note(tiny_engine, host, monkeypatch):
    calls = iter([True, False])
    monkeypatch.setattr(CopyingContext, "execute_async_v3", lambda context, stream: next(calls, True))
    with closing(MeasuredEngine(tiny_engine, RunOptions(SHAPE))) as measured, closing(measured.device(cuda_graph=True)) as device:
        assert "CUDA graph capture failed" in device.notes[0]
        assert len(measure(device, LoopOptions(**SHORT))) == 5


def test_layers_are_timed(tiny_engine, host):
    times = LayerTimes()
    with (
        closing(MeasuredEngine(tiny_engine, RunOptions(SHAPE, streams=2))) as measured,
        closing(measured.device(cuda_graph=False, times=times)) as device,
    ):
        measure(device, LoopOptions(overlap=False, **SHORT))
    assert (times.runs, times.names, times.total) == (5, ["a", "b"], 5)


@pytest.mark.parametrize(("word", "strategy"), [("static", "STATIC"), ("profile", "ON_PROFILE_CHANGE")])
def test_memory_of_contexts(tiny_engine, host, word, strategy):
    with closing(MeasuredEngine(tiny_engine, RunOptions(SHAPE, strategy=word, cache_ratio=0.5))) as measured:
        measured.device(cuda_graph=False).close()
    context = host.engine.contexts[0]
    ways = load_library("tensorrt_rtx").module.ExecutionContextAllocationStrategy
    assert context.strategy == ways.__members__[strategy]
    assert (context.memory, context.persistent_cache_limit) == (None, 2 << 20)


def test_memory_for_the_shape_is_the_callers(tiny_engine, host):
    with closing(MeasuredEngine(tiny_engine, RunOptions(SHAPE, strategy="runtime"))) as measured:
        device = measured.device(cuda_graph=False)
        assert host.engine.contexts[0].memory == 1024
        device.close()
    assert set(host.cuda.open.values()) == {0}


def test_shape_that_is_refused(tiny_engine, host):
    with (
        closing(MeasuredEngine(tiny_engine, RunOptions((1, 5, 64, 64)))) as measured,
        pytest.raises(BackendError, match="--shapes"),
    ):
        measured.device(cuda_graph=False)
    assert set(host.cuda.open.values()) == {0}


def test_loading_is_timed(tiny_engine, host):
    ticks = iter(range(1000))
    first, total = time_loading(tiny_engine, RunOptions(SHAPE), lambda: next(ticks))
    assert (first, total) == (1000, 1000 * LOADS)
    assert len(host.loads) == WARM_LOADS + 1 + LOADS
