"""Polygraphy as a second opinion: it builds the same engine from the same file, and computes the same with ONNX Runtime."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.engine.builder import build_engine
from export.engine.request import EngineRequest
from runtime import Engine
from runtime.files.engine_record import Profile

pytest.importorskip("polygraphy", reason="polygraphy is not installed")
ROOT = Path(__file__).resolve().parents[1]
SHAPE = (1, 5, 64, 96)

BUILD = """
import sys
from pathlib import Path
from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath, Profile
shape = (1, 5, 64, 96)
config = CreateConfigRTX(profiles=[Profile().add("blurry", shape, shape, shape)], compute_capabilities=[(8, 9)])
Path(sys.argv[2]).write_bytes(bytes(memoryview(EngineBytesFromNetwork(NetworkFromOnnxPath(sys.argv[1]), config=config)())))
"""


def test_same_engine(tiny_model, tmp_path):
    theirs = tmp_path / "polygraphy.engine"
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}  # read when it is imported
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(tiny_model), str(theirs)], env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    options = EngineRequest(
        tiny_model,
        tiny_model.with_suffix(".engine"),
        "tensorrt_rtx",
        (Profile(SHAPE, SHAPE, SHAPE),),
        compute_capabilities=((8, 9),),
    )
    assert build_engine(options).plan == theirs.read_bytes()


def test_same_result(tiny_model):
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    window = np.random.default_rng(0).random(SHAPE, np.float32)
    with OnnxrtRunner(SessionFromOnnx(str(tiny_model))) as theirs, Engine(tiny_model, "onnxruntime", "fp32") as ours:
        np.testing.assert_array_equal(theirs.infer({"blurry": window})["sharp"], ours.run(window))
