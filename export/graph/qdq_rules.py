"""QuantizeLinear and DequantizeLinear (Q/DQ) in a graph: what is quantised, and how, is written in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from calibration.ranges import Ranges
from calibration.scales import LARGEST_CODE, METHODS, weight_scales
from calibration.tensors import layer_name
from export.graph.fp16_range import fp32_nodes
from export.graph.layer_precision import QUANTISED, complete_precisions, layers
from export.graph.typed_graph import DTYPES, FLOATS, QDQ, fp32_values, named, producers, raise_opset, readers, retype
from runtime.errors import InputError, ModelError

PLACEMENTS = ("tensorrt", "cpu")
WEIGHTS = ("per-channel", "per-tensor")
QDQ_OPSET = 19  # the first with FP8 and with scales in fp16
CODES = {"int8": np.dtype(np.int8), "uint8": np.dtype(np.uint8), "fp8": np.dtype(ml_dtypes.float8_e4m3fn)}
FINER_UNSIGNED = 127 / 255  # a uint8 step over the int8 step for the same range
OUTPUT_CHANNELS = 0  # axis of a Conv's weight

POOLING = {"MaxPool"}  # its outputs are among its inputs, so it can run on codes
PARTS = {"Concat", "Split"}  # make one tensor of several, or several of one
KEEPS_SIGN = {"MaxPool", "Resize"}  # make no negative values of others


@dataclass(frozen=True)
class QdqOptions:
    """How a graph is quantised."""

    placement: str = "tensorrt"  # "tensorrt" (OpenVINO reads it too) or "cpu" (ONNX Runtime's kernels)
    rest: str = "fp32"  # float type of everything that is not quantised
    weights: str = "per-channel"  # or "per-tensor"
    method: str | None = None  # of the activations' scales, one of calibration.scales.METHODS; None: the one in the ranges

    def __post_init__(self) -> None:
        """Raises InputError on another word, or words that do not go together."""
        choices = {"placement": PLACEMENTS, "rest": tuple(FLOATS), "weights": WEIGHTS, "method": (*METHODS, None)}
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise InputError(f"{field} is {getattr(self, field)!r}, expected one of {', '.join(filter(None, allowed))}")
        if self.placement == "cpu" and self.rest != "fp32":
            raise InputError(
                f"placement 'cpu' needs rest 'fp32', got {self.rest!r}: ONNX Runtime's CPU kernels fuse fp32 Q/DQ only"
            )


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear and a DequantizeLinear to be put behind a tensor."""

    tensor: str
    codes: str  # a key of CODES
    readers: frozenset[str]  # names of the nodes that will read it instead of the tensor

    @property
    def precision(self) -> str:
        """The precision that calibration knows."""
        return "int8" if self.codes == "uint8" else self.codes


def quantize(
    model: onnx.ModelProto, ranges: Ranges, precisions: Mapping[str, str], options: QdqOptions | None = None
) -> onnx.ModelProto:
    """A copy of an fp32 graph with Q/DQ around its quantised layers and the named float types everywhere else.

    `ranges` were measured on this very graph. `precisions` gives layers by name "fp32", "fp16", "bf16", "int8" or "fp8"; layers
    not named get `options.rest`.

    1. A quantised layer's data and weight both come from a DequantizeLinear; its bias stays float.
    2. Quantisation is symmetric: zero points are 0, and what lies outside the range saturates.
    3. Weights are stored as codes, with one scale per output channel (axis 0) or one for all; nodes that share a weight share its
       DequantizeLinear.
    4. A tensor has one Q/DQ per precision, shared by all quantised layers that read it. None stands behind a convolution or
       between it and its activation, other than what the next quantised layer reads.
    5. Tensors before and behind a MaxPool, and those that Concat or Split make of one another, have one scale: the largest. So a
       hidden state has one scale wherever it is read.
    6. INT8 stands before a MaxPool as well as behind it, so that the pooling runs on codes.
    7. Scales are positive numbers of the rest's float type, rounded up, so that nothing more saturates.
    8. placement "cpu" adds Q/DQ behind every quantised layer, since ONNX Runtime's kernels write codes: behind its Relu as uint8
       (zero point 0), before and behind its LeakyRelu as int8, directly behind it where neither follows. All readers read such a
       result as codes. Tensors before and behind a Resize have one scale, so that it runs on codes.
    9. Everything else is typed by `typed_graph.retype`; with rest "fp16", what `fp16_range` finds too large is fp32.

    Raises ModelError when the graph holds Q/DQ already, is typed, or is not the one that the ranges are of; InputError on layers,
    precisions or ranges that do not exist, and on FP8 with placement "cpu".
    """
    options = options or QdqOptions()
    ranges.check(model)
    too_large = fp32_nodes(model, ranges) if options.rest == "fp16" else {}
    model = named(model)
    precisions = complete_precisions(model, precisions, options.rest)
    quantised = {name: precision for name, precision in precisions.items() if precision in QUANTISED}
    _check(model, quantised, options.placement)
    if quantised:
        raise_opset(model, QDQ_OPSET)
        pairs = planned_pairs(model.graph, quantised, options.placement)
        scales = {}
        for members in tied_pairs(model.graph, pairs, options.placement):
            step = ranges.shared_scale([pair.tensor for pair in members], members[0].precision, options.method)
            scales.update({pair: step * FINER_UNSIGNED if pair.codes == "uint8" else step for pair in members})
        quantise_weights(model.graph, quantised, options)
        insert_pairs(model.graph, pairs, scales, options.rest)
    floats = {name: precision for name, precision in precisions.items() if precision in FLOATS and precision != options.rest}
    nodes = {node: floats[layer.name] for layer in layers(model).values() if layer.name in floats for node in layer.nodes}
    return retype(model, options.rest, {**dict.fromkeys(too_large, "fp32"), **nodes})


def planned_pairs(graph: onnx.GraphProto, quantised: Mapping[str, str], placement: str) -> list[Pair]:
    """Where Q/DQ go, by rules 1, 4, 6 and 8; the graph is not changed."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for conv, precision in _quantised_convolutions(graph, quantised):
        wanted.setdefault((conv.input[0], precision), set()).add(conv.name)
    _add_pooling(graph, wanted)
    results = dict.fromkeys(_results(graph, quantised)) if placement == "cpu" else {}
    read_by, made_by = readers(graph), producers(graph)
    for tensor in results:
        wanted[tensor, "int8"] = {node.name for node in read_by.get(tensor, [])}
    return [
        Pair(tensor, "uint8" if placement == "cpu" and _never_negative(tensor, made_by) else codes, frozenset(names))
        for (tensor, codes), names in wanted.items()
    ]


def tied_pairs(graph: onnx.GraphProto, pairs: Sequence[Pair], placement: str) -> list[list[Pair]]:
    """The pairs that share a scale, by rule 5."""
    group_of = _groups(graph, POOLING | PARTS | ({"Resize"} if placement == "cpu" else set()))
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((group_of.get(pair.tensor, pair.tensor), pair.precision), []).append(pair)
    return list(groups.values())


def quantise_weights(graph: onnx.GraphProto, quantised: Mapping[str, str], options: QdqOptions) -> None:
    """Rules 2, 3 and 7 for weights: replaces those of the quantised layers by codes and a DequantizeLinear, in place."""
    axis = OUTPUT_CHANNELS if options.weights == "per-channel" else None
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for conv, precision in _quantised_convolutions(graph, quantised):
        users.setdefault((conv.input[1], precision), []).append(conv)
    read_by = readers(graph)
    for (name, precision), convs in users.items():
        alone = len(read_by[name]) == len(convs)
        dequantised = name if alone else f"{name}_{precision}"
        values = numpy_helper.to_array(constants[name])
        if alone:
            graph.initializer.remove(constants[name])
        scale = rounded_up(weight_scales(values, "max", precision, axis), options.rest)
        _add_weight(graph, dequantised, values, scale, precision)
        for conv in convs:
            conv.input[1] = dequantised


def insert_pairs(graph: onnx.GraphProto, pairs: Sequence[Pair], scales: Mapping[Pair, float], rest: str) -> None:
    """Rules 2 and 7 for data: puts each pair right behind what makes its tensor, and hands it to its readers, in place."""
    behind: dict[str, list[Pair]] = {}
    for pair in pairs:
        behind.setdefault(pair.tensor, []).append(pair)
    for node in graph.node:
        for i, value in enumerate(node.input):
            for pair in behind.get(value, []):
                if node.name in pair.readers and (i == 0 or node.op_type != "Conv"):
                    node.input[i] = f"{value}_{pair.codes}_dq"
    nodes = [node for value in graph.input for node in _pair_nodes(graph, behind.get(value.name, []), scales, rest)]
    for node in graph.node:
        nodes.append(node)
        for value in node.output:
            nodes += _pair_nodes(graph, behind.get(value, []), scales, rest)
    del graph.node[:]
    graph.node.extend(nodes)


def rounded_up(scale: npt.ArrayLike, rest: str) -> npt.NDArray[np.float32]:
    """The least numbers of a float type that are not below `scale`, as float32; of fp32 where the type does not reach so far."""
    exact = np.asarray(scale, np.float64)
    with np.errstate(over="ignore"):
        low = exact.astype(DTYPES[rest])
        low = np.where(low.astype(np.float64) < exact, np.nextafter(low, DTYPES[rest].type(np.inf)), low).astype(np.float32)
    return low if np.isfinite(low).all() or rest == "fp32" else rounded_up(exact, "fp32")


def _check(model: onnx.ModelProto, quantised: Mapping[str, str], placement: str) -> None:
    if any(node.op_type in QDQ for node in model.graph.node):
        raise ModelError("the graph is quantised already, expected an fp32 graph: hand over the file that videodeblur export wrote")
    fp32_values(model)
    if placement == "cpu" and "fp8" in quantised.values():
        raise InputError("placement 'cpu' is for int8, ONNX Runtime has no FP8 convolution on a CPU: use placement 'tensorrt'")


def _quantised_convolutions(graph: onnx.GraphProto, quantised: Mapping[str, str]) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.node:
        if node.op_type == "Conv" and layer_name(node) in quantised:
            yield node, quantised[layer_name(node)]


def _add_pooling(graph: onnx.GraphProto, wanted: dict[tuple[str, str], set[str]]) -> None:
    made_by = producers(graph)
    for tensor, codes in list(wanted):
        pool = made_by.get(tensor)
        while codes == "int8" and pool is not None and pool.op_type in POOLING:
            wanted.setdefault((pool.input[0], codes), set()).add(pool.name)
            pool = made_by.get(pool.input[0])


def _results(graph: onnx.GraphProto, quantised: Mapping[str, str]) -> Iterator[str]:
    """The tensors that quantised layers make, by rule 8."""
    read_by = readers(graph)
    for conv, _ in _quantised_convolutions(graph, quantised):
        result = conv.output[0]
        following = read_by.get(result, [])
        activation = following[0] if len(following) == 1 else None
        if activation is None or activation.op_type != "Relu":
            yield result
        if activation is not None and activation.op_type in ("Relu", "LeakyRelu"):
            yield activation.output[0]


def _never_negative(tensor: str, made_by: Mapping[str, onnx.NodeProto]) -> bool:
    node = made_by.get(tensor)
    while node is not None and node.op_type in KEEPS_SIGN:
        node = made_by.get(node.input[0])
    return node is not None and node.op_type == "Relu"


def _groups(graph: onnx.GraphProto, tying: set[str]) -> dict[str, str]:
    """A representative for every tensor that is tied to others."""
    parent: dict[str, str] = {}

    def root(value: str) -> str:
        while parent.setdefault(value, value) != value:
            value = parent[value]
        return value

    for node in graph.node:
        if node.op_type in tying:
            data = node.input if node.op_type == "Concat" else node.input[:1]
            for value in (*data, *node.output):
                parent[root(value)] = root(node.output[0])
    return {value: root(value) for value in list(parent)}


def _add_weight(
    graph: onnx.GraphProto, name: str, values: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], precision: str
) -> None:
    steps = scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale
    parts = {
        f"{name}_codes": to_codes(values / steps, precision),
        f"{name}_scale": scale,
        f"{name}_zero": np.zeros(scale.shape, CODES[precision]),
    }
    graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
    where = {"axis": OUTPUT_CHANNELS} if scale.ndim else {}
    graph.node.insert(0, helper.make_node("DequantizeLinear", list(parts), [name], name=f"{name}/DequantizeLinear", **where))


def to_codes(units: npt.NDArray[np.floating], precision: str) -> npt.NDArray[np.generic]:
    """Values in units of their scale -> INT8 codes -127..127 or FP8 numbers up to 448, rounded half to even, saturated."""
    largest = LARGEST_CODE[precision]
    limited = np.clip(units, -largest, largest)
    return (np.rint(limited) if precision == "int8" else limited).astype(CODES[precision])


def _pair_nodes(graph: onnx.GraphProto, pairs: Sequence[Pair], scales: Mapping[Pair, float], rest: str) -> Iterator[onnx.NodeProto]:
    for pair in pairs:
        stem = f"{pair.tensor}_{pair.codes}"
        scale = rounded_up(scales[pair], rest)
        zero = np.zeros((), CODES[pair.codes])
        graph.initializer.extend([numpy_helper.from_array(scale, f"{stem}_scale"), numpy_helper.from_array(zero, f"{stem}_zero")])
        parameters = [f"{stem}_scale", f"{stem}_zero"]
        yield helper.make_node("QuantizeLinear", [pair.tensor, *parameters], [f"{stem}_q"], name=f"{stem}/QuantizeLinear")
        yield helper.make_node("DequantizeLinear", [f"{stem}_q", *parameters], [f"{stem}_dq"], name=f"{stem}/DequantizeLinear")
