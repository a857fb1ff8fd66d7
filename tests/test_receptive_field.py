"""The receptive field computed from a graph is the one that a marked pixel shows, not one more and not one less."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.graph.receptive_field import receptive_field
from export.network.graph import network_to_onnx
from export.network.rewrites import apply_rewrites
from model import PAPER, DeblurNetwork, NetworkConfig
from runtime import ModelError

I5T3_RADIUS = 158  # pixels


def graph_of(*nodes, constants=None):
    """A graph blurry (1, 1, H, W) -> sharp with these nodes and constants."""
    shape = [1, 1, "height", "width"]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info("blurry", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("sharp", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def conv(source, target, kernel, weights="k", **attributes):
    return helper.make_node("Conv", [source, weights], [target], kernel_shape=[kernel, kernel], **attributes)


def ones(kernel):
    return np.ones((1, 1, kernel, kernel), np.float32)


def pool(source, target):
    return helper.make_node("MaxPool", [source], [target], kernel_shape=[2, 2], strides=[2, 2])


def double(source, target):
    return helper.make_node("Resize", [source, "", "scales"], [target], mode="linear", coordinate_transformation_mode="half_pixel")


SCALES = np.array([1, 1, 2, 2], np.float32)
GRAPHS = {
    "conv 3": (1, graph_of(conv("blurry", "sharp", 3, pads=[1] * 4), constants={"k": ones(3)})),
    "dilated": (4, graph_of(conv("blurry", "sharp", 3, pads=[4] * 4, dilations=[4, 4]), constants={"k": ones(3)})),
    "conv 9, residual": (
        4,
        graph_of(
            conv("blurry", "a", 9, pads=[4] * 4), helper.make_node("Add", ["a", "blurry"], ["sharp"]), constants={"k": ones(9)}
        ),
    ),
    "pool, up": (2, graph_of(pool("blurry", "a"), double("a", "sharp"), constants={"scales": SCALES})),
    "conv 4 stride 2, up": (
        3,
        graph_of(
            conv("blurry", "a", 4, pads=[1] * 4, strides=[2, 2]), double("a", "sharp"), constants={"k": ones(4), "scales": SCALES}
        ),
    ),
    "two pools, conv, two ups": (
        None,
        graph_of(
            pool("blurry", "a"),
            pool("a", "b"),
            conv("b", "c", 3, pads=[1] * 4),
            double("c", "d"),
            double("d", "sharp"),
            constants={"k": ones(3), "scales": SCALES},
        ),
    ),
    "uneven pads": (3, graph_of(conv("blurry", "sharp", 4, pads=[0, 0, 3, 3]), constants={"k": ones(4)})),
}


def reach(run, width, middle):
    """The largest distance along the width from a marked column, in any of 8 phases, to what `run` marks of the output."""
    distances = []
    for column in range(middle, middle + 8):
        changed = np.nonzero(run(column))[-1]
        distances += [abs(int(changed.min()) - column), abs(int(changed.max()) - column)]
        assert 0 < changed.min() <= changed.max() < width - 1, "the picture is too small for this test"
    return max(distances)


@pytest.mark.parametrize("name", GRAPHS)
def test_simple_graphs_reach_as_far_as_an_impulse(name):
    known, model = GRAPHS[name]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def response(column):
        blurry = np.zeros((1, 1, 16, 64), np.float32)
        blurry[..., column] = 1
        return session.run(None, {"blurry": blurry})[0]

    found = receptive_field(model)
    assert found == reach(response, 64, 28)
    assert known in (None, found)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = DeblurNetwork(NetworkConfig(widths=PAPER.divided(8))).eval()
    torch.nn.init.normal_(network.r2.weight, std=0.1)
    return network


@pytest.fixture(scope="module")
def graph(network):
    return network_to_onnx(apply_rewrites(network, ["fold", "whole-window"]))


def test_the_network_reaches_as_far_as_a_nan(network, graph):
    """A NaN marks all that sees it: a product with zero does not hide it, and no rounding does."""
    network = copy.deepcopy(network).double()  # in double precision no convolution algorithm computes several pixels at once

    @torch.inference_mode()
    def response(column):
        blurry = torch.zeros(1, 5, 8, 384, dtype=torch.float64)
        blurry[..., column] = torch.nan
        return network(blurry).isnan().numpy()

    assert receptive_field(graph) == reach(response, 384, 184) == I5T3_RADIUS


def test_nothing_further_away_counts(graph):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    blurry = np.random.default_rng(0).random((1, 5, 8, 2 * I5T3_RADIUS + 20), np.float32)
    other = blurry.copy()
    other[..., 0] += 1
    before, after = (session.run(None, {"blurry": window})[0] for window in (blurry, other))
    np.testing.assert_array_equal(before[..., I5T3_RADIUS + 1 :], after[..., I5T3_RADIUS + 1 :])
    assert (before != after)[..., :40].any()


UNKNOWN = {
    "operator": graph_of(helper.make_node("Erf", ["blurry"], ["sharp"])),
    "resize": graph_of(helper.make_node("Resize", ["blurry", "", "scales"], ["sharp"], mode="cubic"), constants={"scales": SCALES}),
    "axis": graph_of(helper.make_node("Concat", ["blurry", "blurry"], ["sharp"], axis=2)),
    "padding": graph_of(conv("blurry", "sharp", 3, auto_pad="SAME_UPPER"), constants={"k": ones(3)}),
    "disconnected": graph_of(helper.make_node("Relu", ["k"], ["sharp"]), constants={"k": ones(3)}),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_it_cannot_see_through_is_an_error(name):
    with pytest.raises(ModelError):
        receptive_field(UNKNOWN[name])


def test_works_on_a_file(graph, tmp_path):
    onnx.save(graph, tmp_path / "m.onnx")
    assert receptive_field(onnx.load(tmp_path / "m.onnx")) == I5T3_RADIUS
