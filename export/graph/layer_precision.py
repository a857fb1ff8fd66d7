"""Which precision each convolution gets: the layers of a graph, the choice made when nobody says, and precision.json."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import numpy_helper

from calibration.tensors import layer_name
from export.graph.typed_graph import FLOATS, QDQ, before_convolutions, behind_convolutions
from runtime.errors import InputError, ModelError
from runtime.files.records import read_object
from runtime.pixels.padding import MULTIPLE

QUANTISED = ("int8", "fp8")
PRECISIONS = (*FLOATS, *QUANTISED)
RECURRENT = re.compile(r"(^|\.)cells?\.")  # module paths inside a ConvGRU or ConvLSTM

# Below these a quantised kernel is not faster or does not exist (ModelOpt 0.47 leaves out the same layers)
LEAST_CHANNELS = {"int8": 16, "fp8": 32}  # in and out; int8 takes fewer when they are a multiple of 8
MOST_TAPS = {"int8": math.inf, "fp8": 32}  # kernel height x width
INT8_CHANNEL_GRID = 8


@dataclass(frozen=True)
class Layer:
    """One convolution of the PyTorch network; a graph that unrolls a loop has several nodes of it."""

    name: str  # module path, such as "temporal.generator.layer3"
    nodes: tuple[str, ...]  # names of its Conv nodes
    inputs: int  # channels
    outputs: int  # channels
    taps: int  # kernel height x width
    groups: int
    first: bool  # no convolution comes before it: it sees the picture
    last: bool  # no convolution comes after it: it makes the picture
    keeps_join: bool  # the cheapest of the layers that read what a Concat joined
    summed: bool  # its result is added to that of another convolution

    @property
    def macs(self) -> int:
        """Multiplications and additions for one sample of its output, all channels, one node."""
        return self.inputs // self.groups * self.outputs * self.taps

    @property
    def recurrent(self) -> bool:
        """Whether it computes a gate or the candidate of a recurrent cell."""
        return RECURRENT.search(self.name) is not None


def layers(model: onnx.ModelProto) -> dict[str, Layer]:
    """The convolutions of a graph by name, in the graph's order, whatever its types and with or without Q/DQ.

    Raises ModelError where the weight of one is no constant.
    """
    graph = model.graph
    behind, before = behind_convolutions(graph), before_convolutions(graph)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    quantisation = {node.output[0]: node.input[0] for node in graph.node if node.op_type in QDQ}
    summed = _summed(model, quantisation)
    joined: dict[str, list[str]] = {}
    concatenated = {node.output[0] for node in graph.node if node.op_type == "Concat"}
    found: dict[str, Layer] = {}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        name = layer_name(node)
        if name in found:
            old = found[name]
            found[name] = replace(old, nodes=(*old.nodes, node.name), last=old.last and node.name not in before)
            continue
        weight = _unquantised(node.input[1], quantisation)
        if weight not in shapes:
            raise ModelError(
                f"the weight of {node.name} is computed in the graph, expected a constant: export it with videodeblur export"
            )
        outputs, inputs, *kernel = shapes[weight]
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        found[name] = Layer(
            name,
            (node.name,),
            inputs * groups,
            outputs,
            math.prod(kernel),
            groups,
            first=node.name not in behind,
            last=node.name not in before,
            keeps_join=False,
            summed=node.name in summed,
        )
        if node.input[0] in concatenated:
            joined.setdefault(node.input[0], []).append(name)
    for names in joined.values():
        cheapest = min(names, key=lambda name: found[name].macs)
        found[cheapest] = replace(found[cheapest], keeps_join=True)
    return found


def _unquantised(value: str, quantisation: Mapping[str, str]) -> str:
    """The tensor that Q and DQ were put behind, itself where there are none."""
    while value in quantisation:
        value = quantisation[value]
    return value


def _summed(model: onnx.ModelProto, quantisation: Mapping[str, str]) -> set[str]:
    """Names of the Conv nodes whose result is added to another's, whether or not codes lie between."""
    made = {node.output[0]: node.name for node in model.graph.node if node.op_type == "Conv"}
    sums = ([_unquantised(value, quantisation) for value in node.input] for node in model.graph.node if node.op_type == "Add")
    return {made[part] for parts in sums if all(part in made for part in parts) for part in parts}


def why_not(layer: Layer, precision: str, placement: str = "tensorrt") -> str:
    """Why a layer is not quantised unless somebody asks for it; empty when it is.

    The picture's own convolutions lose the most; small and grouped convolutions gain nothing. A sum of two convolutions loses much
    where what they make is quantised too (placement "cpu"), and so does a recurrent cell with three bits (FP8): its sums go
    through a sigmoid.
    Somebody must read what a Concat joined as float: else OpenVINO 2026.4 moves the quantisation in front of the Concat and
    computes something else (22 dB, on a CPU with AVX512-VNNI).
    """
    if layer.first:
        return "sees the picture"
    if layer.last:
        return "makes the picture"
    if layer.recurrent and (placement == "cpu" or precision == "fp8"):
        return "gate or state of a recurrent cell"
    if layer.summed and placement == "cpu":
        return "is added to another, and would be rounded before"
    if layer.keeps_join:
        return "reads a Concat, as float for OpenVINO's sake"
    if layer.groups > 1:
        return "is grouped"
    if layer.taps > MOST_TAPS[precision]:
        return f"has {layer.taps} taps, more than {MOST_TAPS[precision]}"
    for channels in (layer.inputs, layer.outputs):
        on_grid = precision == "int8" and channels % INT8_CHANNEL_GRID == 0
        if channels < LEAST_CHANNELS[precision] and not on_grid:
            return f"has {channels} channels, fewer than {LEAST_CHANNELS[precision]}"
    return ""


def default_precisions(model: onnx.ModelProto, precision: str, rest: str, placement: str = "tensorrt") -> dict[str, str]:
    """`precision` ("int8" or "fp8") for the layers worth it, `rest` ("fp32", "fp16" or "bf16") for the others."""
    return {name: rest if why_not(layer, precision, placement) else precision for name, layer in layers(model).items()}


def matching_precisions(model: onnx.ModelProto, pattern: str, precision: str, rest: str) -> dict[str, str]:
    """`precision` for the layers whose whole name matches a regular expression. Raises InputError when none does."""
    names = list(layers(model))
    try:
        chosen = {name for name in names if re.fullmatch(pattern, name)}
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}") from error
    if not chosen:
        raise InputError(f"no layer is called {pattern!r}{_near(pattern, names)}: names are module paths such as {names[0]}")
    return {name: precision if name in chosen else rest for name in names}


def complete_precisions(model: onnx.ModelProto, precisions: Mapping[str, str], rest: str) -> dict[str, str]:
    """The precision of every layer of the graph, `rest` for those not named. Raises InputError on other names or precisions."""
    names = list(layers(model))
    for name, precision in precisions.items():
        if name not in names:
            raise InputError(f"the graph has no layer {name!r}{_near(name, names)}: the choice was made for another export")
        if precision not in PRECISIONS:
            raise InputError(f"the precision of {name} is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    return {name: precisions.get(name, rest) for name in names}


def read_precisions(path: Path) -> dict[str, str]:
    """The layers in precision.json: {"layers": {"temporal.generator.layer3": "int8", ...}}; other keys are ignored.

    Raises InputError when the file is missing or is something else.
    """
    try:
        chosen = read_object(path)["layers"]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} is not {{"layers": {{NAME: PRECISION}}}} ({error}): write it with videodeblur search') from error
    if not isinstance(chosen, dict) or not all(isinstance(value, str) for value in chosen.values()):
        raise InputError(f'"layers" in {path} is not an object of names and precisions: write it with videodeblur search')
    return chosen


def overall_precision(precisions: Mapping[str, str], rest: str) -> str:
    """The word for a file's contract: the quantised precision where all else is `rest`, "mixed" where there are more."""
    words = set(precisions.values())
    quantised = words & set(QUANTISED)
    if len(quantised) > 1 or words - quantised - {rest}:
        return "mixed" if len(words) > 1 else words.pop()
    return quantised.pop() if quantised else rest


def asked_precisions(model: onnx.ModelProto) -> dict[str, str]:
    """The precision of every layer as the graph's types say it: that of its weight, quantised where its input is quantised too.

    A weight's codes are stored, or made of it in the graph, as TensorRT 8.6 wants them.
    """
    names = {value: name for name, value in FLOATS.items()}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    codes = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    in_graph = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}  # INT8: opset 17 has no FP8
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        data, weight = node.input[:2]
        if weight not in codes:
            found[layer_name(node)] = names[types[weight]]
        elif data in codes:
            stored = codes[weight].input[0]
            fp8 = stored not in in_graph and types[stored] == onnx.TensorProto.FLOAT8E4M3FN
            found[layer_name(node)] = "fp8" if fp8 else "int8"
        else:
            found[layer_name(node)] = names[types[codes[weight].input[1]]]  # weight-only: runs in the type of the scale
    return found


def layer_sizes(model: onnx.ModelProto, height: int, width: int) -> dict[str, int]:
    """Multiply-add pairs of every layer for one window of `height` x `width` pixels, all its nodes together.

    Sizes that the network cannot take count as padded, as they are run. Raises InputError when the graph is fixed at another.
    """
    found = layers(model)
    macs = dict.fromkeys(found, 0)
    for node, size in _convolution_sizes(model, _checked_size(model, height, width)):
        macs[layer_name(node)] += found[layer_name(node)].macs * math.prod(size)
    return macs


def _checked_size(model: onnx.ModelProto, height: int, width: int) -> tuple[int, ...]:
    fixed = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:4]]
    if any(size not in (0, asked) for size, asked in zip(fixed, (height, width))):
        raise InputError(f"got {height}x{width}, this model is fixed at {fixed[0]}x{fixed[1]}: use its size")
    return tuple(-(-size // MULTIPLE) * MULTIPLE for size in (height, width))


def _convolution_sizes(model: onnx.ModelProto, size: tuple[int, ...]) -> Iterator[tuple[onnx.NodeProto, tuple[int, ...]]]:
    """Every Conv with its output's height and width. ONNX infers none where a graph of codes pads to sizes that it computes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    sizes = {model.graph.input[0].name: size}
    for node in model.graph.node:
        made = next((sizes[value] for value in node.input if value in sizes), None)
        if made is None:
            continue
        if node.op_type in ("Conv", "MaxPool"):
            made = _strided(node, made, constants)
        elif node.op_type == "Resize":
            scales = numpy_helper.to_array(constants[node.input[2]])[2:]
            made = tuple(int(side * scale) for side, scale in zip(made, scales))
        sizes.update(dict.fromkeys(node.output, made))
        if node.op_type == "Conv":
            yield node, made


def _strided(node: onnx.NodeProto, size: tuple[int, ...], constants: Mapping[str, onnx.TensorProto]) -> tuple[int, ...]:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel = attributes.get("kernel_shape") or constants[node.input[1]].dims[2:]
    pads, strides = attributes.get("pads", [0] * 4), attributes.get("strides", [1, 1])
    return tuple((size[i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in range(2))


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {near[0]!r}" if near else ""
