"""The fastest member of a bundle within a budget: by measurement, of what has passed the bundle's own test on this machine."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.to_bf16 import to_bf16
from export.to_bundle import BundleRequest, write_bundle
from runtime import BackendError, Engine, InputError, ModelError, bundle, fastest
from runtime.backends import How
from runtime.backends.openvino_runner import OpenVinoRunner
from runtime.bundle import checked_bundle
from runtime.files.manifest import load_manifest
from runtime.machine import hardware
from runtime.run.options import DeblurOptions, _timed_at

SIZE = (64, 96)
FP32, BF16 = "tiny.onnx", "tiny.bf16.onnx"


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """An fp32 file, and one in bf16 that is said to lose 0.01 dB."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny.bundle"
    bf16 = to_bf16(tiny_model, tmp_path_factory.mktemp("bf16") / BF16).path
    manifest = write_bundle(BundleRequest(tiny_model, (bf16,), folder))
    lost(folder, 0.01)
    assert abs(manifest.members[1].loss) < 1e-3  # measured: the reference loses nothing
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/videodeblur"


@pytest.fixture
def timed(monkeypatch):
    """Windows take what the test says, by file, on a CPU without bf16, whatever the machine is; the list has what was timed."""
    seconds, asked = {FP32: 2.0, BF16: 1.0}, []

    def pretend(candidate, manifest, folder, size, warm):
        asked.append((candidate.way, size))
        return seconds[candidate.way.file] * (1.2 if candidate.way.backend == "onnxruntime" else 1.0)

    monkeypatch.setattr(fastest, "_seconds", pretend)
    monkeypatch.setattr(fastest, "multiplies_bf16", lambda: False)
    return seconds, asked


def lost(folder, decibels):
    manifest = load_manifest(folder)
    first, *others = manifest.members
    replace(manifest, members=(replace(first, loss=decibels), *others)).save(folder)


def test_the_fastest_is_taken_and_the_next_is_named(made, timed):
    with Engine(made, fastest_at=SIZE) as engine:
        assert engine.file == made / BF16
        assert engine.backend == "openvino"
        assert f"{BF16}, 5 frames/s at 96x64; next {FP32} on openvino in fp32, 2.5; within" in engine.reason
        assert "dB of the bundle's golden frames; measured here now" in engine.reason


def test_what_was_found_is_remembered_by_size_and_budget(made, timed):
    Engine(made, fastest_at=SIZE).close()
    timed[1].clear()
    with Engine(made, fastest_at=SIZE) as engine:
        assert engine.file == made / BF16
        assert "measured here before" in engine.reason
    assert timed[1] == []
    for others in ({"fastest_at": (96, 96)}, {"fastest_at": SIZE, "budget": math.inf}, {"fastest_at": SIZE, "threads": 1}):
        timed[1].clear()
        Engine(made, **others).close()
        assert timed[1]


@pytest.mark.parametrize(
    ("loss", "budget", "taken"), [(0.04, 0.05, BF16), (0.06, 0.05, FP32), (0.06, math.inf, BF16), (-1, 0.0, FP32)]
)
def test_the_budget_decides_who_takes_part(made, timed, loss, budget, taken):
    lost(made, loss)
    with Engine(made, fastest_at=SIZE, budget=budget) as engine:
        assert (engine.file, engine.precision) == (made / taken, "fp32" if budget == 0.0 else engine.precision)
    lost(made, 0.01)


def test_exact_takes_the_fp32_member_whatever_the_maker_measured(made, timed):
    """On a CPU with bf16 the maker's engine computes in it, and the fp32 member then "loses" 0.0002 dB."""
    manifest = load_manifest(made)
    first, second = manifest.members
    replace(manifest, members=(first, replace(second, loss=0.0002))).save(made)
    try:
        with Engine(made, fastest_at=SIZE, budget=0.0) as engine:
            assert engine.file == made / FP32
    finally:
        manifest.save(made)


@pytest.mark.parametrize(("in_hardware", "tried"), [(True, {"fp32", "bf16"}), (False, {"fp32"}), (None, {"fp32", "bf16"})])
def test_bf16_is_tried_where_the_cpu_multiplies_it(made, in_hardware, tried, monkeypatch):
    monkeypatch.setattr(hardware, "cpu_extensions", lambda: None if in_hardware is None else {"BF16": in_hardware})
    member = load_manifest(made).members[1]
    assert {way.arithmetic for way in fastest._ways(member, How("openvino"), 0.05)} == tried
    assert {way.arithmetic for way in fastest._ways(member, How("openvino"), fastest.EXACT)} == {"fp32"}


def test_a_lead_within_the_noise_is_no_reason_to_lose_quality(made, timed):
    timed[0][BF16] = 1.95
    with Engine(made, fastest_at=SIZE) as engine:
        assert engine.file == made / FP32


LARGE = [(256, 448), (720, 1280)]


@pytest.mark.parametrize(
    ("frames", "at_hand", "sizes"),
    [
        (SIZE, 64e9, [SIZE]),
        ((719, 1280), 64e9, LARGE[:1]),
        ((720, 1280), 64e9, LARGE),
        ((1920, 1080), None, LARGE),  # what is at hand is unknown
        ((2160, 3840), 4e9, LARGE[:1]),  # too little for such windows
    ],
)
def test_large_frames_are_timed_large(frames, at_hand, sizes, monkeypatch):
    monkeypatch.setattr(fastest, "memory_at_hand", lambda: at_hand)
    assert fastest._timed_sizes(frames) == sizes


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        (
            {(FP32, LARGE[0]): 0.10, (BF16, LARGE[0]): 0.12, (FP32, LARGE[1]): 1.0, (BF16, LARGE[1]): 0.8},
            (BF16, "6.25", "1280x720"),
        ),
        ({(FP32, LARGE[0]): 0.10, (BF16, LARGE[0]): 0.13}, (FP32, "50", "448x256")),  # clear enough
        ({(FP32, LARGE[0]): 0.13, (BF16, LARGE[0]): 0.15}, (FP32, "38.5", "448x256")),  # too slow to find out
    ],
)
def test_what_is_close_in_small_frames_is_decided_by_large_ones(made, times, taken, monkeypatch):
    asked = []

    def pretend(candidate, manifest, folder, size, warm):
        asked.append((candidate.way.backend, size))
        return times[candidate.way.file, size] * (2 if candidate.way.backend == "onnxruntime" else 1)

    monkeypatch.setattr(fastest, "_seconds", pretend)
    monkeypatch.setattr(fastest, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(fastest, "memory_at_hand", lambda: 64e9)
    with Engine(made, fastest_at=(720, 1280)) as engine:
        assert engine.file == made / taken[0]
        assert f"{taken[0]}, {taken[1]} frames/s at {taken[2]}; next" in engine.reason
    assert {backend for backend, size in asked if size == LARGE[1]} <= {"openvino"}  # the others are too far behind
    asked.clear()
    Engine(made, fastest_at=(1080, 1920)).close()
    assert not asked  # as large as those


@pytest.mark.parametrize(
    ("given", "timed_at"),
    [({}, (1080, 1920)), ({"tile": 0}, (1080, 1920)), ({"tile": 400}, (400, 400)), ({"memory": 1.5}, fastest.TIMED_SIZE)],
)
def test_files_are_timed_as_large_as_the_options_let_them_compute(given, timed_at):
    options = DeblurOptions(Path("in.mp4"), Path("out.mp4"), **given)
    assert _timed_at(options, (1080, 1920)) == timed_at


def test_one_that_fails_the_test_of_the_bundle_is_passed_over(made, timed, monkeypatch):
    honest = fastest.open_member

    def broken(folder, manifest, member, *rest):
        if member.file == BF16:
            raise BackendError("its self-test reached 3.0 dB")
        return honest(folder, manifest, member, *rest)

    Engine(made, fastest_at=SIZE).close()
    monkeypatch.setattr(fastest, "open_member", broken)
    with Engine(made, fastest_at=SIZE) as engine:  # although it was remembered
        assert engine.file == made / FP32
        assert f"not {BF16} on openvino in fp32: its self-test reached 3.0 dB" in engine.reason


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ways": [], "rates": [], "size": [1, 1]}', b"\xff", b"[1]"])
def test_a_damaged_memory_is_made_anew(made, timed, cache, content):
    Engine(made, fastest_at=SIZE).close()
    (place,) = cache.glob("fastest-*.json")
    whole = json.loads(place.read_text())
    place.write_bytes(content)
    Engine(made, fastest_at=SIZE).close()
    assert json.loads(place.read_text()) == whole


def test_without_a_cache_it_is_measured_each_time(made, timed, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")
    for _ in range(2):
        timed[1].clear()
        Engine(made, fastest_at=SIZE).close()
        assert timed[1]


def test_the_next_process_compiles_nothing(made, timed, cache, monkeypatch):
    window = np.random.default_rng(0).random((1, 5, *SIZE), np.float32)
    with Engine(made, fastest_at=SIZE) as engine:
        expected = engine.run(window)
    assert len(list(cache.glob("compiled/*"))) == 2  # for the golden frames, and the caller's size
    monkeypatch.setattr(OpenVinoRunner, "_compile", lambda *_: pytest.fail("it compiles"))
    monkeypatch.setattr(bundle, "self_test", lambda *_: pytest.fail("it is tested again"))
    with Engine(made, fastest_at=SIZE) as engine:
        assert engine._runner._loading.keys() == {window.shape}  # in the background
        assert np.array_equal(engine.run(window), expected)


@pytest.mark.parametrize("change", ["variable", "extensions", "version", "bundle"])
def test_on_another_machine_it_is_tested_and_timed_again(made, timed, change, monkeypatch):
    Engine(made, fastest_at=SIZE).close()
    timed[1].clear()
    tested = []
    monkeypatch.setattr(bundle, "self_test", lambda *given: tested.append(given) or 99.0)
    if change == "variable":
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    elif change == "extensions":
        monkeypatch.setattr(hardware, "cpu_extensions", lambda: {"AVX2": True})
    elif change == "version":
        monkeypatch.setattr(fastest, "installed_version", lambda package: "0.1")
    else:
        lost(made, 0.011)
    with Engine(made, fastest_at=SIZE) as engine:
        assert "within 99.0 dB of the bundle's golden frames; measured here now" in engine.reason
    assert tested
    assert timed[1]
    lost(made, 0.01)


def test_where_the_bundle_must_be_signed_nothing_unsigned_is_taken(made, timed, cache, monkeypatch):
    monkeypatch.setattr(fastest, "checked_bundle", lambda folder, trust: checked_bundle(folder, None))
    tested, honest = [], bundle.self_test
    monkeypatch.setattr(bundle, "self_test", lambda *given: tested.append(given) or honest(*given))
    for _ in range(2):
        tested.clear()
        Engine(made, fastest_at=SIZE, trust="key.pub").close()
        assert tested
    assert not list(cache.glob("compiled/*"))


def test_the_caller_limits_the_ways(made, timed):
    with Engine(made, backend="onnxruntime", fastest_at=SIZE) as engine:
        assert (engine.backend, engine.file) == ("onnxruntime", made / FP32)  # whose kernels know no bf16
    with pytest.raises(BackendError, match=r"nothing in .* runs here within 0.05 dB"):
        Engine(made, backend="tensorrt", fastest_at=SIZE)


def test_it_is_for_bundles_of_models(made, tiny_model, tiny_engine, tmp_path):
    write_bundle(BundleRequest(tiny_model, (tiny_engine,), tmp_path / "engines.bundle"))
    with pytest.raises(InputError, match="holds engines, whose order is its maker's"):
        Engine(tmp_path / "engines.bundle", fastest_at=SIZE)
    with pytest.raises(ModelError):
        Engine(tiny_model, fastest_at=SIZE)


def test_timed_for_real(made):
    window = np.random.default_rng(0).random((1, 5, 24, 40), np.float32)
    with Engine(made, fastest_at=SIZE) as engine, Engine(made / FP32) as exact:
        assert np.abs(engine.run(window) - exact.run(window)).max() < 0.02
        assert 0 < float(engine.reason.split("onnx, ")[1].split(" frames/s")[0]) < 10_000
