"""Reads ONNX files that may be damaged, changed, or not what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from calibration.tensors import FLOATS
from runtime.errors import ModelError
from runtime.files.contract import OURS, Contract, read_model, refuse_external_data

LONGEST = 300  # characters of another library's sentence that are passed on
LOW_TYPES = {
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    **dict.fromkeys((TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2), "fp8"),
}
INPUT_TYPES = {"f32": TensorProto.FLOAT, "u8": TensorProto.UINT8, "u16": TensorProto.UINT8}  # by a contract's io
SIZES = {"batch": 0, "height": 2, "width": 3}  # axes of the input


def load_onnx(path: Path) -> onnx.ModelProto:
    """The graph in a file, checked by ONNX's own rules.

    Raises ModelError when it is missing, damaged, not valid, or keeps its weights in other files.
    """
    refuse_external_data(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    return _parsed(path, data)


def load_model(path: Path) -> tuple[onnx.ModelProto, Contract]:
    """A model file of this project, and its contract, which the graph was held to.

    1. Graph and weights are those that were written, where the contract has their hash. 2. Weights are numbers. 3. The types in the
    graph are those of the contract's precision and io. 4. A size that is fixed in the graph is fixed in the contract.
    Raises ModelError where one does not hold, and what `load_onnx` and `read_contract` raise.
    """
    contract, data = read_model(path)
    model = _parsed(path, data)
    for fault in _faults(model, contract):
        raise ModelError(f"{path} {fault}")
    return model, contract


def brief(error: object) -> str:
    """The first line of another library's error, cut where it is long."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _parsed(path: Path, data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's errors share no base but Exception
        raise ModelError(f"{path} is not a valid ONNX file ({brief(error)}): export or copy it again") from error
    return model


def _faults(model: onnx.ModelProto, contract: Contract) -> Iterator[str]:
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS and not np.isfinite(numpy_helper.to_array(tensor).astype(np.float32)).all():
            yield f"holds NaN or infinite numbers in {tensor.name}: export it again from a sound checkpoint"
    held, said = types_held(model), contract.precision
    if said == "fp32" and held:
        yield f"holds {', '.join(sorted(held))}, its contract says fp32: another tool converted it; {OURS}"
    if said not in ("fp32", "mixed") and said not in held:
        yield f"holds {', '.join(sorted(held)) or 'fp32'}, its contract says {said}: another tool converted it; {OURS}"
    given = model.graph.input[0].type.tensor_type
    if given.elem_type != INPUT_TYPES[contract.io]:
        word = TensorProto.DataType.Name(given.elem_type).lower()
        yield f"takes {word}, its contract says {contract.io}: another tool converted it; {OURS}"
    for name, axis in SIZES.items():
        fixed = given.shape.dim[axis].dim_value if len(given.shape.dim) > axis else 0
        if fixed not in (0, getattr(contract, name)):
            yield (
                f"has a fixed {name} of {fixed}, its contract says {getattr(contract, name) or 'any'}: export it with --{name}, or "
                "take in another tool's with videodeblur adopt"
            )


def types_held(model: onnx.ModelProto) -> set[str]:
    """What a graph holds beside fp32: "fp16", "bf16", "fp8", "int8", by its constants, inputs, outputs and operators."""
    graph = model.graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    held = {LOW_TYPES[kind] for kind in kinds if kind in LOW_TYPES}
    if "fp8" not in held and any(_quantises(node.op_type) for node in graph.node):
        held.add("int8")
    return held


def _quantises(operator: str) -> bool:
    return "QuantizeLinear" in operator or operator.startswith("QLinear") or operator.endswith("Integer")
