"""What runs inside a model server, without the server: a real engine, requests as arrays, streams of frames."""

import json
from dataclasses import replace

import numpy as np
import pytest

from runtime import BackendError, Engine, InputError, ModelError, StreamDeblurrer
from serving.triton_server.config import stream_config, window_config
from serving.triton_server.host import THIS_PROGRAM, HostedEngine, Hosting, check_numpy
from serving.triton_server.options import TritonOptions
from serving.triton_server.requests import Parameters, WindowRequest, answer, read_parameters, read_window
from serving.triton_server.source import engine_source
from serving.triton_server.streams import Streams

SIZE = (16, 24)


def arguments(tiny_model, contract=None, **hosting):
    """As Triton's python backend gives them to `initialize`."""
    told = Hosting(tiny_model.name, "onnxruntime", "fp32", 1, 4096, **hosting)
    contract = contract or engine_source(tiny_model).contract
    parameters = {name: {"string_value": value.to_json()} for name, value in (("contract", contract), ("hosting", told))}
    return {
        "model_config": json.dumps({"parameters": parameters}),
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }


@pytest.fixture(scope="module")
def host(tiny_model):
    host = HostedEngine(tiny_model.parent, arguments(tiny_model, warm_up=(SIZE,), idle=10.0))
    yield host
    host.close()


@pytest.fixture(scope="module")
def local(tiny_model):
    with Engine(tiny_model, "onnxruntime", "fp32", 1) as engine:
        yield engine


def unit(seed, *shape):
    return np.random.default_rng(seed).random(shape or (1, 5, *SIZE), np.float32)


def codes(seed, *shape):
    return (255 * unit(seed, *shape)).astype(np.uint8)


def test_engine_is_opened_as_told(host):
    host.warm_up()
    assert json.loads(host.description()) == {
        "backend": "onnxruntime",
        "precision": "fp32",
        "reason": host.engine.reason,
    }


def test_engine_of_another_kind(tiny_model):
    other = replace(engine_source(tiny_model).contract, io="u8", bits=8, color_range="full")
    with pytest.raises(ModelError, match=r"the engine takes \(5, 'f32', None, None\), the repository was written for"):
        HostedEngine(tiny_model.parent, arguments(tiny_model, other))


def test_numpy_2_needs_a_server_that_knows_it(tmp_path):
    stub = tmp_path / "stub"
    stub.write_bytes(b"\x7fELF numpy.core.multiarray \x00")
    check_numpy(stub, "1.26.4")
    with pytest.raises(BackendError, match=r"numpy is 2\.4\.6: pip install 'numpy<2' for the server"):
        check_numpy(stub, "2.4.6")
    stub.write_bytes(b"\x7fELF numpy._core\x00numpy.core\x00")
    check_numpy(stub, "2.4.6")
    assert THIS_PROGRAM.exists()


def test_modules_that_know_numpy_2_hold_its_name():
    """The mark is looked up in pybind11 modules that are known to work here."""
    from onnxruntime.capi import onnxruntime_pybind11_state

    if int(np.__version__[0]) < 2:
        pytest.skip("needs numpy 2")
    check_numpy(type(THIS_PROGRAM)(onnxruntime_pybind11_state.__file__))


def test_requests_that_are_alike_are_one_batch(host, local, monkeypatch):
    shapes = []
    run = host.run
    monkeypatch.setattr(host, "run", lambda window, *told: shapes.append(window.shape) or run(window, *told))
    limited = Parameters(color_range="limited")
    requests = [
        WindowRequest(codes(0), Parameters()),
        WindowRequest(codes(1, 2, 5, *SIZE), Parameters()),
        WindowRequest(codes(2), limited),
        WindowRequest(unit(3), Parameters()),
        WindowRequest(codes(4, 1, 5, 8, 8), Parameters()),
    ]
    answers = answer(host, requests)
    assert sorted(shapes) == [(1, 5, 8, 8), (1, 5, *SIZE), (1, 5, *SIZE), (3, 5, *SIZE)]
    for request, sharp in zip(requests, answers):
        expected = local.run(request.window, None, request.parameters.color_range)
        assert sharp.dtype == expected.dtype
        assert np.allclose(sharp, expected, atol=1e-6)


def test_bad_window_does_not_spoil_its_batch(host, local):
    windows = [unit(0), np.full((1, 5, *SIZE), np.nan, np.float32), unit(2)]
    first, bad, last = answer(host, [WindowRequest(window, Parameters()) for window in windows])
    assert isinstance(bad, InputError)
    assert np.array_equal(first, local.run(windows[0]))
    assert np.array_equal(last, local.run(windows[2]))


def test_bug_costs_one_request(host, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("of course")

    monkeypatch.setattr(host.engine, "run", fail)
    (failure,) = answer(host, [WindowRequest(codes(0), Parameters())])
    assert str(failure) == "the server failed (ZeroDivisionError: of course): see its log"
    assert "Traceback" in caplog.text


def test_memory_is_looked_at_before_it_is_taken(host, monkeypatch):
    monkeypatch.setattr("serving.triton_server.host.memory_at_hand", lambda: 10**8)
    with pytest.raises(BackendError, match=r"4 x 8x40 pixels take about 0\.4 GB, the server has 0\.1: use tiles"):
        host.run(codes(0, 4, 5, 40, 8))
    monkeypatch.undo()
    host.run(codes(0, 4, 5, 40, 8))
    monkeypatch.setattr("serving.triton_server.host.memory_at_hand", lambda: 0)
    host.run(codes(0, 4, 5, 40, 8))  # it fits, as has been seen


@pytest.mark.parametrize(
    ("tensors", "parameters", "message"),
    [
        ({}, "", r"got 0 tensors \(none\), expected one"),
        ({"blurry_u8": codes(0), "blurry_f32": unit(0)}, "", r"got 2 tensors \(blurry_f32, blurry_u8\)"),
        ({"blurry_u8": codes(0, 5, *SIZE)}, "", r"got shape \(5, 16, 24\), expected \(N, 5, H, W\)"),
        ({"blurry_u8": codes(0, 1, 5, 0, 24)}, "", "got 24x0 pixels, this server takes 1 to 4096"),
        ({"blurry_u8": codes(0, 1, 5, 65, 64)}, "", "got 64x65 pixels, this server takes 1 to 4096 of a frame: send tiles"),
        ({"blurry_u8": codes(0)}, '{"bits": "ten"}', "the request's parameters: bits: got 'ten', expected int"),
        ({"blurry_u8": codes(0)}, "[]", "the request's parameters: it is a JSON list, expected an object"),
        ({"blurry_u8": codes(0)}, "{", "the request's parameters: "),
    ],
)
def test_requests_that_are_refused(host, tensors, parameters, message):
    with pytest.raises(InputError, match=message):
        read_window(host, tensors, parameters)


def test_parameters():
    assert read_parameters("") == Parameters()
    assert read_parameters('{"bits": 10, "stride": 2, "unknown": 1}') == Parameters(bits=10, stride=2)


def expected(local, frames, **options):
    stream = StreamDeblurrer(local, **options)
    return [sharp for frame in frames for sharp in stream.push(frame)] + stream.flush()


def test_streams_are_apart(host, local):
    streams, told = Streams(host), {1: Parameters(stride=2, color_range="limited"), "two": Parameters()}
    frames = {1: codes(1, 9, *SIZE), "two": unit(2, 7, 8, 8)}
    sharp = {1: [], "two": []}
    for number in range(9):
        for key in frames:
            if number < len(frames[key]):
                last = key == 1 and number == 8
                sharp[key] += streams.take(key, frames[key][number], told[key], number == 0, last)
    assert len(streams) == 1
    sharp["two"] += streams.take("two", None, Parameters(), False, True)
    assert len(streams) == 0
    assert np.array_equal(sharp[1], expected(local, frames[1], stride=2, color_range="limited"))
    assert np.array_equal(sharp["two"], expected(local, frames["two"]))


def test_frames_that_cannot_be_are_left_out(host, local):
    streams, frames = Streams(host), unit(0, 5, *SIZE)
    sharp = []
    for number, frame in enumerate(frames):
        for bad, message in (
            (frame * np.nan, "or NaN"),
            (frame * np.inf, "outside"),
            (frame[None], r"\(1, 16, 24\), expected \(H, W\)"),
            (np.zeros((65, 64), np.float32), "got 64x65 pixels"),
            (None, "got no frame"),
        ):
            with pytest.raises(InputError, match=message):
                streams.take(5, bad, Parameters(), number == 0, False)
        sharp += streams.take(5, frame, Parameters(), False, number == 4)
    assert np.array_equal(sharp, expected(local, frames))


def test_stream_ends_when_it_cannot_go_on(host):
    streams = Streams(host)
    with pytest.raises(InputError, match="there is no stream 5: it failed, ended, or was idle"):
        streams.take(5, codes(0, *SIZE), Parameters(), False, False)
    with pytest.raises(InputError, match="stride is 6"):
        streams.take(5, codes(0, *SIZE), Parameters(stride=6), True, False)
    assert len(streams) == 0
    streams.take(5, codes(0, *SIZE), Parameters(), True, False)
    with pytest.raises(InputError, match="flush, then start a new stream"):
        streams.take(5, codes(0, 8, 8), Parameters(), False, False)
    with pytest.raises(InputError, match="there is no stream 5"):
        streams.take(5, codes(0, *SIZE), Parameters(), False, False)
    streams.take(5, codes(0, *SIZE), Parameters(), True, False)
    with pytest.raises(InputError, match="got 0x0 pixels"):
        streams.take(5, codes(0, 0, 0), Parameters(), False, True)
    assert len(streams) == 0
    for _ in range(3):
        streams.take(5, codes(0, *SIZE), Parameters(), len(streams) == 0, False)
    with pytest.raises(InputError, match="stride is 9"):
        streams.take(5, codes(0, *SIZE), Parameters(stride=9), True, False)
    with pytest.raises(InputError, match="there is no stream 5"):  # not the one of before, with two frames of another video
        streams.take(5, codes(0, *SIZE), Parameters(), False, False)


def test_idle_streams_are_forgotten(host):
    now = 0.0
    streams = Streams(host, lambda: now)
    for key in (1, 2):
        streams.take(key, codes(0, *SIZE), Parameters(), True, False)
    now = 9.0
    streams.take(2, codes(0, *SIZE), Parameters(), False, False)
    now = 12.0
    assert streams.take(3, codes(0, *SIZE), Parameters(), True, False) == []
    assert len(streams) == 2
    with pytest.raises(InputError, match="there is no stream 1"):
        streams.take(1, codes(0, *SIZE), Parameters(), False, False)


def test_configs_hold_what_the_host_reads(tiny_model, tmp_path):
    """Names in the config, in the requests and in the answers are the same."""
    source, options = engine_source(tiny_model), TritonOptions(tiny_model, tmp_path)
    for kind in ("f32", "u8", "u16"):
        assert f'"blurry_{kind}"' in window_config(options, source, "m")
        assert f'"frame_{kind}"' in stream_config(options, source, "m")
        assert f'"sharp_{kind}"' in window_config(options, source, "m")
        assert f'"sharp_{kind}"' in stream_config(options, source, "m")
