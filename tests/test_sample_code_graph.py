"""The graph around the graph: codes in, codes out, the same as the runtime's own conversion and padding around the float graph."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from export.graph.opset17 import lower_to_opset17
from export.graph.sample_code_graph import wrap_sample_codes
from runtime import InputError
from runtime.pixels import padding
from runtime.pixels.sample_codes import from_unit, to_unit

MULTIPLE = 8
POINTWISE = '<ir_version: 10, opset_import: ["" : 20]> p (float[n, 5, h, w] blurry) => (float[n, 5, h, w] sharp)'
DEPTHS = [("u8", 8), ("u16", 9), ("u16", 10), ("u16", 12), ("u16", 16)]
FLOAT_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
test (float[batch, 5, height, width] blurry) => (float[batch, 5, height, width] sharp)
<float[4] scales = {1.0, 1.0, 8.0, 8.0}>
{
    detail = Conv <pads = [1, 1, 1, 1]> (blurry, weight)
    coarse = MaxPool <kernel_shape = [8, 8], strides = [8, 8]> (detail)
    smooth = Resize <mode = "linear"> (coarse, , scales)
    change = Mul (detail, smooth)
    sharp = Add (blurry, change)
}
"""


def float_graph(height="height", width="width"):
    """A stand-in for the network: it needs multiples of 8, looks at its surroundings, and leaves [0, 1]."""
    model = parser.parse_model(FLOAT_GRAPH.replace("height", str(height)).replace("width", str(width)))
    weight = np.random.default_rng(0).normal(0, 0.3, (5, 5, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    return model


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def random_codes(bits, *shape):
    codes = np.random.default_rng(1).integers(0, 2**bits, shape)
    return codes.astype(np.uint8 if bits == 8 else np.uint16)


def run_codes(model, codes):
    """A graph of codes on an array of codes, as the runtime does it."""
    if codes.dtype == np.uint8:
        return session(model).run(None, {"blurry": codes})[0]
    pairs = session(model).run(None, {"blurry": codes.view(np.uint8).reshape(*codes.shape, 2)})[0]
    return np.ascontiguousarray(pairs).view(np.uint16).reshape(codes.shape)


def by_the_runtime(codes, bits, color_range):
    unit = padding.pad(to_unit(codes, bits, color_range), MULTIPLE)
    sharp = session(float_graph()).run(None, {"blurry": unit})[0]
    return from_unit(padding.crop(sharp, *codes.shape[-2:]), bits, color_range)


@pytest.mark.parametrize("color_range", ["limited", "full"])
@pytest.mark.parametrize(("io", "bits"), DEPTHS)
@pytest.mark.parametrize("size", [(5, 6), (8, 8), (9, 15), (67, 101), (64, 96)])
def test_codes_are_those_of_the_runtime(io, bits, color_range, size):
    codes = random_codes(bits, 2, 5, *size)
    got = run_codes(wrap_sample_codes(float_graph(), io, bits, color_range, MULTIPLE), codes)
    np.testing.assert_array_equal(got, by_the_runtime(codes, bits, color_range))


@pytest.mark.parametrize(("io", "bits"), [("u8", 8), ("u16", 10)])
@pytest.mark.parametrize("size", [(61, 83), (64, 96)], ids=["padded", "fitting"])
def test_fixed_sizes(io, bits, size):
    codes = random_codes(bits, 1, 5, *size)
    core = float_graph(*padding.padded_size(*size, MULTIPLE))
    model = wrap_sample_codes(core, io, bits, "limited", MULTIPLE, *size)
    assert not {node.op_type for node in model.graph.node} & {"Shape", "Div"}
    np.testing.assert_array_equal(run_codes(model, codes), by_the_runtime(codes, bits, "limited"))


def test_a_fitting_fixed_size_is_not_padded():
    model = wrap_sample_codes(float_graph(64, 96), "u8", 8, "full", MULTIPLE, 64, 96)
    assert not {node.op_type for node in model.graph.node} & {"Pad", "Slice"}


@pytest.mark.parametrize(("io", "bits"), DEPTHS)
def test_in_opset_17_too(io, bits):
    codes = random_codes(bits, 1, 5, 21, 30)
    model = lower_to_opset17(wrap_sample_codes(float_graph(), io, bits, "limited", MULTIPLE))
    np.testing.assert_array_equal(run_codes(model, codes), by_the_runtime(codes, bits, "limited"))


@pytest.mark.parametrize("color_range", ["limited", "full"])
def test_every_code_survives_the_identity(color_range):
    """Also foot-room and head-room, and the extremes, which must not wrap around."""
    identity = parser.parse_model(f"{POINTWISE} {{ sharp = Identity (blurry) }}")
    codes = np.broadcast_to(np.arange(65536, dtype=np.uint16).reshape(1, 1, 256, 256), (1, 5, 256, 256)).copy()
    model = wrap_sample_codes(identity, "u16", 16, color_range, MULTIPLE)
    np.testing.assert_array_equal(run_codes(model, codes), codes)


def test_overshoot_is_clipped_to_the_codes():
    brighter = parser.parse_model(f"{POINTWISE} <float two = {{2.0}}> {{ unit = Add (blurry, blurry) sharp = Sub (unit, two) }}")
    codes = random_codes(8, 1, 5, 8, 8)
    got = run_codes(wrap_sample_codes(brighter, "u8", 8, "full", MULTIPLE), codes)
    np.testing.assert_array_equal(got, np.clip(2 * codes.astype(int) - 510, 0, 255))


def test_interface_and_names():
    model = wrap_sample_codes(float_graph(), "u16", 10, "limited", MULTIPLE)
    onnx.checker.check_model(model, full_check=True)
    (blurry,), (sharp,) = model.graph.input, model.graph.output
    assert (blurry.name, sharp.name) == ("blurry", "sharp")
    assert [dim.dim_value or dim.dim_param for dim in blurry.type.tensor_type.shape.dim] == ["batch", 5, "height", "width", 2]
    added = [node.name for node in model.graph.node if node.name]
    assert added
    assert all(name.startswith("codes/") for name in added)


def test_the_float_graph_is_not_touched():
    model = float_graph()
    before = model.SerializeToString()
    wrap_sample_codes(model, "u8", 8, "full", MULTIPLE)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("io", "bits"), [("u8", 10), ("u16", 8), ("u16", 17), ("f32", 8)])
def test_other_depths_are_refused(io, bits):
    with pytest.raises(InputError):
        wrap_sample_codes(float_graph(), io, bits, "full", MULTIPLE)
