"""What a library tells of another tool's engine is held to the contract. A stand-in for the library: the real one needs a GPU."""

import enum
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings", exc_type=ImportError)

from export import adopt
from export.adopt import AdoptRequest, adopt_engine
from runtime import BackendError, ModelError
from runtime.backends import tensorrt_facts
from runtime.backends.device_memory import Gpu
from runtime.backends.tensorrt_facts import EngineFacts, read_facts
from runtime.backends.tensorrt_library import Library
from runtime.files.contract import read_contract
from runtime.files.engine_record import RAN, Measured, Profile, load_record, record_path

SHAPE = (1, 5, 64, 96)
FREE = (-1, 5, -1, -1)
TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
DataType = enum.Enum("DataType", "FLOAT HALF UINT8")
HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY")


class Told:
    """A trt.ICudaEngine as far as `read_facts` asks it."""

    num_optimization_profiles = 2
    hardware_compatibility_level = HardwareCompatibilityLevel.AMPERE_PLUS

    def __init__(self, inputs=("blurry",), outputs=("sharp",), kind=DataType.FLOAT, shape=FREE):
        self.inputs, self.names, self.kind, self.shape = inputs, (*inputs, *outputs), kind, shape
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, number):
        return self.names[number]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return self.kind

    def get_tensor_shape(self, name):
        return self.shape

    def get_tensor_profile_shape(self, name, number):
        return [SHAPE, SHAPE, (1 + number, *SHAPE[1:])]


def library(engine, host_code=None):
    """One whose runtime makes `engine` of any file, and whether it may execute host code goes to the list `host_code`."""

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            if host_code is not None:
                host_code.append(self.engine_host_code_allowed)
            return engine

    module = SimpleNamespace(Runtime=Runtime, TensorIOMode=TensorIOMode, DataType=DataType, __version__="11.4.0.106")
    return Library("tensorrt", module, SimpleNamespace(sinks=[]))


@pytest.fixture
def file(tmp_path):
    (tmp_path / "m.engine").write_bytes(b"ftrt")
    return tmp_path / "m.engine"


def test_facts(file, tiny_model):
    allowed = []
    contract = read_contract(tiny_model)
    found = read_facts(library(Told(), allowed), file, contract)
    assert found == EngineFacts(
        ("blurry", "sharp"), (Profile(SHAPE, SHAPE, SHAPE), Profile(SHAPE, SHAPE, (2, *SHAPE[1:]))), "ampere+"
    )
    read_facts(library(Told(), allowed), file, contract, host_code=True)
    assert allowed == [False, True]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Told(("blurry", "a", "b")), "has the inputs blurry, a, b and the outputs sharp, expected one of each"),
        (Told(outputs=("sharp", "mask")), "has the inputs blurry and the outputs sharp, mask, expected one of each"),
        (Told(kind=DataType.HALF), "has blurry as DataType.HALF, the contract says f32"),
        (Told(shape=(-1, 7, -1, -1)), r"has blurry of \(-1, 7, -1, -1\), expected \(N, 5, H, W\): it is of another network"),
        (Told(shape=(-1, 5, -1)), r"expected \(N, 5, H, W\)"),
        (None, "cannot load .*it gave no reason: copy it again, or build it for this GPU"),
    ],
)
def test_engines_that_are_not_the_contracts(file, tiny_model, engine, message):
    with pytest.raises(ModelError, match=message):
        read_facts(library(engine), file, read_contract(tiny_model))


MEASURED = Measured("GPU of a test", "tensorrt 11.4.0.106", SHAPE, 1.5, 64 << 20, 71.25, "a" * 64)


@pytest.fixture
def where_it_runs(monkeypatch):
    """adopt on a machine with a GPU, whose measuring is `measure`."""

    def arrange(measure, engine=None):
        gpu = Gpu(0, "GPU of a test", (8, 9), 1 << 33, 13000)
        monkeypatch.setattr(tensorrt_facts, "runs_here", lambda record, device: (library(engine or Told()), gpu))
        monkeypatch.setattr(adopt, "measure_engine", measure)

    return arrange


@pytest.fixture
def of_tensorrt(tmp_path):
    """A file that begins as an engine of TensorRT 11.4 does, and has the names."""
    path = tmp_path / "theirs.engine"
    path.write_bytes(b"ftrt" + bytes(20) + bytes([11, 4, 0, 106]) + bytes(36) + b"blurry sharp")
    return path


def test_where_it_runs_the_record_says_what_was_measured(where_it_runs, of_tensorrt, tiny_model):
    def measure(engine, reference, clip, device):
        assert load_record(engine).profiles[0] == Profile(SHAPE, SHAPE, SHAPE)
        assert engine.read_bytes() == of_tensorrt.read_bytes()
        return MEASURED

    where_it_runs(measure)
    found = adopt_engine(AdoptRequest(of_tensorrt, tiny_model, precision="fp16"))
    record = load_record(of_tensorrt)
    assert record == found.record
    assert (record.origin, record.measured, record.precision) == (RAN, MEASURED, "fp16")
    assert (record.compute_capabilities, record.hardware_compatibility) == (((8, 9),), "ampere+")
    assert "it ran on GPU of a test: 71.2 dB to" in adopt.engine_summary(found)


def test_tensors_may_have_other_names_where_the_result_shows_what_they_are(where_it_runs, of_tensorrt, tiny_model):
    """Torch-TensorRT calls an engine's output output0."""
    where_it_runs(lambda *_: MEASURED, Told(("x",), ("output0",)))
    assert adopt_engine(AdoptRequest(of_tensorrt, tiny_model)).record.tensors == ("x", "output0")
    assert load_record(of_tensorrt).tensors == ("x", "output0")


def test_where_it_fails_there_is_no_record(where_it_runs, of_tensorrt, tiny_model):
    def measure(*_):
        raise BackendError("its self-test reached 31.0 dB parity with the reference, expected 60")

    where_it_runs(measure)
    with pytest.raises(BackendError, match=r"reached 31\.0 dB"):
        adopt_engine(AdoptRequest(of_tensorrt, tiny_model))
    assert not record_path(of_tensorrt).exists()


@pytest.mark.gpu
def test_adopted_on_a_gpu(tiny_model, tmp_path):
    """The engine of this machine's library without its record, adopted: it runs, and is what it was."""
    pytest.importorskip("tensorrt")
    from export.engine.builder import build_engine
    from export.engine.request import EngineRequest
    from runtime import Engine

    engine = tmp_path / "theirs.engine"
    engine.write_bytes(build_engine(EngineRequest(tiny_model, engine, "tensorrt", (Profile(SHAPE, SHAPE, SHAPE),))).plan)
    found = adopt_engine(AdoptRequest(engine, tiny_model))
    assert found.record.origin == RAN
    with Engine(engine) as opened:
        assert opened.run(np.zeros(SHAPE, np.float32)).shape == SHAPE
