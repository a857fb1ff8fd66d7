"""A real tritonserver on repositories that `videodeblur to-triton` wrote: equal to the local engine, whatever is sent to it."""

import http.client
import queue
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest
from malformed_requests import MAX_PIXELS, malformed
from signed import save_signed
from triton_server import LOOPBACK, PYTHON, TritonServer, needs_triton
from video_clips import Clip, read, same

from export.graph.sample_code_graph import wrap_sample_codes
from export.to_bundle import BundleRequest, write_bundle
from runtime import BackendError, Engine, InputError, StreamDeblurrer, read_contract
from runtime.backends.triton_runner import REFUSED
from runtime.deblur_video import main as run_command
from serving.triton_server.config import graph_config
from serving.triton_server.host import Hosting
from serving.triton_server.options import TritonOptions
from serving.triton_server.repository import write_repository
from serving.triton_server.source import onnx_source

pytestmark = needs_triton

EXACT = Hosting("", precision="fp32", threads=1, max_pixels=MAX_PIXELS)
MALFORMED = 100  # requests


@pytest.fixture(scope="module")
def bundle(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    write_bundle(BundleRequest(tiny_model, (), folder / "tiny.bundle"))
    return folder / "tiny.bundle"


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    """Windows and streams; and `narrow`, with a queue for one window."""
    folder = tmp_path_factory.mktemp("server")
    write_repository(TritonOptions(bundle, folder / "repo", hosting=replace(EXACT, warm_up=((16, 24),))))
    narrow = TritonOptions(bundle, folder / "narrow", name="narrow", max_batch=1, queue_size=1, streams=0, hosting=EXACT)
    write_repository(narrow)
    (folder / "narrow" / "narrow").rename(folder / "repo" / "narrow")
    with TritonServer(folder / "repo", folder / "run") as running:
        assert running.process.poll() is None, running.log()
        yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def local(bundle):
    with Engine(bundle, precision="fp32", threads=1) as engine:
        yield engine


@pytest.fixture
def grpc(server):
    from tritonclient import grpc

    with grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as client:
        yield client


def windows(count, *shape, seed=0):
    chance = np.random.default_rng(seed)
    return [chance.integers(0, 256, shape or (1, 5, 16, 24), dtype=np.uint8) for _ in range(count)]


def tensor(name, array):
    from tritonclient import grpc

    given = grpc.InferInput(name, list(array.shape), {"uint8": "UINT8", "float32": "FP32"}[array.dtype.name])
    given.set_data_from_numpy(array)
    return given


def flood(client, model, arrays):
    """Sends all at once. Returns the results or errors, in order."""
    answers = [queue.Queue() for _ in arrays]
    for array, answer in zip(arrays, answers):
        kind = "u8" if array.dtype == np.uint8 else "f32"
        client.async_infer(
            model, [tensor(f"blurry_{kind}", array)], lambda result, error, answer=answer: answer.put(error or result)
        )
    return [answer.get(timeout=60) for answer in answers]


def counted(server, name):
    """The value of a metric of the model of windows, at the server's own address."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{server.ports.metrics}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith(name + "{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'model="videodeblur"' in line)


def test_the_server_counts_what_the_engine_does(server):
    names = ("deblur_frames_total", "deblur_window_seconds_count", "deblur_refused_total", "deblur_failures_total")
    before = [counted(server, name) for name in names]
    with Engine(f"{server.grpc}/videodeblur") as engine:
        probed = [counted(server, name) - old for name, old in zip(names, before)]
        for window in windows(2):
            engine.run(window)
        with pytest.raises(InputError):
            engine.run(np.zeros((1, 5, 4096, 4096), np.uint8))
    after = [counted(server, name) - old for name, old in zip(names, before)]
    assert [late - early for late, early in zip(after, probed)] == [10, 2, 1, 0]
    assert counted(server, "deblur_engine_info") == 1
    assert counted(server, "deblur_window_seconds_bucket") >= 2


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_served_windows_equal_local_ones(server, local, protocol):
    codes, unit = windows(1, 1, 5, 21, 35)[0], np.random.default_rng(1).random((2, 5, 21, 35), np.float32)
    asked = [
        (unit, {}),
        (codes, {}),
        (codes, {"color_range": "limited"}),
        (codes.astype(np.uint16) * 4, {"bits": 10, "color_range": "limited"}),
    ]
    with Engine(f"{getattr(server, protocol)}/videodeblur") as engine:
        assert engine.contract == local.contract
        assert (engine.backend, engine.precision) == ("triton", "fp32")
        assert "which runs openvino fp32: tiny.onnx is within" in engine.reason
        for window, meaning in asked:
            assert np.array_equal(engine.run(window, **meaning), local.run(window, **meaning))
            assert np.array_equal(engine.submit(window, **meaning).result(), local.run(window, **meaning))
        with pytest.raises(InputError, match="got 65x64 pixels, this server takes 1 to 4096 of a frame: send tiles"):
            engine.run(np.zeros((1, 5, 64, 65), np.uint8))
        with pytest.raises(InputError, match="color_range is 'wide'"):
            engine.run(codes, color_range="wide")
        for _ in range(2):
            engine.close()
        with pytest.raises(BackendError, match="the engine is closed"):
            engine.run(codes)


def test_windows_are_batched(server, grpc, local):
    given, before = windows(24), counts(grpc)
    answers = flood(grpc, "videodeblur", given)
    end = time.monotonic() + 10
    while counts(grpc)[0] - before[0] < len(given):  # they are counted after they are answered
        assert time.monotonic() < end
        time.sleep(0.05)
    inferences, executions = np.subtract(counts(grpc), before)
    assert executions < inferences == len(given)
    assert max(row.batch_size for row in grpc.get_inference_statistics("videodeblur").model_stats[0].batch_stats) > 1
    for window, answer in zip(given, answers):
        assert np.abs(answer.as_numpy("sharp_u8").astype(int) - local.run(window)).max() <= 1


def counts(grpc):
    told = grpc.get_inference_statistics("videodeblur").model_stats[0]
    return told.inference_count, told.execution_count


def test_window_is_not_spoilt_by_its_neighbours(server, grpc, local):
    unit = [local.run(window).astype(np.float32) / 255 for window in windows(12)]
    broken = [np.full_like(window, np.nan) if number % 3 == 1 else window for number, window in enumerate(unit)]
    for number, (window, answer) in enumerate(zip(unit, flood(grpc, "videodeblur", broken))):
        if number % 3 == 1:
            assert "got NaN in the window" in answer.message()
            assert answer.status() in REFUSED
        else:
            assert np.abs(answer.as_numpy("sharp_f32") - local.run(window)).max() < 1e-5


def test_malformed_requests_leave_the_server_healthy(server, grpc, local):
    stubs = children(server)
    for seed in range(MALFORMED):
        kind, first, second = malformed(seed)
        said = send_bytes(server, first, second) if kind == "bytes" else send_tensors(server, grpc, seed, first, second)
        assert said, f"request {seed} was answered"
    assert server.ready()
    assert children(server) == stubs, "a stub died"
    with Engine(f"{server.grpc}/videodeblur") as engine:
        (window,) = windows(1)
        assert np.array_equal(engine.run(window), local.run(window))


def children(server):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=True)
    return found.stdout.split()


def send_tensors(server, grpc, seed, tensors, parameters):
    """The reason for which the server refused, over gRPC or HTTP."""
    import tritonclient.grpc
    import tritonclient.http
    from tritonclient.utils import InferenceServerException

    module = (tritonclient.grpc, tritonclient.http)[seed % 2]
    inputs = []
    for name, (shape, kind, data) in tensors.items():
        inputs.append(module.InferInput(name, shape, kind))
        inputs[-1]._raw_content = inputs[-1]._raw_data = data  # set_data_from_numpy would refuse
        if seed % 2:
            inputs[-1]._parameters["binary_data_size"] = len(data)
    try:
        if seed % 2 == 0:
            grpc.infer("videodeblur", inputs, parameters=parameters)
            return None
        with module.InferenceServerClient(server.http.removeprefix("http://")) as client:
            client.infer("videodeblur", inputs, parameters=parameters)
            return None
    except InferenceServerException as error:
        return error.message()


def send_bytes(server, headers, body):
    connection = http.client.HTTPConnection(LOOPBACK, server.ports.http, timeout=30)
    try:
        connection.request("POST", "/v2/models/videodeblur/infer", body, headers)
        answer = connection.getresponse()
        return answer.read() if answer.status >= 400 else None
    finally:
        connection.close()


class StreamClient:
    """Sends frames of several streams over one gRPC stream, and sorts what comes back."""

    def __init__(self, client):
        self._client, self._answers = client, queue.Queue()
        client.start_stream(lambda result, error: self._answers.put((result, error)))

    def send(self, key, frame, start=False, end=False, **parameters):
        """Returns the frames that became final, or the error's text."""
        inputs = [] if frame is None else [tensor("frame_u8" if frame.dtype == np.uint8 else "frame_f32", frame)]
        self._client.async_stream_infer(
            "videodeblur_stream",
            inputs,
            sequence_id=key,
            sequence_start=start,
            sequence_end=end,
            enable_empty_final_response=True,
            parameters=parameters or None,
        )
        frames, failure = [], None
        while True:
            result, error = self._answers.get(timeout=30)
            if error is not None:
                failure = error.message()
                if "must specify the START flag" in failure:  # of Triton itself, which ends there
                    return failure
                continue
            response = result.get_response()
            if response.outputs:
                frames.append(result.as_numpy("sharp_u8" if frame is None or frame.dtype == np.uint8 else "sharp_f32"))
            if response.parameters["triton_final_response"].bool_param:
                return failure or frames


def test_two_streams_at_once(grpc, local):
    chance = np.random.default_rng(3)
    left, right = (
        [chance.integers(0, 256, size, dtype=np.uint8) for _ in range(count)] for size, count in (((16, 24), 12), ((18, 10), 8))
    )
    streams = StreamClient(grpc)
    sharp = {7: [], 9: []}
    for number in range(12):
        sharp[7] += streams.send(7, left[number], number == 0, number == 11, stride=3, color_range="limited")
        if number < 8:
            sharp[9] += streams.send(9, right[number], number == 0)
    sharp[9] += streams.send(9, None, end=True)
    for key, frames, options in ((7, left, {"stride": 3, "color_range": "limited"}), (9, right, {})):
        stream = StreamDeblurrer(local, **options)
        expected = [each for frame in frames for each in stream.push(frame)] + stream.flush()
        assert len(sharp[key]) == len(frames)
        assert all(np.array_equal(got, want) for got, want in zip(sharp[key], expected))


def test_stream_goes_on_after_a_frame_that_is_none(grpc, local):
    frames = np.random.default_rng(4).random((5, 16, 24)).astype(np.float32)
    streams = StreamClient(grpc)
    assert "must specify the START flag" in streams.send(20, frames[0])
    sharp = []
    for number, frame in enumerate(frames):
        assert "NaN" in streams.send(21, np.full_like(frame, np.nan), start=number == 0)
        assert "got 0x0 pixels" in streams.send(21, frame[:0, :0])
        sharp += streams.send(21, frame, end=number == 4)
    assert np.array_equal(sharp, local.run(frames[None])[0])
    assert "stride is 9" in streams.send(22, frames[0], start=True, stride=9)
    assert "there is no stream 22" in streams.send(22, frames[0], end=True)
    assert streams.send(23, frames[0], start=True) == []
    assert "got a frame (8, 24) float32 after (16, 24) float32" in streams.send(23, frames[0, :8])
    assert "there is no stream 23" in streams.send(23, None, end=True)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_video_command_equals_the_local_run(server, bundle, tmp_path, protocol, capsys):
    clip = Clip().write(tmp_path / "in.mp4")
    lossless = ["-e", "qp=0", "-e", "preset=ultrafast", "--scene-thresh", "0", "--tile", "0"]
    served = ["--server", f"{getattr(server, protocol)}/"]
    assert run_command([str(clip), str(tmp_path / "served.mp4"), *lossless, *served]) == 0
    assert "triton fp32" in capsys.readouterr().out
    local = ["--model", str(bundle), "--precision", "fp32", "--threads", "1"]
    assert run_command([str(clip), str(tmp_path / "local.mp4"), *lossless, *local]) == 0
    left, right = read(tmp_path / "served.mp4"), read(tmp_path / "local.mp4")
    assert same(left.luma, right.luma)
    assert not same(left.luma, read(clip).luma)


def test_full_queue_is_waited_for(server, grpc, local):
    """Raw requests are refused; engines ask again until there is room."""
    refused = [answer for answer in flood(grpc, "narrow", windows(12, 1, 5, 64, 64)) if not hasattr(answer, "as_numpy")]
    assert refused
    assert all("Exceeds maximum queue size" in error.message() for error in refused)
    given = windows(4, 1, 5, 64, 64)

    def ask(window):
        with Engine(f"{server.grpc}/narrow") as engine:
            barrier.wait()
            return engine.run(window)

    barrier = threading.Barrier(len(given))
    with ThreadPoolExecutor(len(given)) as pool:
        for window, sharp in zip(given, pool.map(ask, given)):
            assert np.array_equal(sharp, local.run(window))


def test_what_is_not_there(server):
    with pytest.raises(BackendError, match=r"nope on .*: Request for unknown model: 'nope' is not found"):
        Engine(f"{server.grpc}/nope")
    for address in (server.grpc, server.http):
        with pytest.raises(InputError, match="takes streams of frames, expected the model of windows"):
            Engine(f"{address}/videodeblur_stream")
    with pytest.raises(InputError, match="runs as its server was told: leave out backend"):
        Engine(f"{server.grpc}/videodeblur", threads=2)


def test_changed_bundle_is_not_served(bundle, tmp_path):
    options = TritonOptions(bundle, tmp_path / "repo", streams=0, hosting=EXACT)
    write_repository(options)
    with (tmp_path / "repo" / "videodeblur" / "1" / "model.bundle" / "tiny.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    with TritonServer(options.repository, tmp_path / "run") as stopped:
        assert stopped.process.wait() == 1
        assert "tiny.onnx was changed: its sha256 is" in stopped.log()


@pytest.mark.skipif(int(np.__version__[0]) < 2, reason="needs numpy 2 in the tests' own environment")
def test_numpy_2_is_refused(bundle, tmp_path):
    minor = subprocess.run([PYTHON, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=True)
    if minor.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip("the server has another Python than the tests")
    options = TritonOptions(bundle, tmp_path / "repo", streams=0, hosting=EXACT)
    write_repository(options)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    with TritonServer(options.repository, tmp_path / "run", environment={"PYTHONPATH": ours}) as stopped:
        assert stopped.process.wait() == 1
        assert "was built for numpy 1 and would answer with empty tensors, numpy is 2." in stopped.log()


STAND_IN = """
import os
import sys

sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        windows = [pb_utils.get_input_tensor_by_name(request, "blurry").as_numpy() for request in requests]
        answers = [self._session.run(["sharp"], {"blurry": window})[0] for window in windows]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("sharp", answer)]) for answer in answers]
"""


@pytest.mark.parametrize("io", ["f32", "u8", "u16"])
def test_graphs_alone_with_a_stand_in_for_tritons_backend(tiny_model, tmp_path, io):
    """The config, the wire and the client are the real ones; the backend is ONNX Runtime in Python, named as Triton's."""
    model = tiny_model if io == "f32" else codes_model(tiny_model, tmp_path / f"{io}.onnx", io)
    write_repository(TritonOptions(model, tmp_path / "repo", backend="onnxruntime"))
    running = TritonServer(tmp_path / "repo", tmp_path / "run")
    (tmp_path / "run" / "backends" / "onnxruntime").mkdir()
    (tmp_path / "run" / "backends" / "onnxruntime" / "model.py").write_text(STAND_IN)
    (codes,) = windows(1, 2, 5, 21, 35)
    given = {"f32": [codes, codes.astype(np.float32) / 255], "u8": [codes], "u16": [codes.astype(np.uint16) * 4]}[io]
    with running, Engine(model, "onnxruntime", "fp32") as local:
        assert running.process.poll() is None, running.log()
        for address in (running.grpc, running.http):
            with Engine(f"{address}/videodeblur") as engine:
                assert engine.contract == local.contract
                assert (engine.precision, engine.reason.split()[-3:]) == ("fp32", ["Triton's", "onnxruntime", "backend"])
                for window in given:
                    sharp, expected = engine.run(window), local.run(window)
                    assert sharp.dtype == expected.dtype
                    assert np.abs(sharp.astype(float) - expected).max() <= (1e-6 if window.dtype == np.float32 else 0)


def codes_model(tiny_model, path, io):
    """The tiny network with the conversion of codes in its graph."""
    proto, bits = onnx.load(tiny_model), {"u8": 8, "u16": 10}[io]
    wrapped = wrap_sample_codes(proto, io, bits, "full", read_contract(tiny_model).multiple)
    return save_signed(wrapped, path, io=io, bits=bits, color_range="full")


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_other_backends_configs_are_understood(tiny_model, tmp_path, backend):
    """The wheel lacks these backends: that is all that the server finds wrong."""
    options = TritonOptions(tiny_model, tmp_path / "repo", backend="onnxruntime")
    write_repository(options)
    text = graph_config(replace(options, backend=backend), onnx_source(tiny_model)).replace("KIND_GPU", "KIND_CPU")
    (tmp_path / "repo" / "videodeblur" / "config.pbtxt").write_text(text)
    if backend == "tensorrt":
        shutil.copy(tiny_model, tmp_path / "repo" / "videodeblur" / "1" / "model.plan")
    with TritonServer(options.repository, tmp_path / "run") as stopped:
        assert stopped.process.wait() == 1
        assert f"unable to find backend library for backend '{backend}'" in stopped.log()
