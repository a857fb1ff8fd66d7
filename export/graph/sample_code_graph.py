"""Puts the conversion of sample codes into the graph: codes of any size in, codes of that size out.

cast -> normalise (fp32) -> reflect to a multiple of 8 at the bottom and right -> network -> crop -> denormalise -> round -> clip
to the codes -> cast. Agrees with `sample_codes` and `padding` of `runtime.pixels` around the float graph. Rounding and clipping
stand before the cast, since TensorRT's cast truncates and is undefined outside the type. Every node added is called `codes/...`:
it computes in fp32, whatever the network inside is converted to later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

from runtime.errors import InputError
from runtime.files.contract import INPUT, OUTPUT
from runtime.pixels import padding, sample_codes

BYTES = 2  # of a u16 code, low byte first, since TensorRT takes no uint16
UNIT_INPUT, UNIT_OUTPUT = "unit_blurry", "unit_sharp"  # the float graph's input and output, inside
BATCH, HEIGHT, WIDTH = 0, 2, 3  # axes of (N, F, H, W)

READ = {
    "u8": "codes = Cast <to = 1> (blurry)",
    "u16": """
        byte_values = Cast <to = 1> (blurry)
        weighted_bytes = Mul (byte_values, byte_weights)
        codes = ReduceSum <keepdims = 0> (weighted_bytes, last_axis)
    """,
}
NORMALISE = """
    shifted_codes = Sub (codes, code_offset)
    unit_codes = Mul (shifted_codes, unit_per_code)
"""
MEASURE = """
    shape = Shape (blurry)
    size = Slice (shape, height_axis, width_axis_end, size_axis)
    size_raised = Add (size, multiple_less_one)
    blocks = Div (size_raised, multiple)
    padded_size = Mul (blocks, multiple)
    missing = Sub (padded_size, size)
    margins = Concat <axis = 0> (no_margins, missing)
"""
PAD = 'unit_blurry = Pad <mode = "reflect"> (unit_codes, margins)'
CROP = "cropped = Slice (unit_sharp, origin, size, size_axes)"
QUANTISE = """
    scaled = Mul (cropped, code_per_unit)
    offset_codes = Add (scaled, code_offset)
    rounded = Round (offset_codes)
    clipped = Clip (rounded, lowest_code, highest_code)
"""
WRITE = {
    "u8": "sharp = Cast <to = 2> (clipped)",
    "u16": """
        per_byte = Mul (clipped, byte_inverse)
        high_byte = Floor (per_byte)
        high_part = Mul (high_byte, byte_range)
        low_byte = Sub (clipped, high_part)
        low_column = Unsqueeze (low_byte, last_axis)
        high_column = Unsqueeze (high_byte, last_axis)
        byte_columns = Concat <axis = -1> (low_column, high_column)
        sharp = Cast <to = 2> (byte_columns)
    """,
}


def wrap_sample_codes(
    model: onnx.ModelProto,
    io: str,
    bits: int,
    color_range: str,
    multiple: int,
    height: int | None = None,
    width: int | None = None,
) -> onnx.ModelProto:
    """A copy of a float graph that reads and writes sample codes.

    `io` "u8": (N, F, H, W) uint8, `bits` 8. "u16": (N, F, H, W, 2) uint8, the low and the high byte of codes of `bits` depth.
    With `height` and `width` the size is fixed, and the float graph must have the padded size; without, any H and W from 5 on
    (a reflection needs one sample more than it adds; below, the runtime refuses). Raises InputError on other combinations.
    """
    if io not in READ or (io == "u8") != (bits == 8):
        raise InputError(f"io is {io!r} with {bits} bits, expected 'u8' with 8 or 'u16' with 9 to 16")
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    graph = wrapped.graph
    rename_values(graph, {INPUT: UNIT_INPUT, OUTPUT: UNIT_OUTPUT})
    before, after = _texts(io, padded=needs_padding(height, width, multiple), measured=height is None or width is None)
    nodes = [*parsed_nodes(before), *graph.node, *parsed_nodes(after)]
    del graph.node[:]
    graph.node.extend(nodes)
    add_constants(graph, _code_constants(bits, color_range) | padding_constants(multiple, height, width))
    _declare(graph, io, height, width)
    onnx.checker.check_model(wrapped, full_check=True)
    return wrapped


def _texts(io: str, padded: bool, measured: bool) -> tuple[str, str]:
    before, after = READ[io] + NORMALISE, QUANTISE + WRITE[io]
    if padded:
        return before + (MEASURE if measured else "") + PAD, CROP + after
    return before.replace("unit_codes", UNIT_INPUT), after.replace("cropped", UNIT_OUTPUT)


def parsed_nodes(text: str) -> list[onnx.NodeProto]:
    """Nodes in ONNX's own notation, each called codes/ and what it makes."""
    nodes = parser.parse_graph(f"part () => () {{ {text} }}").node
    for node in nodes:
        node.name = f"codes/{node.output[0]}"
    return list(nodes)


def needs_padding(height: int | None, width: int | None, multiple: int) -> bool:
    """Whether pictures of this size, None = any, may have to be padded."""
    return height is None or width is None or padding.padded_size(height, width, multiple) != (height, width)


def padding_constants(multiple: int, height: int | None, width: int | None) -> dict[str, np.ndarray[Any, Any]]:
    """What MEASURE, PAD and CROP need."""
    indices = {
        "height_axis": [HEIGHT],
        "width_axis_end": [WIDTH + 1],
        "size_axis": [0],
        "multiple": [multiple],
        "multiple_less_one": [multiple - 1],
        "no_margins": [0] * 6,  # at the start of all four axes, and at the end of N and F
        "origin": [0, 0],
        "size_axes": [HEIGHT, WIDTH],
    }
    if height is not None and width is not None:
        missing = np.subtract(padding.padded_size(height, width, multiple), (height, width))
        indices |= {"size": [height, width], "margins": [0] * 6 + [int(count) for count in missing]}
    return {name: np.array(value, np.int64) for name, value in indices.items()}


def _code_constants(bits: int, color_range: str) -> dict[str, np.ndarray[Any, Any]]:
    offset, span = sample_codes.scale(bits, color_range)
    numbers = {
        "code_offset": offset,
        "unit_per_code": 1 / span,
        "code_per_unit": span,
        "lowest_code": 0,
        "highest_code": 2**bits - 1,
        "byte_weights": [1, 256],
        "byte_range": 256,
        "byte_inverse": 1 / 256,
    }
    return {name: np.array(value, np.float32) for name, value in numbers.items()} | {"last_axis": np.array([-1], np.int64)}


def add_constants(graph: onnx.GraphProto, constants: dict[str, np.ndarray[Any, Any]]) -> None:
    """Those that a node of the graph reads."""
    used = {value for node in graph.node for value in node.input}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items() if name in used)


def _declare(graph: onnx.GraphProto, io: str, height: int | None, width: int | None) -> None:
    batch, frames = _dimension(graph.input[0], BATCH), _dimension(graph.input[0], 1)
    shape = [batch, frames, height or "height", width or "width", *([BYTES] if io == "u16" else [])]
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.UINT8, shape))


def _dimension(info: onnx.ValueInfoProto, axis: int) -> int | str:
    dimension = info.type.tensor_type.shape.dim[axis]
    return dimension.dim_value or dimension.dim_param


def rename_values(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Wherever a node reads or makes them."""
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
