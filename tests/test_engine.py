"""Engine on real backends: every kind of array, every refusal, and the choice of arithmetic."""

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from signed import save_signed

from runtime import BackendError, Engine, InputError, ModelError
from runtime.backends import CPU_BACKENDS, How, open_runner
from runtime.backends.openvino_runner import MOST_SHAPES, native_bf16
from runtime.files.contract import METADATA_KEY, read_contract
from runtime.pixels.sample_codes import from_unit, to_unit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def window():
    return np.random.default_rng(0).random((1, 5, 24, 40), dtype=np.float32)


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def engine(request, tiny_model):
    with Engine(tiny_model, backend=request.param, precision="fp32") as opened:
        yield opened


def test_an_engine_of_few_cores_is_not_tied_to_the_first(tiny_model, window):
    """Two processes of one thread each, both pinned to the first core, ran at half the speed of one."""
    with Engine(tiny_model, "openvino", "fp32", threads=1) as engine:
        compiled = engine.runner.compiled(window.shape)
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert not compiled.get_property("ENABLE_CPU_PINNING")


def test_sizes_that_take_turns_are_compiled_once_each(tiny_model, monkeypatch):
    with Engine(tiny_model, "openvino", "fp32", threads=1) as engine:
        compiled, compile_for = [], engine.runner._compile
        monkeypatch.setattr(engine.runner, "_compile", lambda model, shape: compiled.append(shape) or compile_for(model, shape))
        for _ in range(2):
            for width in range(16, 16 + 8 * 8, 8):
                engine.run(np.zeros((1, 5, 16, width), np.uint8))
        assert len(compiled) == 8


def test_compiled_sizes_are_few_or_small(tiny_model, monkeypatch):
    with Engine(tiny_model, "openvino", "fp32") as engine:
        runner = engine.runner
        monkeypatch.setattr(runner, "_compile", lambda model, shape: shape)
        for width in range(8, 8 * 101, 8):
            runner.compiled((1, 5, 16, width))
        assert len(runner._compiled) == MOST_SHAPES
        for width in range(1920, 1920 + 80, 8):
            runner.compiled((1, 5, 1080, width))
        assert list(runner._compiled) == [(1, 5, 1080, width) for width in range(1968, 2000, 8)]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_library_that_is_installed_and_does_not_load_is_not_called_missing(tiny_model, tmp_path, backend):
    """An ImportError of its own, as where a shared library lacks; `auto` goes on to the next, and says so."""
    (tmp_path / backend).mkdir()
    (tmp_path / backend / "__init__.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    code = (
        "import sys; from runtime import *\ntry: print(Engine(sys.argv[1], sys.argv[2]).reason)\nexcept DeployError as e: print(e)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}

    def said(asked):
        command = [sys.executable, "-c", code, str(tiny_model), asked]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    broken = (
        f"backend '{backend}' is installed and does not load (libtbb.so.12: cannot open shared object file): pip install --force"
    )
    assert said(backend).startswith(broken)
    if backend == "openvino":
        assert said("auto").startswith(f"onnxruntime fp32: the graph's own types; {broken}")


def with_contract(path, target, **changes):
    """A copy of a model file whose contract says something else."""
    proto = onnx.load(path)
    contract = dataclasses.replace(read_contract(path), **changes)
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    onnx.save(proto, target)
    return target


def test_backends_agree(tiny_model, window):
    with Engine(tiny_model, "openvino", "fp32") as a, Engine(tiny_model, "onnxruntime") as b:
        np.testing.assert_allclose(a.run(window), b.run(window), atol=1e-5)


def test_output_differs_from_input(engine, window):
    assert np.abs(engine.run(window) - window).max() > 1e-3


@pytest.mark.parametrize("size", [(24, 40), (17, 33), (8, 8), (3, 50), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_any_size_and_dtype(engine, size, dtype):
    chance = np.random.default_rng(1)
    window = chance.random((2, 5, *size), np.float32) if dtype == np.float32 else chance.integers(0, 256, (2, 5, *size), dtype)
    before = window.copy()
    sharp = engine.run(window)
    assert sharp.shape == window.shape
    assert sharp.dtype == dtype
    assert sharp.flags.c_contiguous
    np.testing.assert_array_equal(window, before)


def test_result_belongs_to_the_caller(engine, window):
    first = engine.run(window)
    kept = first.copy()
    engine.run(1 - window)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_result_in_the_callers_array(engine, dtype):
    samples = np.random.default_rng(2).random((1, 5, 22, 37))
    given = (samples if dtype == np.float32 else samples * 255).astype(dtype)
    out = np.empty_like(given)
    expected = engine.run(given)
    for call in (engine.run, lambda *window, **how: engine.submit(*window, **how).result(60)):
        out[...] = 0
        assert call(given, out=out) is out
        np.testing.assert_array_equal(out, expected)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda window: [0.0], "got list for the output, expected a plain numpy array"),
        (lambda window: np.ma.zeros(window.shape, np.float32), "got MaskedArray for the output"),
        (
            lambda window: np.empty((1, 5, 24, 32), np.float32),
            r"got an output of \(1, 5, 24, 32\) float32, expected \(1, 5, 24, 40\)",
        ),
        (lambda window: np.empty(window.shape, np.float64), "got an output of .* float64, expected .* float32"),
        (lambda window: np.empty((1, 5, 24, 80), np.float32)[..., ::2], "got an output with gaps or turned axes"),
        (lambda window: read_only(np.empty_like(window)), "got an output that is read-only"),
        (lambda window: window, "got an output that overlaps the window"),
    ],
)
def test_outputs_that_do_not_fit(engine, window, make, message):
    before = window.copy()
    for call in (engine.run, lambda given, out: engine.submit(given, out=out).result(60)):
        with pytest.raises(InputError, match=message):
            call(window, out=make(window))
    np.testing.assert_array_equal(window, before)


def test_a_stream_needs_a_gpu(engine, window):
    for call in (engine.run, lambda given, stream: engine.submit(given, stream=stream).result(60)):
        with pytest.raises(InputError, match="got a stream for a window that is not on a GPU, which has none: leave it out"):
            call(window, stream=0)


def test_windows_of_a_batch_are_independent(engine, window):
    both = np.concatenate([window, 1 - window])
    np.testing.assert_allclose(engine.run(both)[1:], engine.run(1 - window), atol=1e-5)


def test_views_with_strides_are_accepted(engine, window):
    np.testing.assert_allclose(engine.run(window[..., ::-1, ::-1]), engine.run(window[..., ::-1, ::-1].copy()), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(16, 24), (17, 33)])
def test_read_only_and_unaligned_buffers_are_windows(engine, size, dtype):
    """`np.frombuffer` of a request's body, and a memmap that was opened for reading."""
    given = np.random.default_rng(3).integers(0, 2, (1, 5, *size)).astype(dtype)
    for before in (b"", b"x"):
        body = np.frombuffer(before + given.tobytes(), dtype, offset=len(before)).reshape(given.shape)
        assert not body.flags.writeable
        for sharp in (engine.run(body), engine.submit(body).result(60)):
            np.testing.assert_array_equal(sharp, engine.run(given))
            assert sharp.flags.writeable


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (10, np.uint16), (16, np.uint16)])
@pytest.mark.parametrize("color_range", ["full", "limited"])
def test_codes_are_unit_luma_rounded(engine, bits, dtype, color_range):
    codes = np.random.default_rng(2).integers(0, 2**bits, (1, 5, 16, 16)).astype(dtype)
    expected = from_unit(engine.run(to_unit(codes, bits, color_range)), bits, color_range)
    np.testing.assert_array_equal(engine.run(codes, bits, color_range), expected)


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint16, 8), (np.uint8, 10), (np.uint8, 16), (np.uint16, 17), (np.uint8, 0)])
@pytest.mark.parametrize("call", [lambda engine, *given: engine.run(*given), lambda engine, *given: engine.submit(*given).result()])
def test_codes_of_a_depth_that_would_come_back_in_another_dtype_are_refused(engine, dtype, bits, call):
    with pytest.raises(InputError, match=rf"got {dtype.__name__} codes of {bits} bits, expected 8 in uint8, 9 to 16 in uint16: "):
        call(engine, np.ones((1, 5, 16, 16), dtype), bits)


def test_codes_above_their_depth_are_refused(engine):
    window = np.full((1, 5, 16, 24), 1023, np.uint16)
    engine.run(window, bits=10)
    with pytest.raises(InputError, match=r"got codes up to 65472, expected 1023 at most in 10 bits: .* \(P010, P016\) right by 6"):
        engine.run(window << 6, bits=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: w[0], r"got shape \(5, 24, 40\).*window\[None\]"),
        (lambda w: w[:, :4], r"expected \(N, 5, H, W\)"),
        (lambda w: w[..., :0], r"expected \(N, 5, H, W\)"),
        (lambda w: w.astype(np.float64), "got float64, expected float32"),
        (lambda w: np.where(w > 0.5, np.float32(np.nan), w), "got NaN"),
        (lambda w: np.where(w > 0.5, np.float32(np.inf), w), "to inf, expected luma in"),
        (lambda w: w * 255, r"expected luma in \[0, 1\]: divide codes by 255"),
        (lambda w: w.tolist(), "got list, expected a numpy array"),
    ],
)
def test_what_does_not_fit_is_named(engine, window, make, message):
    with pytest.raises(InputError, match=message):
        engine.run(make(window))


def test_closed_engine(tiny_model, window):
    engine = Engine(tiny_model, "onnxruntime")
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="the engine is closed"):
        engine.run(window)


def test_threads_share_an_engine(engine, window):
    expected, results = engine.run(window), []
    threads = [threading.Thread(target=lambda: results.append(engine.run(window))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(result, expected) for result in results)


def test_reason_says_what_and_why(tiny_model):
    with Engine(tiny_model, "openvino", "fp32") as engine:
        assert engine.reason == "openvino fp32: asked for"
        assert "openvino fp32" in repr(engine)


@pytest.mark.parametrize(
    ("parity", "precision", "why"),
    [
        ({"openvino:bf16": 71.5}, "bf16", "71.5 dB against PyTorch, measured at export"),
        ({"openvino:bf16": 41.0}, "fp32", "41.0 dB against PyTorch, measured at export, is under 60 dB"),
        ({}, "fp32", "its parity was not measured"),
    ],
)
@pytest.mark.skipif(not native_bf16(), reason="this CPU has no bf16 arithmetic")
def test_auto_takes_bf16_only_where_it_was_measured(tiny_model, tmp_path, parity, precision, why):
    path = with_contract(tiny_model, tmp_path / "m.onnx", parity=parity)
    with Engine(path) as engine:
        assert (engine.backend, engine.precision) == ("openvino", precision)
        assert why in engine.reason


def test_backend_that_departed_when_the_file_was_made_is_passed_over(tiny_model, tmp_path):
    path = with_contract(
        tiny_model, tmp_path / "m.onnx", precision="int8", parity={"openvino:fp32": 31.0, "onnxruntime:int8": 80.0}
    )
    with Engine(path) as engine:
        assert engine.backend == "onnxruntime"
        assert "openvino reached 31.0 dB when the file was made, expected at least 50" in engine.reason
    with pytest.raises(BackendError, match=r"openvino reached 31\.0 dB"):
        Engine(path, "openvino")


def test_file_that_no_backend_runs_right(tiny_model, tmp_path):
    path = with_contract(tiny_model, tmp_path / "m.onnx", parity={"openvino:fp32": 31.0, "onnxruntime:fp32": 20.0})
    with pytest.raises(BackendError, match="no backend runs this file as it should"):
        Engine(path)


@pytest.mark.skipif(native_bf16(), reason="this CPU has bf16 arithmetic")
def test_bf16_is_refused_where_the_cpu_would_emulate_it(tiny_model):
    with pytest.raises(BackendError, match="no bf16 arithmetic"):
        Engine(tiny_model, "openvino", "bf16")


def test_onnxruntime_offers_no_bf16(tiny_model):
    with pytest.raises(BackendError, match="use backend='openvino'"):
        Engine(tiny_model, "onnxruntime", "bf16")


@pytest.mark.parametrize("option", [{"backend": "cuda"}, {"precision": "fp8"}])
def test_unknown_option(tiny_model, option):
    with pytest.raises(InputError, match="expected one of auto"):
        Engine(tiny_model, **option)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_model_that_the_library_refuses(tiny_model, tmp_path, backend):
    proto = onnx.load(tiny_model)
    proto.graph.node[0].op_type = "Unheard"
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="cannot load"):
        open_runner(tmp_path / "m.onnx", read_contract(tiny_model), How(backend, "fp32"))


def test_file_of_another_kind(tmp_path):
    with pytest.raises(ModelError, match=r"not an \.onnx file"):
        Engine(tmp_path / "m.pth")


def test_size_that_a_fixed_model_refuses(tiny_model, tmp_path, window):
    path = with_contract(tiny_model, tmp_path / "m.onnx", height=24, width=48)
    with Engine(path, "onnxruntime") as engine, pytest.raises(InputError, match="got W = 40"):
        engine.run(window)


def test_nan_from_the_model_is_not_a_black_frame(tiny_model, tmp_path, window):
    proto = onnx.load(tiny_model)
    weights = next(w for w in proto.graph.initializer if len(w.dims) == 4)
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(weights.dims, np.nan, np.float32), weights.name))
    path = save_signed(proto, tmp_path / "m.onnx")
    with Engine(path, "onnxruntime") as engine, pytest.raises(BackendError, match="NaN or infinite"):
        engine.run(window)


SIGNALLED = """
import gc, os, signal, sys
import numpy as np
from runtime import Engine

def opened():
    engine = Engine(sys.argv[1], backend=sys.argv[2], precision="fp32")
    engine.run(np.zeros((1, 5, 16, 16), np.float32))
    return engine

first, second = opened(), opened()
first.close()
del first
gc.collect()
second.close()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_signal_after_two_engines_were_closed_is_handled(tiny_model, backend):
    done = subprocess.run([sys.executable, "-c", SIGNALLED, tiny_model, backend], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_masked_array_is_refused_instead_of_losing_its_mask(engine, window):
    masked = np.ma.masked_array(window, mask=window > 0.5)
    with pytest.raises(InputError, match="got a masked array, expected a plain one: fill it first"):
        engine.run(masked)
    with pytest.raises(InputError, match="masked array"):
        engine.submit(masked).result()
    assert engine.run(masked.filled(0)).shape == window.shape


@pytest.mark.parametrize("threads", [0, -5])
def test_fewer_threads_than_one_are_refused_before_the_model_is_opened(threads):
    with pytest.raises(InputError, match=f"threads is {threads}, expected 1 or more"):
        Engine("no-such-model.onnx", threads=threads)


@pytest.mark.parametrize("path", [None, 5, b"model.onnx", "", True])
def test_what_names_no_file_is_refused_at_once(path):
    with pytest.raises(InputError, match=f"got {path!r} for the model, expected a file's name"):
        Engine(path)
