"""ranges.json: what was saved is loaded, and files that are damaged, foreign or of another model are refused with the reason."""

import base64
import json
import zlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.fingerprints import graph_hash, weights_hash
from calibration.histograms import Extent, Histogram
from calibration.ranges import MeasuredWindow, Ranges, with_scales
from calibration.scales import METHODS, activation_scale
from calibration.tensors import Activation, activations, layer_name, scaled_tensors
from runtime.errors import InputError, ModelError


def small_model(weight=2.0, activation="Sigmoid"):
    """x -> conv "first" -> sigmoid or tanh -> split -> conv "second" on one half; relu and pooling on the other."""

    def conv(data, name, made):
        return helper.make_node("Conv", [data, f"{name}.weight"], [made], name=f"{name}/Conv", kernel_shape=[1, 1])

    nodes = [
        conv("x", "first", "a"),
        helper.make_node(activation, ["a"], ["b"], name="act"),
        helper.make_node("Split", ["b"], ["b0", "b1"], name="split", axis=1, num_outputs=2),
        conv("b0", "second", "c"),
        helper.make_node("Relu", ["c"], ["d"], name="relu"),
        helper.make_node("MaxPool", ["d"], ["e"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["b0", "b1"], ["f"], name="concat", axis=1),
    ]
    weights = [
        numpy_helper.from_array(np.full((2, 1, 1, 1), weight, np.float32), "first.weight"),
        numpy_helper.from_array(np.full((1, 1, 1, 1), 3, np.float32), "second.weight"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("e", "f")]
    graph = helper.make_graph(nodes, "small", [x], outputs, weights)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


def measured(scaled, seed=0):
    values = np.random.default_rng(seed).standard_t(3, size=(1, 500)).astype(np.float32)
    statistics = Histogram() if scaled else Extent()
    statistics.add(values)
    return statistics


def make_ranges(model):
    scaled = scaled_tensors(model.graph)
    tensors = [
        with_scales(tensor, measured(tensor.name in scaled, i), percentile=99) for i, tensor in enumerate(activations(model.graph))
    ]
    return Ranges(
        graph_sha256=graph_hash(model),
        weights_sha256=weights_hash(model),
        checkpoint_sha256="ab" * 32,
        method="percentile",
        percentile=99,
        windows=(MeasuredWindow("car/input", 5, "cd" * 32, 8, 16, 256, 448),),
        versions={"numpy": np.__version__},
        tensors={tensor.name: tensor for tensor in tensors},
    )


@pytest.fixture
def ranges():
    return make_ranges(small_model())


@pytest.fixture
def saved(ranges, tmp_path):
    path = tmp_path / "ranges.json"
    ranges.save(path)
    return path


def test_activations_tell_who_makes_and_reads_them():
    known = {tensor.name: tensor for tensor in activations(small_model().graph)}
    assert list(known) == ["x", "a", "b", "b0", "b1", "c", "d", "e", "f"]
    assert known["x"] == Activation("x", "Input", None, ("first",), None)
    assert known["a"] == Activation("a", "Conv", "first", (), None)
    assert known["b0"] == Activation("b0", "Split", "first", ("second",), 1.0)
    assert known["e"] == Activation("e", "MaxPool", "second", (), None)
    assert known["f"] == Activation("f", "Concat", None, (), 1.0)


def test_tensors_that_are_given_scales():
    assert scaled_tensors(small_model().graph) == {"x", "a", "b", "b0", "d"}  # c is read by its ReLU alone


def test_layers_are_named_by_their_weights():
    conv = helper.make_node("Conv", ["x", "spatial.cells.0.x_update.weight"], ["y"], name="other")
    assert layer_name(conv) == "spatial.cells.0.x_update"
    assert layer_name(helper.make_node("Conv", ["x", "w"], ["y"], name="conv_3")) == "conv_3"


def test_saved_and_loaded(ranges, saved):
    loaded = Ranges.load(saved)
    for field in ("graph_sha256", "weights_sha256", "checkpoint_sha256", "method", "percentile", "windows", "versions"):
        assert getattr(loaded, field) == getattr(ranges, field)
    assert list(loaded.tensors) == list(ranges.tensors)
    for name, tensor in ranges.tensors.items():
        again = loaded.tensors[name]
        assert (again.activation, again.extent, again.scales) == (tensor.activation, tensor.extent, tensor.scales)
        assert (again.histogram is None) == (tensor.histogram is None)
        if tensor.histogram is not None:
            np.testing.assert_array_equal(again.histogram.counts, tensor.histogram.counts)
            assert again.histogram.zeros == tensor.histogram.zeros


def test_another_method_needs_no_second_measurement(saved):
    loaded = Ranges.load(saved)
    for method in METHODS:
        assert loaded.scale("d", method=method) == activation_scale(loaded.tensors["d"].histogram, method, percentile=99)
    assert loaded.scale("d") == loaded.scale("d", method="percentile") != loaded.scale("d", method="max")
    assert loaded.scale("d", "fp8", "max") == loaded.tensors["d"].extent.absmax / 448


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh"])
def test_sigmoid_and_tanh_have_their_known_range(activation):
    known = make_ranges(small_model(activation=activation))
    for name in ("b", "b0"):
        assert {known.scale(name, method=method) for method in METHODS} == {1 / 127}
        assert known.scale(name, "fp8") == 1 / 448


def test_fp16_dangers(ranges):
    big = with_scales(Activation("big", "Conv", "r1", (), None), Extent(10, -40_000.0, 2.0))
    some = Ranges(**{**vars(ranges), "tensors": {**ranges.tensors, "big": big}})
    assert [tensor.layer for tensor in some.beyond_fp16()] == ["r1"]
    assert some.beyond_fp16(share=0.7) == ()
    assert big.fp16_share == pytest.approx(40_000 / 65504)


def test_ranges_fit_their_model(ranges):
    model = small_model()
    ranges.check(model)
    model.doc_string = "a remark"
    model.graph.node[0].doc_string = "another"
    ranges.check(model)


def test_other_weights_are_stale(ranges):
    with pytest.raises(ModelError, match=r"ranges are of other weights \(.*\): run videodeblur calibrate on this model again"):
        ranges.check(small_model(weight=2.0001))


def test_another_graph_is_stale(ranges):
    with pytest.raises(ModelError, match=r"ranges are of another graph \(.*\): run videodeblur calibrate on this model again"):
        ranges.check(small_model(activation="Tanh"))


def damage(saved, change):
    values = json.loads(saved.read_text())
    change(values)
    saved.write_text(json.dumps(values))


def histogram_of(values):
    return next(tensor for tensor in values["tensors"] if tensor["name"] == "d")


def shorten(values):
    histogram = histogram_of(values)["histogram"]
    histogram["counts"] = base64.b64encode(zlib.compress(b"\0" * 80)).decode()


def flip(values):
    histogram = histogram_of(values)["histogram"]
    raw = bytearray(base64.b64decode(histogram["counts"]))
    raw[len(raw) // 2] ^= 0xFF
    histogram["counts"] = base64.b64encode(raw).decode()


DAMAGE = {
    "of another kind": (lambda v: v.update(kind="something"), "it is no object of kind"),
    "of another schema": (lambda v: v.update(schema=99), "it has schema 99, this version reads 1"),
    "without tensors": (lambda v: v.pop("tensors"), "there is no 'tensors'"),
    "without a graph": (lambda v: v.update(graph_sha256="12"), "graph_sha256 is no SHA-256"),
    "a field missing": (lambda v: histogram_of(v).pop("low"), "there is no 'low'"),
    "range upside down": (lambda v: histogram_of(v).update(low=3.0, high=-3.0), "has the range 3.0 to -3.0"),
    "values missing": (lambda v: histogram_of(v).update(count=7), "has 500 values, expected 7"),
    "scale of zero": (lambda v: histogram_of(v)["scales"]["int8"].update(mse=0.0), "has the int8 scale 0.0 by mse"),
    "scale as text": (lambda v: histogram_of(v)["scales"]["fp8"].update(max="big"), "not supported between"),
    "unknown method": (lambda v: v.update(method="guess"), "the method is 'guess'"),
    "few bins": (shorten, "has 10 bins, expected 4096"),
    "bits flipped": (flip, "not a usable ranges.json"),
    "no list": (lambda v: v.update(tensors=3), "not iterable"),
}


@pytest.mark.parametrize(("change", "says"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused(change, says, saved):
    damage(saved, change)
    with pytest.raises(InputError, match=says) as error:
        Ranges.load(saved)
    assert str(saved) in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 500, -20])
def test_files_cut_off_are_refused(keep, saved):
    saved.write_text(saved.read_text()[:keep])
    with pytest.raises(InputError, match=r"not a usable ranges\.json .* run videodeblur calibrate again"):
        Ranges.load(saved)


def test_binary_and_absent_files_are_refused(tmp_path):
    (tmp_path / "ranges.json").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match=r"not a usable ranges\.json"):
        Ranges.load(tmp_path / "ranges.json")
    with pytest.raises(InputError, match="No such file or directory: make it with videodeblur calibrate"):
        Ranges.load(tmp_path / "absent.json")


def test_tensors_without_a_scale(ranges):
    with pytest.raises(InputError, match="no scale of tensor 'nowhere'"):
        ranges.scale("nowhere")
    with pytest.raises(InputError, match="no scale of tensor 'c'"):
        ranges.scale("c")
    with pytest.raises(InputError, match="entropy is for int8"):
        ranges.scale("d", "fp8", "entropy")


def test_a_failed_save_leaves_the_file_as_it_was(ranges, saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        Ranges(**{**vars(ranges), "versions": {"numpy": object()}}).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
