"""The TensorRT runner and its CUDA memory: up to the driver on any machine, the rest on one with a GPU (marked gpu)."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cuda.bindings import driver

from runtime import BackendError, Engine, InputError, ModelError
from runtime.backends.device_arrays import DeviceArray
from runtime.backends.device_memory import (
    DRIVER_LIBRARY,
    DeviceBuffer,
    Event,
    Graph,
    PinnedArray,
    Stream,
    callers_stream,
    check_place,
    free_memory,
    on_gpu,
    open_gpu,
)
from runtime.backends.runner import IN_FLIGHT
from runtime.backends.tensorrt_engine import LoadedEngine
from runtime.backends.tensorrt_library import load_library
from runtime.backends.tensorrt_runner import TensorRtRunner
from runtime.files.engine_record import read_engine, record_path

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (1, 5, 64, 96)
OWN_KERNELS = ("-CUBLAS", "-CUBLAS_LT", "-CUDNN")  # which the wheel of 8.6 wants and does not bring, and later versions have not

try:
    open_gpu()
except BackendError:
    HAS_GPU = False
else:
    HAS_GPU = True
without_gpu = pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")


def test_array_on_the_gpu_and_a_backend_of_the_cpu(tiny_model):
    with Engine(tiny_model, "onnxruntime") as engine, pytest.raises(InputError, match="takes numpy arrays: open a TensorRT engine"):
        engine.run(elsewhere())


@without_gpu
def test_no_driver_is_told_before_anything_is_loaded(tiny_engine):
    with pytest.raises(BackendError, match=rf"no NVIDIA driver on this machine \({DRIVER_LIBRARY} is missing\)"):
        Engine(tiny_engine)


@without_gpu
def test_lean_runtime_is_not_asked_without_a_driver(tiny_engine, tmp_path):
    """It would end the process: deserialising without a driver is a segmentation fault in tensorrt_lean 11.4."""
    path = tmp_path / "lasting.engine"
    path.write_bytes(tiny_engine.read_bytes())
    record = json.loads(record_path(tiny_engine).read_text())
    record.update(library="tensorrt", version="11.4.0.106", version_compatible=True)
    record_path(path).write_text(json.dumps(record))
    code = f"from runtime import Engine\ntry:\n    Engine({str(path)!r})\nexcept Exception as error:\n    print(error)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0
    assert "no NVIDIA driver" in found.stdout


@without_gpu
def test_rtx_judges_the_header_before_it_loads(tiny_engine):
    with pytest.raises(BackendError, match=r"TensorRT-RTX says that .* does not run on this GPU or release"):
        LoadedEngine(load_library("tensorrt_rtx"), tiny_engine, *read_engine(tiny_engine))


@without_gpu
@pytest.mark.parametrize(
    "make",
    [
        lambda: DeviceBuffer(1024),
        lambda: PinnedArray((2, 3), np.float16),
        Stream,
        Event,
    ],
)
def test_cuda_takes_our_arguments_and_misses_its_driver(make):
    with pytest.raises(BackendError, match=r"CUDA failed while .*: cudaErrorInsufficientDriver, .*: this needs an NVIDIA GPU"):
        make()


def without_handle(kind, **attributes):
    """One of our objects as if CUDA had made its handle, which without a driver nothing looks into."""
    made = object.__new__(kind)
    vars(made).update(attributes)
    return made


STREAM, EVENT, MARKED = without_handle(Stream, handle=0), without_handle(Event, handle=0), without_handle(Event, handle=1)
ARRAY = np.zeros(256, np.float32)


@without_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda: STREAM.copy_in(256, ARRAY),
        lambda: STREAM.copy_out(ARRAY, 256),
        lambda: STREAM.fill(256, 0xFF, 1024),
        lambda: STREAM.wait_for(EVENT),
        STREAM.synchronize,
        lambda: EVENT.record(STREAM),
        MARKED.synchronize,
        lambda: Graph(STREAM, lambda: None),
        lambda: without_handle(Graph, _executable=0).launch(STREAM),
        free_memory,
        lambda: check_place(512, None),
    ],
)
def test_cuda_takes_the_arguments_of_every_call(call):
    with pytest.raises(BackendError, match="cudaErrorInsufficientDriver"):
        call()


@without_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(0),
        lambda: driver.cuDevicePrimaryCtxRetain(driver.CUdevice(0)),
        driver.cuCtxGetCurrent,
        lambda: driver.cuCtxSetCurrent(driver.CUcontext(256)),
        lambda: driver.cuCtxSetCurrent(256),
        lambda: driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT, 256),
        lambda: callers_stream(256, None),
    ],
)
def test_the_driver_takes_the_arguments_of_every_call(call):
    """It is looked for after they were: a wrong one would be a TypeError."""
    with pytest.raises(RuntimeError, match=r"driver library|dlopen"):
        call()


@dataclasses.dataclass
class Elsewhere:
    """Memory that another library says it holds."""

    __cuda_array_interface__: dict


def elsewhere(**changes):
    return Elsewhere({"shape": (2, 3), "typestr": "<f4", "data": (512, False), "version": 3, **changes})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([1.0], "got list, expected a numpy array, or one on the GPU"),
        (elsewhere(strides=(4, 8)), r"strides \(4, 8\), expected it C-contiguous"),
        (elsewhere(data=(516, False)), "not a multiple of 256: copy it first"),
    ],
)
def test_arrays_that_cannot_be_read_in_place(array, message):
    with pytest.raises(InputError, match=message):
        DeviceArray.of(array)


def test_array_interface_is_that_of_the_memory():
    found = DeviceArray(4096, (2, 3), np.dtype(np.float16), None).__cuda_array_interface__
    assert found == {"shape": (2, 3), "typestr": "<f2", "data": (4096, False), "strides": None, "version": 3, "stream": None}


# From here on with a GPU: full TensorRT where it is installed, else TensorRT-RTX


def installed():
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError):
            continue
        return name
    pytest.skip("neither tensorrt nor tensorrt_rtx is installed")


@pytest.fixture(scope="module")
def engine(tiny_model, tmp_path_factory):
    """Built on this machine, in exact fp32."""
    from export.engine.request import EngineRequest
    from export.make_engine import make_engine
    from runtime.files.engine_record import Profile

    dynamic = Profile((1, 5, 64, 64), SHAPE, (2, 5, 128, 128))
    path = tmp_path_factory.mktemp("gpu") / "tiny.engine"
    request = EngineRequest(tiny_model, path, installed(), (dynamic,), tf32=False, tactic_sources=OWN_KERNELS)
    return make_engine(request).engine


@pytest.fixture
def runner(engine):
    opened = TensorRtRunner(engine)
    yield opened
    opened.close()


def windows(count, shape=SHAPE):
    return list(np.random.default_rng(0).random((count, *shape), np.float32))


def reference(tiny_model, window):
    """ONNX Runtime's result; on a machine without it, that of the file which VIDEODEBLUR_TINY_RESULT names."""
    if given := os.environ.get("VIDEODEBLUR_TINY_RESULT"):
        return np.load(given)
    with Engine(tiny_model, "onnxruntime", "fp32") as opened:
        return opened.run(window)


@pytest.mark.gpu
def test_full_tensorrt_keeps_its_timings(tiny_model, tmp_path):
    pytest.importorskip("tensorrt", reason="full TensorRT is not installed")
    from export.engine.builder import build_engine
    from export.engine.request import EngineRequest
    from runtime.files.engine_record import Profile

    cache = tmp_path / "timings"
    fixed = (Profile(SHAPE, SHAPE, SHAPE),)
    path = tmp_path / "tiny.engine"
    options = EngineRequest(tiny_model, path, "tensorrt", fixed, timing_cache=cache, tactic_sources=OWN_KERNELS)
    first = build_engine(options)
    size = cache.stat().st_size
    second = build_engine(options)
    assert second.seconds < first.seconds
    assert cache.stat().st_size >= size
    assert "Layers" in first.layer_log


@pytest.mark.gpu
def test_it_is_the_network(runner, tiny_model):
    (window,) = windows(1)
    np.testing.assert_allclose(runner.run(window), reference(tiny_model, window), atol=1e-4)


@pytest.mark.gpu
def test_graphs_and_plain_launches_agree(engine, runner):
    plain = TensorRtRunner(engine, cuda_graph=False)
    for window in windows(4):
        np.testing.assert_array_equal(runner.run(window), plain.run(window))
    plain.close()


@pytest.mark.gpu
def test_graphs_are_really_in_use(runner):
    if hasattr(runner._loaded.library.module, "CudaGraphStrategy"):
        pytest.skip("TensorRT-RTX records by itself")
    tickets = [runner.submit(window) for window in windows(IN_FLIGHT)]
    for ticket in tickets:
        runner.result(ticket)
    (ring,) = runner._rings.values()
    assert all(slot.binding(runner._bindings).graph is not None for slot in ring.slots)


@pytest.mark.gpu
def test_windows_in_flight_keep_their_order(runner):
    inputs = windows(8)
    alone = [runner.run(window) for window in inputs]
    tickets, found = [runner.submit(inputs[0])], []
    for window in inputs[1:]:
        tickets.append(runner.submit(window))
        found.append(runner.result(tickets.pop(0)))
    found.append(runner.result(tickets.pop(0)))
    np.testing.assert_array_equal(found, alone)


@pytest.mark.gpu
def test_no_more_windows_than_buffers(runner):
    tickets = [runner.submit(window) for window in windows(IN_FLIGHT)]
    with pytest.raises(BackendError, match="take a result before submitting another"):
        runner.submit(windows(1)[0])
    for ticket in tickets:
        runner.result(ticket)
    with pytest.raises(BackendError, match="already taken"):
        runner.result(tickets[0])


@pytest.mark.gpu
def test_shapes_of_one_profile_do_not_disturb_each_other(engine, runner):
    shapes = [SHAPE, (1, 5, 64, 64)]
    for _ in range(3):  # computed and recorded, then replayed, then replayed again after the other
        for shape in shapes:
            (window,) = windows(1, shape)
            alone = TensorRtRunner(engine, cuda_graph=False)
            np.testing.assert_array_equal(runner.run(window), alone.run(window))
            alone.close()


@pytest.mark.gpu
def test_every_profile_of_an_engine(tiny_model, tmp_path):
    from export.engine.request import EngineRequest
    from export.make_engine import make_engine
    from runtime.files.engine_record import Profile

    shapes = [SHAPE, (1, 5, 64, 64)]
    profiles = tuple(Profile(shape, shape, shape) for shape in shapes)
    path = tmp_path / "two.engine"
    request = EngineRequest(tiny_model, path, installed(), profiles, tf32=False, tactic_sources=OWN_KERNELS)
    opened = TensorRtRunner(make_engine(request).engine)
    for shape in reversed(shapes):
        (window,) = windows(1, shape)
        first = opened.run(window)
        assert np.ptp(first) > 0.1
        np.testing.assert_array_equal(opened.run(window), first)
    opened.close()


@pytest.mark.gpu
def test_replay_that_does_nothing_is_seen_whatever_the_picture(engine, monkeypatch, caplog):
    monkeypatch.setattr(Graph, "launch", lambda graph, stream: None)
    opened = TensorRtRunner(engine)
    if hasattr(opened._loaded.library.module, "CudaGraphStrategy"):
        pytest.skip("TensorRT-RTX records by itself")
    for window in (np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)):
        assert np.isfinite(opened.run(window)).all()
    assert "CUDA graphs are off" in caplog.text
    opened.close()


@pytest.mark.gpu
def test_shapes_take_turns(runner, tiny_model):
    shapes = [SHAPE, (1, 5, 64, 64), (2, 5, 128, 128), SHAPE]
    for shape in shapes:
        (window,) = windows(1, shape)
        assert runner.run(window).shape == shape
    with pytest.raises(InputError, match="build one for this size"):
        runner.run(windows(1, (1, 5, 256, 256))[0])


@pytest.mark.gpu
def test_array_on_the_gpu_is_read_in_place(runner):
    (window,) = windows(1)
    expected = runner.run(window)
    with on_gpu(runner.gpu):
        pinned, buffer, stream = PinnedArray(SHAPE, np.float32), DeviceBuffer(window.nbytes), Stream()
        pinned.array[:] = window
        stream.copy_in(buffer.pointer, pinned.array)
        stream.synchronize()
        sharp = runner.run(DeviceArray(buffer.pointer, SHAPE, np.dtype(np.float32), buffer))
        stream.copy_out(pinned.array, sharp.pointer)
        stream.synchronize()
        np.testing.assert_array_equal(pinned.array, expected)
        for owner in (pinned, buffer, stream):
            owner.close()
            owner.close()


@pytest.mark.gpu
def test_tensors_of_pytorch_on_a_stream_of_its_own(engine):
    """Many windows in buffers that are used again, without a wait of the host between them; CUDA graphs come in on the way."""
    torch = pytest.importorskip("torch")
    inputs = windows(12)
    with Engine(engine) as opened:
        expected = [opened.run(window) for window in inputs]
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            window = torch.empty(SHAPE, device="cuda")
            out, found = torch.empty_like(window), []
            for number, given in enumerate(inputs):
                window.copy_(torch.from_numpy(given).pin_memory(), non_blocking=True)
                if number % 3 == 0:
                    sharp = opened.run(window, out=out, stream=stream)
                elif number % 3 == 1:
                    sharp = torch.from_dlpack(opened.run(window, stream=stream))
                else:
                    sharp = torch.from_dlpack(opened.submit(window, stream=stream).result(60))
                found.append(sharp.clone())
        stream.synchronize()
        np.testing.assert_array_equal(torch.stack(found).cpu().numpy(), expected)
        with torch.cuda.stream(stream):
            window.copy_(torch.from_numpy(inputs[0]))
            alone = opened.run(window)
        np.testing.assert_array_equal(torch.as_tensor(alone, device="cuda").cpu().numpy(), expected[0])
        with pytest.raises(InputError, match="overlaps the window"):
            opened.run(window, out=window)


@pytest.mark.gpu
def test_a_stream_costs_no_memory_and_no_wait(engine):
    torch = pytest.importorskip("torch")
    with Engine(engine) as opened:
        stream, window = torch.cuda.Stream(), torch.zeros(SHAPE, device="cuda")
        torch.cuda.synchronize()
        for _ in range(3):
            opened.run(window, stream=stream)
        stream.synchronize()
        before = torch.cuda.mem_get_info()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(1_000_000_000)  # cycles: what the host would wait for
        for _ in range(20):
            opened.run(window, stream=stream)
        assert not stream.query()
        stream.synchronize()
        assert torch.cuda.mem_get_info() == before


PYCUDA = """
import sys
import numpy as np
import pycuda.{context}
import pycuda.driver as cuda
import pycuda.gpuarray as gpuarray
from runtime import Engine, InputError

engine, given = Engine(sys.argv[1]), np.load(sys.argv[2])
window, stream = gpuarray.to_gpu(given), cuda.Stream()
for how in ({{}}, {{"stream": stream}}, {{"out": gpuarray.empty(given.shape, given.dtype), "stream": stream}}):
    try:
        sharp = engine.run(window, **how)
    except InputError as error:
        print(error)
        continue
    stream.synchronize()
    if "out" in how:
        np.save(sys.argv[3], sharp.get())
    assert (cuda.Context.get_current() is not None) and float((window + 0).get().sum()) == float(given.sum())
engine.close()
print((window * 2).get().shape)
"""


@pytest.mark.gpu
@pytest.mark.parametrize("context", ["autoprimaryctx", "autoinit"])
def test_a_program_of_pycuda(context, engine, runner, tmp_path):
    pytest.importorskip("pycuda")
    (window,) = windows(1)
    np.save(tmp_path / "window.npy", window)
    command = [sys.executable, "-c", PYCUDA.format(context=context), str(engine), tmp_path / "window.npy", tmp_path / "sharp.npy"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert str(SHAPE) in found.stdout  # the program's own work goes on
    if context == "autoinit":
        assert found.stdout.count("take the GPU's primary context: import pycuda.autoprimaryctx") == 3
    else:
        np.testing.assert_array_equal(np.load(tmp_path / "sharp.npy"), runner.run(window))


@pytest.mark.gpu
def test_the_example_of_the_page_with_pycuda(engine, runner, tmp_path):
    pytest.importorskip("pycuda")
    page = (ROOT / "docs" / "engines.md").read_text()
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "pycuda" in code]
    inputs = windows(4)
    np.save(tmp_path / "windows.npy", inputs)
    example = example.replace("(1, 5, 720, 1280)", str(SHAPE)).replace("m.engine", str(engine))
    before = f"import numpy\nwindows, shown = numpy.load({str(tmp_path / 'windows.npy')!r}), []\n"
    before += "show = lambda found: shown.append(found.copy())\n"
    after = f"\nnumpy.save({str(tmp_path / 'shown.npy')!r}, shown)\n"
    found = subprocess.run([sys.executable, "-c", before + example + after], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "shown.npy"), [runner.run(window) for window in inputs])


@pytest.mark.gpu
def test_other_thread(runner):
    (window,) = windows(1)
    expected, found = runner.run(window), []
    thread = threading.Thread(target=lambda: found.append(runner.run(window)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.gpu
def test_wrong_type_and_closed(runner):
    with pytest.raises(InputError, match="got float64, this engine takes float32"):
        runner.run(np.zeros(SHAPE))
    runner.close()
    runner.close()
    with pytest.raises(BackendError, match="the runner is closed"):
        runner.run(windows(1)[0])


@pytest.mark.gpu
def test_out_of_memory_has_a_remedy():
    with on_gpu(open_gpu()), pytest.raises(BackendError, match=r"cudaErrorMemoryAllocation.*use smaller frames"):
        DeviceBuffer(1 << 50)


@pytest.mark.gpu
def test_damaged_engine_with_a_record_that_vouches_for_it(engine, tmp_path):
    from runtime.files.on_disk import file_sha256

    path = tmp_path / "damaged.engine"
    data = bytearray(engine.read_bytes())
    data[:64] = bytes(64)
    path.write_bytes(data)
    record = json.loads(record_path(engine).read_text())
    record_path(path).write_text(json.dumps({**record, "sha256": file_sha256(path)}))
    with pytest.raises((ModelError, BackendError)):
        TensorRtRunner(path)


@pytest.mark.gpu
def test_onnx_runtime_on_cuda(tiny_model):
    pytest.importorskip("onnxruntime")
    (window,) = windows(1)
    with Engine(tiny_model, "onnxruntime-cuda", "fp32") as opened:
        first, second = opened.run(window), opened.run(window)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, reference(tiny_model, window), atol=1e-4)


@without_gpu
def test_onnx_runtime_on_cuda_without_a_gpu(tiny_model):
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        Engine(tiny_model, "onnxruntime-cuda")
