"""A tiny network of the real code, with an eighth of the channels, as a checkpoint, as the ONNX file that export makes of it, and
as an engine. A machine that has TensorRT but no torch names the ONNX file in VIDEODEBLUR_TINY_MODEL; see docs/engines.md."""

import os
import signal
import sys
from pathlib import Path

import pytest
import tiny

sys.modules.setdefault("openvino_telemetry", None)  # tests import libraries by themselves, too
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def pytest_configure(config):
    """A shell starts what it leaves in the background with SIGINT ignored; the tests of Ctrl-C, and their processes, need it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        take_cores(int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


def take_cores(number, workers):
    """Cores of its own for each worker and its processes, since libraries that start a thread on every core wait for each other."""
    if hasattr(os, "sched_setaffinity") and workers <= len(cores := sorted(os.sched_getaffinity(0))):
        os.sched_setaffinity(0, cores[number::workers])


def pytest_runtest_setup(item):
    """Skips what needs a GPU where there is none, with the reason."""
    if item.get_closest_marker("gpu") is None:
        return
    device_memory = pytest.importorskip("runtime.backends.device_memory", reason="needs cuda-bindings", exc_type=ImportError)
    try:
        device_memory.open_gpu()
    except device_memory.BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    return tiny.write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_model(request):
    if given := os.environ.get("VIDEODEBLUR_TINY_MODEL"):
        return Path(given).resolve()  # a test may run elsewhere
    return tiny.write_model(request.getfixturevalue("tiny_checkpoint"))


@pytest.fixture(scope="session")
def tiny_engine(tiny_model, tmp_path_factory):
    """The same as a TensorRT-RTX engine for 64x96 pixels, with its record; its builder needs no GPU, running it does."""
    return tiny.write_engine(tiny_model, tmp_path_factory.mktemp("engine") / "tiny.engine")
