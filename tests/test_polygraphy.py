"""Polygraphy as a second opinion: it builds the same engine from the same file, computes the same with ONNX Runtime, and judges
alike; and every line of docs/polygraphy.md that needs no GPU works."""

import math
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from signed import save_signed

from export.engine.builder import build_engine
from export.engine.request import EngineRequest
from export.export_options import ExportOptions
from export.verify import VerifyOptions, verify
from runtime import Engine
from runtime.files.contract import read_contract
from runtime.files.engine_record import REBUILT, Profile, load_record
from runtime.video import write_gray

pytest.importorskip("polygraphy", reason="polygraphy is not installed")
ROOT = Path(__file__).resolve().parents[1]
SHAPE = (1, 5, 64, 96)
PAGE = (ROOT / "docs" / "polygraphy.md").read_text()
TOOLS = {  # name: what a console script of that name runs
    "python": "exec(sys.argv[2])",  # python -c CODE
    "polygraphy": "from polygraphy.tools import main; sys.exit(main())",
    "onnxslim": "from onnxslim.cli import main; sys.exit(main())",
    "videodeblur": "from videodeblur import main; sys.exit(main())",
}

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


@pytest.fixture(scope="module")
def desk(tiny_checkpoint, tiny_model, tmp_path_factory):
    """A folder with the files that the page names, and the tools that it calls, wherever this environment keeps them."""
    from export.network.exporter import export_onnx

    folder = tmp_path_factory.mktemp("desk")
    (folder / "model.onnx").write_bytes(tiny_model.read_bytes())
    write_clips(folder / "clips")
    options = ExportOptions(checkpoint=tiny_checkpoint, output=folder / "fixed.onnx", batch=1, height=64, width=96)
    broken = onnx.load(export_onnx(options).path)
    resize = next(node for node in broken.graph.node if node.op_type == "Resize")
    next(attribute for attribute in resize.attribute if attribute.name == "antialias").i = 1  # which TensorRT's parser lacks
    onnx.save(broken, folder / "broken.onnx")
    (folder / "bin").mkdir()
    for name, code in TOOLS.items():
        (folder / "bin" / name).write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def write_clips(folder):
    """Frames of noise under a moving edge, as bright as frames are."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(18):
        plane = 0.3 + 0.2 * noise.random((64, 96), np.float32)
        plane[:, 20 + 3 * number :] = 1.0
        write_gray(folder / f"frame_{number:02}.png", plane)


def run_block(heading, desk, **variables):
    """Runs the lines under a heading of the page, and returns what they said."""
    lines = re.search(rf"^## {heading}$.*?^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
    environment = {**os.environ, "PATH": f"{desk / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
    ran = subprocess.run(["bash", "-ec", lines], cwd=desk, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.slow
def test_page_look_at_a_model(desk):
    told = run_block("Look at a model, run it", desk)
    assert "{blurry [dtype=float32, shape=('batch', 5, 'height', 'width')]}" in told
    assert "{sharp [dtype=float32, shape=(1, 5, 64, 96)]}" in told


@pytest.mark.slow
def test_free_sizes_need_input_shapes(desk):
    command = [str(desk / "bin" / "polygraphy"), "run", "model.onnx", "--onnxrt"]
    ran = subprocess.run(command, cwd=desk, capture_output=True, text=True)
    assert ran.returncode != 0
    assert "Concat" in ran.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("onnxslim") and find_spec("onnx_graphsurgeon")), reason="needs onnxslim and onnx-graphsurgeon")
class TestRewritten:
    """In the page's order: its later lines read what its earlier ones wrote."""

    def test_page_graphs_that_a_tool_rewrote(self, desk):
        run_block("Graphs that a tool rewrote", desk)
        window = np.random.default_rng(0).random(SHAPE, np.float32)
        for name in ("folded", "slim"):
            contract = read_contract(desk / f"{name}.adopted.onnx")
            assert contract.parity["onnxruntime:fp32"] >= 100
            assert contract.parity != read_contract(desk / "model.onnx").parity
            with Engine(desk / f"{name}.adopted.onnx", "onnxruntime") as ours, Engine(desk / "model.onnx", "onnxruntime") as theirs:
                np.testing.assert_allclose(ours.run(window), theirs.run(window), atol=1e-5)

    def test_page_real_clips(self, desk):
        told = run_block("Real clips, and the two comparators", desk)
        assert "Passed: 2/2 iterations" in told
        assert "meets the 100 dB asked for" in told


def test_both_comparators_judge_alike(desk, tmp_path):
    """One file, on both sides of a threshold."""
    model = onnx.load(desk / "model.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "r2.weight")
    weight.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(weight), weight.name))
    near = save_signed(model, tmp_path / "near.onnx")
    specs = [f"{path}@onnxruntime" for path in (desk / "model.onnx", near)]
    found = verify(VerifyOptions(*specs, desk / "clips", limit=1)).psnr
    environment = {
        **os.environ,
        "VIDEODEBLUR_ONNX": str(near),
        "VIDEODEBLUR_CLIPS": str(desk / "clips"),
        "VIDEODEBLUR_WINDOWS": "1",
        "VIDEODEBLUR_PART": "verification",
    }
    shared = ["--onnxrt", "--data-loader-script", str(ROOT / "calibration" / "data_loader.py")]

    def polygraphy(*words):
        command = [str(desk / "bin" / "polygraphy"), "run", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).returncode == 0

    assert polygraphy(str(desk / "model.onnx"), *shared, "--save-outputs", "reference.json")
    for threshold in (math.floor(found) - 1, math.ceil(found) + 1):
        ours = verify(VerifyOptions(*specs, desk / "clips", limit=1, min_psnr=threshold)).passed
        theirs = polygraphy(
            str(near), *shared, "--load-outputs", "reference.json", "--compare", "psnr", "--psnr-threshold", str(threshold)
        )
        assert ours == theirs == (threshold < found)


@pytest.mark.slow
def test_page_engines_of_other_tools(desk):
    run_block("Engines of other tools", desk)
    for name in ("theirs", "range"):
        assert load_record(desk / f"{name}.engine").origin == REBUILT


@pytest.mark.slow
def test_page_the_smallest_graph_that_fails(desk):
    told = run_block("The smallest graph that fails", desk)
    reduced, broken = (onnx.load(desk / name) for name in ("reduced.onnx", "broken.onnx"))
    assert reduced.graph.node[-1].op_type == "Resize", told
    assert len(reduced.graph.node) < len(broken.graph.node)
