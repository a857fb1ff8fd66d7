"""Lowering to opset 17: valid, for an old reader, and the same to the bit."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from export.graph.opset17 import lower_to_opset17
from runtime import ModelError

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
test (float[N, 6, H, W] blurry) => (float[N, 6, H2, W2] sharp)
<float[4] scales = {1.0, 1.0, 2.0, 2.0}>
{
    a, b, c = Split <axis = 1, num_outputs = 3> (blurry)
    joined = Concat <axis = 1> (c, a, b)
    larger = Resize <mode = "linear", antialias = 0, keep_aspect_ratio_policy = "stretch"> (joined, , scales)
    sharp = Relu (larger)
}
"""


@pytest.fixture
def model():
    return parser.parse_model(GRAPH)


def attributes(model):
    return {attribute.name for node in model.graph.node for attribute in node.attribute}


def run(model, blurry):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"blurry": blurry})[0]


def test_it_is_valid_opset_17(model):
    lowered = lower_to_opset17(model)
    onnx.checker.check_model(lowered, full_check=True)
    assert (lowered.ir_version, lowered.opset_import[0].version) == (8, 17)
    assert not attributes(lowered) & {"num_outputs", "antialias", "keep_aspect_ratio_policy"}


def test_only_declaring_opset_17_would_not_be_valid(model):
    model.opset_import[0].version = 17
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        onnx.checker.check_model(model, full_check=True)


def test_the_output_is_identical(model):
    blurry = np.random.default_rng(0).random((2, 6, 7, 9), np.float32)
    np.testing.assert_array_equal(run(model, blurry), run(lower_to_opset17(model), blurry))


def test_the_original_is_not_touched(model):
    before = model.SerializeToString()
    lower_to_opset17(model)
    assert model.SerializeToString() == before


def test_a_split_with_sizes_keeps_them(model):
    split = model.graph.node[0]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2, 3]), "sizes"))
    split.input.append("sizes")
    del split.attribute[:]
    split.attribute.append(onnx.helper.make_attribute("axis", 1))
    blurry = np.random.default_rng(0).random((1, 6, 3, 4), np.float32)
    np.testing.assert_array_equal(run(model, blurry), run(lower_to_opset17(model), blurry))


@pytest.mark.parametrize(
    ("old", "new"),
    [("Relu", "Gelu"), ("num_outputs = 3", "num_outputs = 4"), ("antialias = 0", "antialias = 1")],
    ids=["unknown operator", "uneven split", "antialias"],
)
def test_what_opset_17_cannot_say_is_an_error(old, new):
    text = GRAPH.replace(old, new).replace("a, b, c =", "a, b, c, d =" if "4" in new else "a, b, c =")
    with pytest.raises(ModelError):
        lower_to_opset17(parser.parse_model(text))
