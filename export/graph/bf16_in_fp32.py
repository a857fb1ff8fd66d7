"""A graph in BF16 as one in fp32 that is rounded where BF16 would be: ONNX Runtime has no BF16 arithmetic on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

from calibration.operator_runner import Rounding
from calibration.tensors import typed_values
from export.graph.typed_graph import DTYPES, set_attribute


def bf16_in_fp32(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Rounding]:
    """The graph with the type of every tensor in its value_info and fp32 in place of BF16, and the rounding of what was BF16.

    1. Constants in BF16 become the same numbers in fp32. 2. An operator that makes BF16 computes in fp32, as matrix units
    accumulate, of inputs that BF16 holds. 3. What it makes is rounded to BF16: to the nearest, ties to even.
    """
    model = shape_inference.infer_shapes(model)
    low = {value.name for value in typed_values(model.graph) if value.type.tensor_type.elem_type == TensorProto.BFLOAT16}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in typed_values(model.graph):
        if value.name in low:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type == "Cast" and node.output[0] in low:
            set_attribute(node, "to", TensorProto.FLOAT)

    def rounding(name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return value.astype(DTYPES["bf16"]).astype(np.float32) if name in low else value

    return model, rounding
