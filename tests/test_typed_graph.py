import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, numpy_helper, parser, shape_inference

from export.graph.sample_code_graph import wrap_sample_codes
from export.graph.typed_graph import retype
from runtime.errors import InputError, ModelError

HALF, SINGLE, BRAIN = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.BFLOAT16

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, 2, 8, 8] blurry) => (float[1, 2, 16, 16] sharp)
<float[2, 2, 1, 1] w = {1, 2, 3, 4}, float half = {0.5}, float[4] scales = {1, 1, 2, 2}, int64[1] one = {1}, int64[1] two = {2}>
{
    [slice] part = Slice (blurry, one, two, one)
    [join] joined = Concat <axis = 1> (part, part)
    [a] a_out = Conv (joined, w)
    [relu] r = Relu (a_out)
    [scale] m = Mul (r, half)
    [up] u = Resize <mode = "linear"> (m, , scales)
    [b] b_out = Conv (u, w)
    [plus] sharp = Add (b_out, half)
}
"""


@pytest.fixture
def graph():
    return parser.parse_model(GRAPH)


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return onnx.load(tiny_model)


def value_types(model):
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def made_type(model, name):
    """The type that a node computes in: its first output's."""
    node = next(node for node in model.graph.node if node.name == name)
    return value_types(model)[node.output[0]]


def casts(model):
    return [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]


def outputs(model, blurry):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"blurry": blurry})[0]


@pytest.mark.parametrize(("word", "kind"), [("fp16", HALF), ("bf16", BRAIN)])
def test_the_network_has_one_cast_in_and_one_out(tiny, word, kind):
    typed = retype(tiny, word)
    onnx.checker.check_model(typed, full_check=True)
    assert casts(typed) == [("blurry", kind), ("r2/Conv_output_0", SINGLE)]
    assert {tensor.data_type for tensor in typed.graph.initializer if tensor.name.endswith((".weight", ".bias"))} == {kind}
    assert [value.type.tensor_type.elem_type for value in (*typed.graph.input, *typed.graph.output)] == [SINGLE, SINGLE]


def test_the_model_handed_over_is_not_changed(tiny):
    before = tiny.SerializeToString()
    retype(tiny, "fp16")
    assert tiny.SerializeToString() == before


def test_the_residual_sum_stays_fp32(tiny):
    typed = retype(tiny, "fp16")
    last = next(node for node in typed.graph.node if "sharp" in node.output)
    assert last.op_type == "Add"
    assert {value_types(typed)[value] for value in last.input} == {SINGLE}


def test_fp32_is_the_same_graph(tiny):
    typed = retype(tiny, "fp32")
    assert [node.SerializeToString() for node in typed.graph.node] == [node.SerializeToString() for node in tiny.graph.node]


def test_computes_the_same_up_to_the_type(tiny):
    blurry = np.random.default_rng(0).random((1, 5, 16, 24), dtype=np.float32)
    error = np.abs(outputs(retype(tiny, "fp16"), blurry) - outputs(tiny, blurry)).max()
    assert 0 < error < 1e-3


def test_bf16_runs_on_openvino(tiny, tmp_path):
    onnx.save(retype(tiny, "bf16"), tmp_path / "bf16.onnx")
    blurry = np.random.default_rng(0).random((1, 5, 16, 24), dtype=np.float32)
    got = openvino.Core().compile_model(tmp_path / "bf16.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(blurry)[0]
    assert 0 < np.abs(got - outputs(tiny, blurry)).max() < 1e-2


def test_codes_are_converted_in_fp32(tiny):
    codes = wrap_sample_codes(tiny, "u8", 8, "limited", 8)
    typed = retype(codes, "fp16")
    types, network = value_types(typed), {node.name for node in tiny.graph.node}
    around = {node.name for node in codes.graph.node} - network
    made = {types[node.output[0]] for node in typed.graph.node if node.name in around}
    assert HALF not in made
    assert SINGLE in made
    assert [kind for _, kind in casts(typed) if kind in (HALF, SINGLE)].count(HALF) == 1
    blurry = np.random.default_rng(0).integers(16, 236, (1, 5, 21, 30), dtype=np.uint8)
    off = outputs(typed, blurry).astype(int) - outputs(codes, blurry)
    assert np.abs(off).max() <= 1
    assert np.count_nonzero(off) < 0.02 * off.size


def test_scales_of_resize_stay_fp32_and_integers_stay(graph):
    types = value_types(retype(graph, "fp16"))
    assert (types["scales"], types["one"]) == (SINGLE, TensorProto.INT64)


def test_a_constant_of_two_types_is_there_twice_and_else_keeps_its_name(graph):
    types = value_types(retype(graph, "fp16"))
    assert (types["half"], types["half_fp16"], types["w"]) == (SINGLE, HALF, HALF)
    assert "w_fp16" not in types


def test_a_named_node_takes_its_activation_along(graph):
    typed = retype(graph, "fp16", {"a": "fp32"})
    assert [made_type(typed, name) for name in ("slice", "join", "a", "relu", "scale", "b")] == [
        SINGLE, SINGLE, SINGLE, SINGLE, HALF, HALF,
    ]  # fmt: skip
    assert casts(typed) == [("r", HALF), ("b_out", SINGLE)]


def test_moves_before_the_first_convolution_follow_their_readers(graph):
    typed = retype(graph, "fp16")
    assert [made_type(typed, name) for name in ("slice", "join")] == [HALF, HALF]
    assert casts(typed)[0] == ("blurry", HALF)


def test_moves_with_readers_of_two_types_stay_fp32():
    text = GRAPH.replace("Add (b_out, half)", "Add (b_out, joined)").replace("1, 1, 2, 2", "1, 1, 1, 1").replace("16, 16", "8, 8")
    typed = retype(parser.parse_model(text), "fp16")
    assert made_type(typed, "join") == SINGLE
    assert casts(typed) == [("joined", HALF), ("b_out", SINGLE)]


def test_one_cast_serves_all_readers_of_a_type():
    text = GRAPH.replace("[b] b_out = Conv (u, w)", "[b] b1 = Conv (u, w)\n [c] c1 = Conv (u, w)\n [d] b_out = Add (b1, c1)")
    typed = retype(parser.parse_model(text), "fp16", {"up": "fp32"})
    assert casts(typed).count(("u", HALF)) == 1


def test_an_output_made_by_a_convolution_is_cast():
    text = GRAPH.replace("[b] b_out = Conv (u, w)", "[b] sharp = Conv (u, w)").replace("[plus] sharp = Add (b_out, half)", "")
    typed = retype(parser.parse_model(text), "fp16")
    assert typed.graph.output[0].type.tensor_type.elem_type == SINGLE
    assert casts(typed)[-1] == ("sharp_fp16", SINGLE)


def test_bf16_raises_the_opset_and_fp16_does_not(graph):
    assert retype(graph, "bf16").opset_import[0].version == 22
    assert retype(graph, "fp16").opset_import[0].version == 20


def test_a_weight_beyond_fp16_is_refused_by_name(graph):
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((2, 2, 1, 1), 7e4, np.float32), "w"))
    with pytest.raises(ModelError, match="w holds 7e\\+04, beyond fp16"):
        retype(graph, "fp16")
    assert made_type(retype(graph, "bf16"), "a") == BRAIN


def test_nameless_nodes_get_names_and_doubles_are_refused(graph):
    graph.graph.node[2].name = ""
    assert "a_out" in [node.name for node in retype(graph, "fp16").graph.node]
    graph.graph.node[2].name = "b"
    with pytest.raises(ModelError, match="two nodes are called b"):
        retype(graph, "fp16")


@pytest.mark.parametrize(
    ("default", "types", "message"),
    [
        ("fp8", {}, "the type is 'fp8', expected one of fp32, fp16, bf16"),
        ("fp16", {"a": "int8"}, "the type is 'int8'"),
        ("fp16", {"c": "fp32"}, "there is no node 'c'"),
    ],
)
def test_names_that_do_not_exist_are_refused(graph, default, types, message):
    with pytest.raises(InputError, match=message):
        retype(graph, default, types)


def test_a_typed_graph_is_refused(graph):
    with pytest.raises(ModelError, match="float16, expected an fp32 graph"):
        retype(retype(graph, "fp16"), "bf16")


def test_an_old_opset_is_refused(graph):
    graph.opset_import[0].version = 17
    with pytest.raises(ModelError, match="opset 17"):
        retype(graph, "fp16")


def test_a_graph_that_is_not_valid_is_refused(graph):
    graph.graph.node[2].input[0] = "nothing"
    with pytest.raises(ModelError, match="not valid ONNX"):
        retype(graph, "fp16")
