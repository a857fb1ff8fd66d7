"""Engines built for real by TensorRT-RTX, which needs no GPU for it; what only full TensorRT can do is marked gpu."""

import shutil
import sys

import onnx
import pytest

from export.engine.builder import _add_profiles, _parse, _timing_cache, build_engine
from export.engine.config import strongly_typed
from export.engine.monitor import build_monitor
from export.engine.request import EngineRequest
from export.engine.timing_cache import cache_name
from runtime.backends.device_memory import Gpu
from runtime.backends.tensorrt_library import load_library
from runtime.errors import BackendError, InputError, MissingPackageError, ModelError
from runtime.files.engine_record import Profile

SHAPE = (1, 5, 64, 96)
FIXED = (Profile(SHAPE, SHAPE, SHAPE),)


def options(path, **changes):
    return EngineRequest(
        **{"onnx": path, "engine": path.with_suffix(".engine"), "library": "tensorrt_rtx", "profiles": FIXED, **changes}
    )


@pytest.fixture(scope="module")
def built(tiny_model):
    return build_engine(options(tiny_model))


def test_engine_is_what_was_asked_for(built, tiny_model):
    assert built.plan[:4] == b"vtrt"
    assert (built.library, built.profiles, built.compute_capabilities) == ("tensorrt_rtx", FIXED, ())
    assert built.version == load_library("tensorrt_rtx").version
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(tiny_model).graph.node)
    assert built.layer_log.count("/Conv]") >= convolutions
    assert built.seconds > 0


def test_builds_are_reproducible(built, tiny_model):
    assert build_engine(options(tiny_model)).plan == built.plan


def test_targets_are_in_the_plan(built, tiny_model):
    ada = build_engine(options(tiny_model, compute_capabilities=((8, 9),)))
    assert ada.compute_capabilities == ((8, 9),)
    assert ada.plan != built.plan


def test_dynamic_profile(tiny_model):
    found = build_engine(options(tiny_model, profiles=(Profile((1, 5, 64, 64), SHAPE, (2, 5, 128, 128)),)))
    assert "Dimensions: [-1,5,-1,-1]" in found.layer_log


def test_one_fixed_profile_fixes_the_network(tiny_model):
    """Or full TensorRT's inspector hides the types of the layers."""
    library = load_library("tensorrt_rtx")
    with library.messages() as messages:
        builder = library.module.Builder(library.logger)
        for profiles, expected in ((FIXED, SHAPE), ((*FIXED, Profile(*[(1, 5, 96, 64)] * 3)), (-1, 5, -1, -1))):
            network, parser = _parse(library, builder, tiny_model, messages)
            assert _add_profiles(builder, builder.create_builder_config(), network, profiles) == profiles
            assert tuple(network.get_input(0).shape) == tuple(network.get_output(0).shape) == expected
            del network, parser


def test_progress_rises_to_the_end(tiny_model):
    told = []
    build_engine(options(tiny_model), lambda share, phase: told.append((share, phase)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.1
    assert shares[-1] > 0.8
    assert len({phase for _, phase in told}) > 2


def test_interrupt_ends_the_build(tiny_model):
    def interrupt(share, phase):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(options(tiny_model), interrupt)


def test_phases_share_their_parents_step():
    told = []
    monitor = build_monitor(load_library("tensorrt_rtx").module, lambda share, phase: told.append((round(share, 3), phase)))
    monitor.phase_start("build", None, 2)
    monitor.phase_start("read", "build", 4)
    assert monitor.step_complete("read", 1)
    monitor.phase_finish("read")
    assert monitor.step_complete("build", 0)
    monitor.phase_start("search", "build", 2)
    assert monitor.step_complete("search", 0)
    assert told == [(0.25, "read"), (0.5, "build"), (0.75, "search")]


def broken(tiny_model, tmp_path, change):
    proto = onnx.load(tiny_model)
    change(proto.graph.node[0])
    onnx.save(proto, tmp_path / "broken.onnx")
    return tmp_path / "broken.onnx"


def test_parser_error_names_node_operator_and_module(tiny_model, tmp_path):
    first = onnx.load(tiny_model).graph.node[0]
    path = broken(tiny_model, tmp_path, lambda node: setattr(node, "op_type", "DeformConv"))
    with pytest.raises(ModelError, match="DeformConv") as caught:
        build_engine(options(path))
    assert f"node {first.name}" in str(caught.value)
    assert f"of the PyTorch module {first.name.rpartition('/')[0]}" in str(caught.value)


def test_error_names_the_log(tiny_model, tmp_path):
    log = tmp_path / "logs" / "build.log"
    small = (("WORKSPACE", 1 << 20),)  # bytes; TensorRT-RTX wants 16 times as much for any convolution
    with pytest.raises(BackendError, match="workspace limit") as caught:
        build_engine(options(tiny_model, memory_pools=small, log=log))
    assert str(log) in str(caught.value)
    assert "workspace limit" in log.read_text()


def test_hopper_is_no_target_of_rtx(tiny_model):
    with pytest.raises(InputError, match=r"no target 9\.0, expected some of .*8\.9"):
        build_engine(options(tiny_model, compute_capabilities=((9, 0),)))


@pytest.mark.parametrize("smallest", [(2, 5, 64, 96), (0, 5, 64, 96), (1, 5, 64)])
def test_profile_out_of_order(smallest):
    with pytest.raises(InputError, match="profile"):
        Profile(smallest, SHAPE, SHAPE)


@pytest.mark.parametrize(
    "change",
    [
        {"library": "tensorrt_lean"},
        {"optimization_level": 6},
        {"types": ("int4",)},
        {"hardware_compatibility": "hopper"},
        {"profiling_verbosity": "loud"},
        {"runtime_platform": "Plan9"},
        {"tiling_level": "4"},
        {"exclude_lean_runtime": True},
    ],
)
def test_option_that_no_library_knows(tmp_path, change):
    with pytest.raises(InputError):
        options(tmp_path / "m.onnx", **change)


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        build_engine(options(tmp_path / "m.onnx"))


def test_other_network(tiny_model, tmp_path):
    proto = onnx.load(tiny_model)
    for node in proto.graph.node:
        node.input[:] = ["image" if value == "blurry" else value for value in node.input]
    proto.graph.input[0].name = "image"
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="has inputs image, expected blurry"):
        build_engine(options(tmp_path / "other.onnx"))


def test_tactic_sources(tiny_model):
    found = build_engine(options(tiny_model, tactic_sources=("-JIT_CONVOLUTIONS", "-CUBLAS")))
    assert found.notes == (f"tensorrt_rtx {found.version} has no tactic source CUBLAS",)
    with pytest.raises(InputError, match="has no TacticSource JIT, it has EDGE_MASK_CONVOLUTIONS"):
        build_engine(options(tiny_model, tactic_sources=("-JIT",)))


@pytest.mark.parametrize(
    "change",
    [{"max_tactics": -7}, {"max_aux_streams": -5}, {"l2_limit": -5}, {"memory_pools": (("TACTIC_SHARED_MEMORY", 1 << 40),)}],
)
def test_options_that_the_library_does_not_take(tiny_model, change):
    with pytest.raises(InputError, match="does not take"):
        build_engine(options(tiny_model, **change))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # TensorRT-RTX, which measures nothing, keeps the calls
def test_timing_cache_that_cannot_be_kept_costs_no_engine(tiny_model, tmp_path):
    library, gpu = load_library("tensorrt_rtx"), Gpu(0, "a GPU", (8, 9), 1, 13000)
    config = library.module.Builder(library.logger).create_builder_config()
    (tmp_path / "file").touch()
    with _timing_cache(config, library, options(tiny_model, timing_cache=tmp_path / "file" / "x"), gpu) as notes:
        assert "no timing cache at" in notes[0]
    folder = tmp_path / "folder"
    with _timing_cache(config, library, options(tiny_model, timing_cache=folder / "x"), gpu) as notes:
        assert not notes
        shutil.rmtree(folder)
        folder.touch()
    assert "was not kept" in notes[0]
    assert "with --timingCacheFile" in notes[0]


def test_rtx_types_are_those_of_the_file():
    assert strongly_typed(load_library("tensorrt_rtx"))


def test_library_that_is_not_there(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if it were not, where it is
    with pytest.raises(MissingPackageError, match=r"pip install 'tensorrt>=8\.6'"):
        build_engine(options(tiny_model, library="tensorrt"))


def test_cache_is_per_version_and_gpu():
    assert (
        cache_name("tensorrt", "10.3.0", "NVIDIA GeForce RTX 4090", (8, 9)) == "tensorrt-10.3.0-nvidia-geforce-rtx-4090-sm89.timing"
    )
