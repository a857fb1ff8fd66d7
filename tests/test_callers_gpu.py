"""Arrays, streams and contexts of a program around the engine, against a driver that fails on any call outside the contract.

`fake_gpu` also fails on work that no stream, event or wait puts in order. On a real GPU: tests/test_tensorrt_runner.py.
"""

import ctypes
import gc
import re
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cuda.bindings import driver, runtime
from fake_gpu import LEGACY, PRIMARY, Array, FakeDriver, FakeGpu, FakeLibrary, FakeRuntime, merge

from runtime import BackendError, Engine, InputError
from runtime.backends import device_memory, tensorrt_engine
from runtime.backends.device_arrays import DeviceArray, is_dense, stream_handle
from runtime.backends.dlpack import BorrowedTensor
from runtime.backends.tensorrt_bindings import GUESTS
from runtime.files.contract import Contract
from runtime.files.engine_record import EngineRecord, Profile, record_path
from runtime.files.on_disk import file_sha256

PAGE = Path(__file__).resolve().parents[1] / "docs" / "engines.md"
SHAPE = (1, 5, 8, 16)
BORROW = ["cuCtxGetCurrent", "cuCtxSetCurrent"]
LOOK = ["cudaPointerGetAttributes", "cuPointerGetAttribute"]
BEFORE = ["cudaEventRecord", "cudaStreamWaitEvent"]  # what was queued before, on the caller's stream
AFTER = ["cudaEventRecord", "cudaStreamWaitEvent"]
GIVE_BACK = ["cuCtxSetCurrent"]


@pytest.fixture
def gpu(monkeypatch):
    made = FakeGpu()
    monkeypatch.setattr(device_memory, "DRIVER_LIBRARY", None)  # this program itself, which can always be opened
    monkeypatch.setattr(device_memory, "cuda", made.runtime)
    monkeypatch.setattr(device_memory, "driver", made.driver)
    monkeypatch.setattr(tensorrt_engine, "load_library", lambda name: FakeLibrary(made))
    return made


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "any.engine"
    file.write_bytes(b"plan")
    contract = Contract(5, 8, 0, "f32", None, None, None, None, None, "fp32", "", parity={})
    profile = Profile((1, 5, 8, 8), SHAPE, (2, 5, 64, 64))
    facts = {"hardware_compatibility": "none", "version_compatible": False, "tf32": False, "stripped": False}
    digest = file_sha256(file)
    EngineRecord(
        "tensorrt", "11.4.0.106", ((9, 0),), profiles=(profile,), sha256=digest, onnx_sha256="", contract=contract, **facts
    ).save(file)
    return file


@pytest.fixture
def engine(gpu, path):
    with Engine(path) as opened:
        yield opened


def negated(array):
    return -array.host


def read(gpu, sharp, stream):
    """What a kernel of the program's finds in a result."""
    pointer = sharp.__cuda_array_interface__["data"][0]
    memory, found = gpu.find(pointer), []
    whole = SimpleNamespace(memory=memory)
    gpu.kernel(stream, reads=[whole])
    found.append((ctypes.c_float * int(np.prod(SHAPE))).from_address(pointer))
    return np.ctypeslib.as_array(found[0]).reshape(SHAPE).copy()


# The program's context


def test_the_programs_context_is_current_again(gpu, path):
    """Also after what fails, and where there was none."""
    for context in (0, gpu.new_context(), PRIMARY):
        gpu.current = context
        with Engine(path) as engine:
            assert gpu.current == context
            stream = gpu.new_stream()
            engine.run(np.zeros(SHAPE, np.float32))
            assert gpu.current == context
            engine.run(gpu.new_array(SHAPE), stream=stream)
            engine.submit(gpu.new_array(SHAPE)).result(30)
            with pytest.raises(InputError):
                engine.run(gpu.new_array((1, 5, 8, 128)))
            assert gpu.current == context
            for call in ("cudaEventRecord", "cudaStreamWaitEvent"):
                gpu.failing[call] = runtime.cudaError_t.cudaErrorUnknown
                for window in (gpu.new_array(SHAPE), np.zeros(SHAPE, np.float32)):
                    with pytest.raises(BackendError, match="cudaErrorUnknown, it was told to"):
                        engine.run(window)
                    assert gpu.current == context
                del gpu.failing[call]
        assert gpu.current == context


def test_a_context_is_left_to_its_thread(gpu, engine):
    """The engine works in two threads; each has a context of its own afterwards."""
    gpu.current, seen = gpu.new_context(), []

    def other():
        gpu.current = mine = gpu.new_context()
        engine.run(gpu.new_array(SHAPE))
        seen.append(gpu.current == mine)

    before = gpu.current
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert (seen, gpu.current) == ([True], before)


def test_memory_is_freed_in_its_own_context(gpu, engine):
    sharp, pointers = engine.run(gpu.new_array(SHAPE)), set(gpu.memory)
    gpu.current = theirs = gpu.new_context()
    freed = sharp.pointer
    del sharp
    gc.collect()
    assert pointers - set(gpu.memory) == {freed}
    assert gpu.current == theirs


def test_what_is_of_another_context_is_refused(gpu, engine):
    """`import pycuda.autoinit` makes one."""
    theirs = gpu.new_context()
    ours, foreign = gpu.new_array(SHAPE), gpu.new_array(SHAPE, context=theirs)
    for given in ({"window": foreign}, {"window": ours, "out": foreign}, {"window": ours, "stream": gpu.new_stream(theirs)}):
        with pytest.raises(
            InputError, match=r"another CUDA context .*: take the GPU's primary context: import pycuda.autoprimaryctx"
        ):
            engine.run(**given)


def test_memory_of_no_context_is_taken(gpu, engine):
    """As that of cudaMallocAsync's pools is."""
    window = gpu.new_array(SHAPE, context=0)
    engine.run(window, out=(out := gpu.new_array(SHAPE)))
    np.testing.assert_array_equal(out.host, negated(window))


# Order


def test_all_the_calls_of_a_window(gpu, engine):
    """In the steady state: no allocation, no wait of the host, and whatever is not in this list is outside the contract."""
    window, out, stream = gpu.new_array(SHAPE), gpu.new_array(SHAPE), gpu.new_stream()
    launch = ["cudaGraphLaunch", *AFTER, *GIVE_BACK]
    for _ in range(3):
        engine.run(window, stream=stream)
        engine.run(window, out=out, stream=stream)
    gpu.calls.clear()
    engine.run(window, stream=stream)
    assert gpu.names() == [*BORROW, "cuStreamGetCtx", *LOOK, *BEFORE, *launch]
    gpu.calls.clear()
    assert engine.run(window, out=out, stream=stream) is out
    assert gpu.names() == [*BORROW, "cuStreamGetCtx", *LOOK, *LOOK, *BEFORE, *launch]
    compute, marks = gpu.calls[-4][1][1], [arguments for name, arguments in gpu.calls if name in BEFORE]
    (arrived, first), (second, waited, _), (computed, third), (fourth, awaited, _) = marks
    assert (first, second, third, fourth) == (stream, compute, compute, stream)
    assert (waited, awaited) == (arrived, computed)


def test_a_stream_orders_the_work_before_and_after(gpu, engine):
    """Windows are filled and results read on the program's stream, in buffers that are used again at once."""
    stream, window, out = gpu.new_stream(), gpu.new_array(SHAPE), gpu.new_array(SHAPE)
    for number in range(8):
        gpu.kernel(stream, writes=[window], value=number)
        if number % 2:
            sharp = engine.run(window, stream=stream)
            assert sharp.__cuda_array_interface__["stream"] == stream
        else:
            sharp = engine.run(window, out=out, stream=stream)
        np.testing.assert_array_equal(read(gpu, sharp, stream), negated(window))


def test_another_stream_that_does_not_wait_would_race(gpu, engine):
    """The guard itself: what the tests above rest on."""
    stream, window = gpu.new_stream(), gpu.new_array(SHAPE)
    gpu.kernel(gpu.new_stream(), writes=[window], value=1)
    with pytest.raises(AssertionError, match="races with"):
        engine.run(window, stream=stream)
    sharp = engine.run(gpu.new_array(SHAPE), stream=stream)
    with pytest.raises(AssertionError, match="races with"):
        read(gpu, sharp, gpu.new_stream())


@pytest.mark.parametrize("named", [{}, {"stream": None}, {"stream": "own"}])
def test_without_a_stream_the_arrays_name_theirs_and_the_result_is_there(named, gpu, engine):
    """PyCUDA says None and means the legacy default stream; CuPy and Numba name the stream."""
    stream = gpu.new_stream() if named.get("stream") else LEGACY
    facts = {name: value and stream for name, value in named.items()}
    window, out = gpu.new_array(SHAPE, **facts), gpu.new_array(SHAPE, **facts)
    for given in (None, out, out):
        gpu.kernel(stream, reads=[out], writes=[window], value=2)
        sharp = engine.run(window, out=given)
        assert given is not None or sharp.__cuda_array_interface__["stream"] is None
        np.testing.assert_array_equal(read(gpu, sharp, gpu.new_stream()), negated(window))
        gpu.wait_for_all()  # the program, for the stream on which it read


class OrdersByItself:
    """As PyTorch's tensors: an interface that names no stream, and DLPack, which orders its own stream before the taker's."""

    def __init__(self, gpu, current):
        self.gpu, self.current, self.array = gpu, current, gpu.new_array(SHAPE)
        interface = {name: value for name, value in self.array.__cuda_array_interface__.items() if name != "stream"}
        self.__cuda_array_interface__ = {**interface, "version": 2}

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream):
        self.gpu.clocks[stream].update(self.gpu.clocks[self.current])
        return DeviceArray(self.array.memory.pointer, SHAPE, np.dtype(np.float32), self).__dlpack__(stream=stream)


def test_tensor_of_pytorch_on_its_current_stream(gpu, engine):
    tensor = OrdersByItself(gpu, gpu.new_stream())
    gpu.kernel(tensor.current, writes=[tensor.array], value=3)
    sharp = engine.run(tensor)
    np.testing.assert_array_equal(read(gpu, sharp, gpu.new_stream()), negated(tensor.array))


def test_the_taker_of_a_result_waits_for_it(gpu, engine):
    """Through DLPack, on whatever stream; the host does not."""
    window, stream, taker = gpu.new_array(SHAPE), gpu.new_stream(), gpu.new_stream()
    gpu.kernel(stream, writes=[window], value=4)
    sharp = engine.run(window, stream=stream)
    gpu.calls.clear()
    lent = BorrowedTensor(sharp, taker)
    assert gpu.names() == [*BORROW, "cuStreamGetCtx", "cudaStreamWaitEvent", *GIVE_BACK]
    assert (lent.pointer, lent.shape, lent.device_type, lent.device_id) == (sharp.pointer, SHAPE, 2, 0)
    np.testing.assert_array_equal(read(gpu, sharp, taker), negated(window))
    gpu.calls.clear()
    sharp.__dlpack__(stream=-1, max_version=(1, 0), dl_device=(2, 0))
    assert gpu.names() == []
    with pytest.raises(BufferError, match="copy what is lent"):
        sharp.__dlpack__(copy=True)


def test_windows_on_the_host_are_in_order(gpu, engine):
    windows = [np.full(SHAPE, number / 8, np.float32) for number in range(7)]
    futures = [engine.submit(window) for window in windows[:3]] + [engine.submit(window) for window in windows[3:]]
    for window, future in zip(windows, futures):
        np.testing.assert_array_equal(future.result(30), -window)


def test_futures_of_windows_on_the_gpu(gpu, engine):
    stream = gpu.new_stream()
    windows, outs = [gpu.new_array(SHAPE) for _ in range(4)], [gpu.new_array(SHAPE) for _ in range(4)]
    for number, window in enumerate(windows):
        gpu.kernel(stream, writes=[window], value=number)
    futures = [engine.submit(window, out=out, stream=stream) for window, out in zip(windows, outs)]
    for window, out, future in zip(windows, outs, futures):
        assert future.result(30) is out
        np.testing.assert_array_equal(read(gpu, out, stream), negated(window))
    alone = engine.submit(windows[0]).result(30)
    np.testing.assert_array_equal(read(gpu, alone, gpu.new_stream()), negated(windows[0]))


def test_the_example_of_the_page(gpu, path, monkeypatch):
    """With stand-ins for what it uses of PyCUDA."""
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "pycuda" in code]

    class Stream:
        def __init__(self):
            self.handle = gpu.new_stream()

        def synchronize(self):
            merge(gpu.host_clock, gpu.clocks[self.handle])

    class GpuArray(Array):
        def __init__(self, shape, dtype):
            super().__init__(gpu.new_array(shape, dtype).memory, shape, dtype, stream=None)

        def set_async(self, ary, stream=None):
            gpu.kernel(stream.handle, writes=[self], value=ary)

        def get_async(self, stream=None, ary=None):
            gpu.kernel(stream.handle, reads=[self])
            ary[...] = self.host

    pycuda = {"pycuda.autoprimaryctx": SimpleNamespace(), "pycuda.gpuarray": SimpleNamespace(empty=GpuArray)}
    pycuda["pycuda.driver"] = SimpleNamespace(Stream=Stream, pagelocked_empty=np.empty)
    package = SimpleNamespace(**{name.split(".")[1]: module for name, module in pycuda.items()})
    for name, module in {"pycuda": package, **pycuda}.items():
        monkeypatch.setitem(sys.modules, name, module)
    path.rename(path.with_name("m.engine"))
    record_path(path).rename(record_path(path.with_name("m.engine")))
    monkeypatch.chdir(path.parent)
    given, shown = [np.full(SHAPE, number, np.float32) for number in range(4)], []
    example = example.replace("(1, 5, 720, 1280)", str(SHAPE))
    exec(compile(example, PAGE.name, "exec"), {"windows": given, "show": lambda found: shown.append(found.copy())})
    np.testing.assert_array_equal(shown, np.negative(given))


# Memory


def test_a_window_is_kept_until_it_was_read(gpu, engine):
    window = gpu.new_array(SHAPE)
    gone, ticket = weakref.ref(window), engine.runner.submit_on_device(window)
    del window
    gc.collect()
    assert gone() is not None
    engine.runner.result_on_device(ticket)
    del ticket
    gc.collect()
    assert gone() is None


def test_memory_of_results_is_used_again_on_the_same_stream_alone(gpu, engine):
    window, stream = gpu.new_array(SHAPE), gpu.new_stream()
    first = engine.run(window, stream=stream)
    second = engine.run(window, stream=stream)
    used, other = first.pointer, second.pointer
    kept = BorrowedTensor(first)  # as torch.from_dlpack keeps it
    del first
    gc.collect()
    assert engine.run(window, stream=stream).pointer not in (used, other)
    del kept
    gc.collect()
    gpu.calls.clear()
    assert engine.run(window, stream=gpu.new_stream()).pointer != used
    assert "cudaMalloc" in gpu.names()


def test_memory_runs_out(gpu, engine):
    window, stream, small = gpu.new_array(SHAPE), gpu.new_stream(), gpu.new_array((1, 5, 8, 8))
    left = engine.run(window, stream=stream).pointer
    gpu.failing["cudaMalloc"] = runtime.cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(BackendError, match=r"cudaErrorMemoryAllocation, .*: use smaller frames"):
        engine.run(small, stream=stream)
    assert left not in gpu.memory


def test_a_closed_engine_leaves_nothing(gpu, path):
    stream = gpu.new_stream()
    with Engine(path) as engine:
        before = set(gpu.memory) - {pointer for pointer, memory in gpu.memory.items() if memory.size == 1024}
        window = gpu.new_array(SHAPE)
        engine.run(np.zeros(SHAPE, np.float32))
        kept, given = engine.run(window, stream=stream), engine.run(window, stream=stream).pointer
    assert set(gpu.memory) - before == {window.memory.pointer, kept.pointer}
    assert given not in gpu.memory
    assert (set(gpu.streams), gpu.events, gpu.graphs) == ({LEGACY, 2, stream}, {}, {})
    DeviceArray.__dlpack__(kept, stream=stream)  # its event is gone, since nothing is to be waited for
    del kept
    gc.collect()
    assert set(gpu.memory) - before == {window.memory.pointer}


def test_more_addresses_than_contexts(gpu, engine):
    """Contexts and events are made for the first ones only, a graph for those that come again."""
    stream, arrays = gpu.new_stream(), [gpu.new_array(SHAPE) for _ in range(GUESTS + 4)]
    out = gpu.new_array(SHAPE)
    for window in arrays[:GUESTS]:
        engine.run(window, out=out, stream=stream)
    gpu.calls.clear()
    for number, window in enumerate(arrays * 2):
        gpu.kernel(stream, writes=[window], value=number)
        engine.run(window, out=out, stream=stream)
        np.testing.assert_array_equal(read(gpu, out, stream), negated(window))
    assert not {"cudaMalloc", "cudaEventCreateWithFlags"} & set(gpu.names())
    engine.run(arrays[-1], out=out, stream=stream)
    engine.run(arrays[-1], out=out, stream=stream)
    assert "cudaGraphLaunch" in gpu.names()
    for window in arrays:  # the one with a graph has its turn too
        engine.run(window, out=out, stream=stream)
    engine.run(gpu.new_array((1, 5, 8, 8)), stream=stream)


def test_a_replay_that_differs_ends_graphs(gpu, engine, caplog):
    gpu.runtime.__class__ = type(
        "Idle",
        (FakeRuntime,),
        {**vars(FakeRuntime), "cudaGraphLaunch": lambda api, *_: (api.gpu and runtime.cudaError_t.cudaSuccess,)},
    )
    window, out = gpu.new_array(SHAPE), gpu.new_array(SHAPE)
    for _ in range(3):
        engine.run(window, out=out)
        np.testing.assert_array_equal(out.host, negated(window))
    assert "CUDA graphs are off" in caplog.text


# What does not fit


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"shape": (1, 5, 8, 8)}, r"got an output of \(1, 5, 8, 8\) float32, expected \(1, 5, 8, 16\) float32"),
        ({"dtype": np.int32}, "got an output of .* int32, expected"),
        ({"device": 1}, "got an array on GPU 1, the engine is on GPU 0: copy it there"),
        ({"read_only": True}, "got an output that is read-only"),
        ({"offset": 4}, "not a multiple of 256: copy it first"),
    ],
)
def test_outputs_that_do_not_fit(facts, message, gpu, engine):
    window, out = gpu.new_array(SHAPE), gpu.new_array(facts.pop("shape", SHAPE), **facts)
    gpu.calls.clear()
    with pytest.raises(InputError, match=message):
        engine.run(window, out=out, stream=gpu.new_stream())
    assert not {*BEFORE, "cudaMalloc"} & set(gpu.names())


def test_output_with_gaps_overlap_or_on_the_host(gpu, engine):
    window = gpu.new_array(SHAPE)
    turned = gpu.new_array(SHAPE)
    turned.__cuda_array_interface__["strides"] = (2560, 512, 4, 32)
    both = gpu.new_array((2, 5, 8, 16))
    later = SimpleNamespace(
        __cuda_array_interface__={**window.__cuda_array_interface__, "data": (both.memory.pointer + 512, False)}
    )
    for given, out, message in (
        (window, turned, "expected it C-contiguous"),
        (window, window, "overlaps the window"),
        (SimpleNamespace(__cuda_array_interface__={**both.__cuda_array_interface__, "shape": SHAPE}), later, "overlaps the window"),
        (window, np.zeros(SHAPE, np.float32), "got ndarray to fill, the window is on the GPU"),
        (np.zeros(SHAPE, np.float32), window, "got Array for the output, expected a plain numpy array"),
    ):
        with pytest.raises(InputError, match=message):
            engine.run(given, out=out)


def test_arrays_and_streams_that_are_gone(gpu, engine):
    window, stream = gpu.new_array(SHAPE), gpu.new_stream()
    del gpu.streams[stream]
    with pytest.raises(InputError, match=r"does not know \(CUDA_ERROR_INVALID_HANDLE\), was it destroyed\?"):
        engine.run(window, stream=stream)
    gpu.free(window.memory.pointer)
    with pytest.raises(InputError, match=r"not in the memory of a GPU \(freed, or its context gone\?\)"):
        engine.run(window)
    with pytest.raises(InputError, match="got the per-thread default stream"):
        engine.run(gpu.new_array(SHAPE), stream=2)
    with pytest.raises(InputError, match="got a stream for a window that is not on a GPU"):
        engine.run(np.zeros(SHAPE, np.float32), stream=LEGACY)
    with pytest.raises(InputError, match="got bits=8 for an array on the GPU"):
        engine.run(gpu.new_array(SHAPE), bits=8)
    assert engine.state == "open"


def test_without_its_order_dlpack_alone_is_no_output(gpu, engine):
    lent = SimpleNamespace(__dlpack_device__=lambda: (2, 0))
    with pytest.raises(InputError, match="read-only, or does not tell"):
        engine.run(gpu.new_array(SHAPE), out=lent)


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (0, 0),
        (77, 77),
        (SimpleNamespace(__cuda_stream__=lambda: (0, 78)), 78),
        (SimpleNamespace(cuda_stream=79), 79),  # PyTorch before 2.10
        (SimpleNamespace(ptr=80), 80),  # CuPy
        (SimpleNamespace(handle=81), 81),  # PyCUDA
        (SimpleNamespace(handle=ctypes.c_void_p(82)), 82),  # Numba
        (SimpleNamespace(handle=ctypes.c_void_p(0)), 0),
        (driver.CUstream(83), 83),
        (runtime.cudaStream_t(84), 84),
    ],
)
def test_streams_of_every_library(stream, handle):
    assert stream_handle(stream) == handle


@pytest.mark.parametrize("stream", [True, -1, "0", 1.5, None, object(), np.zeros(1)])
def test_what_is_no_stream(stream):
    with pytest.raises(InputError, match="for the stream, expected one of PyTorch, CuPy, PyCUDA, Numba, or its handle"):
        stream_handle(stream)


def test_strides_of_an_axis_of_one_sample_do_not_matter():
    assert is_dense((999, 12, 4), (1, 2, 3), 4)
    assert not is_dense((24, 24, 4), (1, 2, 3), 4)


@pytest.mark.parametrize(("fake", "real"), [(FakeRuntime, runtime), (FakeDriver, driver)])
def test_the_contract_is_of_calls_that_cuda_python_has(fake, real):
    """With as many arguments; the first line of its texts is the call's signature."""
    for name, function in vars(fake).items():
        if name.startswith("cu"):
            signature = re.match(rf"{name}\((.*)\)", getattr(real, name).__doc__)[1]
            expected = len(signature.split(",")) if signature else 0
            assert function.__code__.co_argcount - 1 == expected, f"{name}({signature})"
