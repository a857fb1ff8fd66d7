"""Puts RGB around the float graph and leaves its middle frame: what NVEncC's `--vpp-onnx` with `frames` takes.

luma of each frame -> reflect to a multiple at the bottom and right -> network -> crop -> middle frame; how much that changes the
luma is added to R, G and B alike, which changes luma by as much and colour differences not at all. Nothing is clipped, so that the
luma which NVEncC makes of the RGB is the network's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graph.sample_code_graph import (
    CROP,
    MEASURE,
    PAD,
    UNIT_INPUT,
    UNIT_OUTPUT,
    add_constants,
    needs_padding,
    padding_constants,
    parsed_nodes,
    rename_values,
)
from runtime.files.contract import INPUT, OUTPUT

COLORS = 3  # planes of a frame: R, G, B
CHANNELS = 1  # axis
LUMA = """
    red = Slice (blurry, red_plane, last_plane, channel_axis, color_step)
    green = Slice (blurry, green_plane, last_plane, channel_axis, color_step)
    blue = Slice (blurry, blue_plane, last_plane, channel_axis, color_step)
    red_part = Mul (red, red_weight)
    green_part = Mul (green, green_weight)
    blue_part = Mul (blue, blue_weight)
    red_and_green = Add (red_part, green_part)
    unit_codes = Add (red_and_green, blue_part)
"""
MIDDLE = """
    sharp_luma = Slice (cropped, middle_frame, after_middle_frame, channel_axis)
    blurry_luma = Slice (unit_codes, middle_frame, after_middle_frame, channel_axis)
    change = Sub (sharp_luma, blurry_luma)
    middle_colors = Slice (blurry, middle_plane, after_middle_plane, channel_axis)
    sharp = Add (middle_colors, change)
"""


def centre_frame_graph(
    model: onnx.ModelProto,
    frames: int,
    weights: tuple[float, float, float],
    multiple: int,
    height: int | None = None,
    width: int | None = None,
) -> onnx.ModelProto:
    """A copy of a float graph of one window, (1, 3 F, H, W) float32 -> (1, 3, H, W), not clipped.

    In are R, G and B of each frame in turn, in [0, 1]; out is the middle frame. `weights` are those of R, G and B in the luma.
    With `height` and `width` the size is fixed, and the float graph must have the padded size; without, any H and W from 5 on.
    """
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    graph = wrapped.graph
    rename_values(graph, {INPUT: UNIT_INPUT, OUTPUT: UNIT_OUTPUT})
    before, after = LUMA, MIDDLE
    if needs_padding(height, width, multiple):
        before, after = before + (MEASURE if height is None else "") + PAD, CROP + after
    else:
        before, after = (
            before.replace("unit_codes", UNIT_INPUT),
            after.replace("unit_codes", UNIT_INPUT).replace("cropped", UNIT_OUTPUT),
        )
    nodes = [*parsed_nodes(before), *graph.node, *parsed_nodes(after)]
    del graph.node[:]
    graph.node.extend(nodes)
    add_constants(graph, _constants(frames, weights) | padding_constants(multiple, height, width))
    size = (height or "height", width or "width")
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, (1, COLORS * frames, *size)))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, (1, COLORS, *size)))
    onnx.checker.check_model(wrapped, full_check=True)
    return wrapped


def _constants(frames: int, weights: tuple[float, float, float]) -> dict[str, np.ndarray[Any, Any]]:
    middle = frames // 2
    colors = ("red", "green", "blue")
    indices = {
        **{f"{color}_plane": plane for plane, color in enumerate(colors)},
        "last_plane": COLORS * frames,
        "channel_axis": CHANNELS,
        "color_step": COLORS,
        "middle_frame": middle,
        "after_middle_frame": middle + 1,
        "middle_plane": COLORS * middle,
        "after_middle_plane": COLORS * (middle + 1),
    }
    return {name: np.array([value], np.int64) for name, value in indices.items()} | {
        f"{color}_weight": np.array(weight, np.float32) for color, weight in zip(colors, weights)
    }
