"""TensorRT-RTX builds every typed graph on a machine without a GPU, and the types are those that the file asks for."""

import onnx
import pytest
from measured_ranges import measured_ranges

pytest.importorskip("tensorrt_rtx")

from calibration.ranges import Ranges
from export.engine.builder import EngineRequest, Profile, build_engine
from export.engine.built_types import tensorrt_types
from export.export_options import MATRICES
from export.graph.centre_frame_graph import centre_frame_graph
from export.graph.layer_precision import default_precisions, layers
from export.graph.layer_types import granted_share, layer_types, shares
from export.graph.qdq_rules import QdqOptions, quantize
from export.graph.sample_code_graph import wrap_sample_codes
from export.graph.typed_graph import retype
from export.type_shares import LEAST_GRANTED
from runtime.errors import BackendError

HD = (1, 5, 720, 1280)
STATIC = Profile(HD, HD, HD)
DYNAMIC = Profile((1, 5, 64, 64), HD, (4, 5, 1088, 1920))
ADA, AMPERE, TURING = (8, 9), (8, 6), (7, 5)
MIXED = {"c1": "bf16", "temporal.generator.layer5": "int8", "spatial.generator.layer5": "fp8", "r1.0": "fp32"}
QUANTISED = {  # name: (precision, options)
    "int8": ("int8", QdqOptions()),
    "int8 in fp16": ("int8", QdqOptions(rest="fp16")),
    "int8 in bf16": ("int8", QdqOptions(rest="bf16")),
    "int8 per tensor": ("int8", QdqOptions(rest="fp16", weights="per-tensor")),
    "fp8": ("fp8", QdqOptions(rest="fp16")),
}


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return onnx.load(tiny_model)


@pytest.fixture(scope="module")
def graphs(tiny, tiny_model):
    ranges = Ranges.load(measured_ranges(tiny_model))
    generators = [name for name in layers(tiny) if ".generator." in name and not name.endswith((".layer0", ".layer1"))]
    return {
        **{word: retype(tiny, word) for word in ("fp32", "fp16", "bf16")},
        **{
            name: quantize(tiny, ranges, dict.fromkeys(generators, precision), options)
            for name, (precision, options) in QUANTISED.items()
        },
        "default int8": quantize(tiny, ranges, default_precisions(tiny, "int8", "fp16"), QdqOptions(rest="fp16")),
        "mixed": quantize(tiny, ranges, MIXED, QdqOptions(rest="fp16")),
    }


def built_rows(model, tmp_path, profile=STATIC, target=ADA):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    built = build_engine(
        EngineRequest(path, path.with_suffix(".engine"), "tensorrt_rtx", (profile,), compute_capabilities=(target,))
    )
    return layer_types(model, tensorrt_types(built.layer_log), *profile.opt[2:])


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", *QUANTISED, "default int8", "mixed"])
def test_types_are_those_of_the_file(graphs, tmp_path, name):
    rows = built_rows(graphs[name], tmp_path)
    assert granted_share(rows) >= LEAST_GRANTED, [row for row in rows if not row.granted]
    assert "not found" not in shares(rows)
    asked = set(shares(rows, asked=True))
    assert asked == {"mixed": {"fp16", "bf16", "fp32", "int8", "fp8"}}.get(name, asked)


@pytest.mark.parametrize("name", ["fp32", "bf16", "int8 in fp16", "fp8", "mixed"])
def test_types_are_those_of_the_file_with_sizes_free(graphs, tmp_path, name):
    assert granted_share(built_rows(graphs[name], tmp_path, DYNAMIC)) >= LEAST_GRANTED


def test_int8_runs_on_ampere(graphs, tmp_path):
    assert granted_share(built_rows(graphs["int8 in fp16"], tmp_path, target=AMPERE)) >= LEAST_GRANTED


def test_what_a_target_does_not_grant_is_seen(graphs, tmp_path):
    """TensorRT-RTX runs INT8 convolutions in FP16 on Turing."""
    rows = built_rows(graphs["int8 in fp16"], tmp_path, target=TURING)
    assert granted_share(rows) < 0.6
    assert "int8" not in shares(rows)


def test_fp8_does_not_build_before_ada(graphs, tmp_path):
    with pytest.raises(BackendError, match="fp8"):
        built_rows(graphs["fp8"], tmp_path, target=AMPERE)


def test_codes_in_and_out_build(tiny, tmp_path):
    rows = built_rows(retype(wrap_sample_codes(tiny, "u8", 8, "limited", 8), "fp16"), tmp_path, DYNAMIC)
    assert granted_share(rows) >= LEAST_GRANTED


def test_nvenccs_graph_is_built(tiny, tmp_path):
    """NVEncC's TensorRT provider has the same parser."""
    sizes = ((1, 15, 180, 320), (1, 15, 720, 1280), (1, 15, 1080, 1920))
    assert built_rows(centre_frame_graph(tiny, 5, MATRICES["bt709"], 8), tmp_path, Profile(*sizes))
