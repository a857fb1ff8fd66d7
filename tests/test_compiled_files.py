"""Compiled models in the user's cache: taken by the next process when they are whole, compiled again when not."""

import os
from concurrent.futures import wait

import numpy as np
import pytest

from runtime import BackendError, ModelError
from runtime.backends.openvino_runner import OpenVinoRunner
from runtime.files import compiled_files
from runtime.files.compiled_files import CompiledFiles
from runtime.files.on_disk import file_sha256

SHAPE = (1, 5, 24, 32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/videodeblur/compiled"


@pytest.fixture
def window():
    return np.random.default_rng(0).random(SHAPE, np.float32)


def opened(path, monkeypatch, threads=None, soon=None):
    """A runner that keeps, and the shapes that it compiled."""
    runner, compiled = OpenVinoRunner(path, "fp32", threads), []
    honest = runner._compile
    monkeypatch.setattr(runner, "_compile", lambda model, shape: (compiled.append(shape), honest(model, shape))[1])
    runner.keep_compiled(file_sha256(path), soon)
    return runner, compiled


def test_the_next_process_takes_what_was_compiled(tiny_model, window, monkeypatch):
    first, compiled = opened(tiny_model, monkeypatch)
    expected = first.run(window)
    assert compiled == [SHAPE]
    second, compiled = opened(tiny_model, monkeypatch)
    assert np.array_equal(second.run(window), expected)
    assert compiled == []


def test_what_was_compiled_for_other_switches_is_not_taken(tiny_model, window, monkeypatch):
    opened(tiny_model, monkeypatch)[0].run(window)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    runner, compiled = opened(tiny_model, monkeypatch)
    runner.run(window)
    assert compiled == [SHAPE]


def test_what_is_needed_soon_is_loaded_in_the_background(tiny_model, window, cache, monkeypatch):
    expected = opened(tiny_model, monkeypatch)[0].run(window)
    runner, compiled = opened(tiny_model, monkeypatch, soon=SHAPE)
    wait(runner._loading.values())
    for path in cache.iterdir():
        path.unlink()
    assert np.array_equal(runner.run(window), expected)
    assert compiled == []


def test_what_was_expected_and_is_not_there_is_compiled(tiny_model, window, monkeypatch):
    runner, compiled = opened(tiny_model, monkeypatch, soon=SHAPE)
    runner.run(window)
    assert compiled == [SHAPE]


def test_a_known_file_is_read_when_there_is_something_to_compile(tiny_model, window, tmp_path, monkeypatch):
    expected = opened(tiny_model, monkeypatch)[0].run(window)
    copy = tmp_path / "copy.onnx"
    runner = OpenVinoRunner(copy, "fp32", known=True)
    runner.keep_compiled(file_sha256(tiny_model))
    assert np.array_equal(runner.run(window), expected)
    with pytest.raises(ModelError, match=r"cannot load .*copy.onnx"):
        runner.run(window[:, :, :16])
    copy.write_bytes(tiny_model.read_bytes())
    assert runner.run(window[:, :, :16]).shape == (1, 5, 16, 32)
    runner.close()
    with pytest.raises(BackendError, match="closed"):
        runner.run(window)


def test_closing_waits_for_what_is_loaded(tiny_model, window, monkeypatch):
    opened(tiny_model, monkeypatch)[0].run(window)
    runner, _ = opened(tiny_model, monkeypatch, soon=SHAPE)
    (loading,) = runner._loading.values()
    runner.close()
    assert loading.done()


def test_what_was_compiled_before_is_kept_too(tiny_model, window, cache):
    runner = OpenVinoRunner(tiny_model, "fp32")
    runner.run(window)
    assert not cache.exists()
    runner.keep_compiled(file_sha256(tiny_model))
    assert len(list(cache.iterdir())) == 1


def test_other_threads_and_sizes_are_compiled_for_themselves(tiny_model, window, monkeypatch):
    opened(tiny_model, monkeypatch)[0].run(window)
    runner, compiled = opened(tiny_model, monkeypatch, threads=1)
    runner.run(window)
    runner.run(window[:, :, :16])
    assert compiled == [SHAPE, (1, 5, 16, 32)]


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_flipped_byte_is_not_computed_with(tiny_model, window, cache, monkeypatch, at):
    expected = opened(tiny_model, monkeypatch)[0].run(window)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    runner, compiled = opened(tiny_model, monkeypatch)
    assert np.array_equal(runner.run(window), expected)
    assert compiled == [SHAPE]
    assert path.read_bytes() != data  # whole again


def test_one_of_another_is_not_taken_by_its_name(cache):
    files = CompiledFiles(["a"])
    files.save(SHAPE, b"of this shape")
    (path,) = cache.iterdir()
    files.save((1, 5, 8, 8), b"of another")
    (other,) = set(cache.iterdir()) - {path}
    other.replace(path)
    assert files.load(SHAPE) is None


def test_what_the_library_refuses_is_compiled_again(tiny_model, window, monkeypatch):
    expected = opened(tiny_model, monkeypatch)[0].run(window)
    runner, compiled = opened(tiny_model, monkeypatch)
    monkeypatch.setattr(runner._kept, "load", lambda shape: b"of another build")
    assert np.array_equal(runner.run(window), expected)
    assert compiled == [SHAPE]


def test_without_a_cache_all_goes_on(tiny_model, window, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")
    runner, compiled = opened(tiny_model, monkeypatch)
    runner.run(window)
    assert compiled == [SHAPE]


def test_those_that_nobody_used_for_longest_go(cache, monkeypatch):
    monkeypatch.setattr(compiled_files, "MOST_BYTES", 250)
    files = CompiledFiles(["a"])
    for age, height in ((30, 8), (20, 16)):
        files.save((height,), bytes(50))
        newest = max(cache.iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (newest.stat().st_atime, newest.stat().st_mtime - age))
    assert files.load((8,)) is not None  # used: now the younger
    for height in (24, 32):
        files.save((height,), bytes(50))
    assert [files.load((height,)) is not None for height in (8, 16, 24, 32)] == [True, False, True, True]
