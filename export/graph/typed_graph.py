"""Float types written into a graph, node by node: a strongly typed builder such as TensorRT 11 runs what the file says."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.onnx_file import brief
from runtime.errors import InputError, ModelError

FLOATS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
MIN_OPSET = {
    "fp32": 18,
    "fp16": 18,
    "bf16": 22,
}  # the first in which Conv, MaxPool and Resize take the type; 18 is the exporter's least
WHOLE_INPUTS = {"Resize": (1, 2)}  # inputs that ONNX defines as fp32 whatever the data's type: roi and scales
MOVES = {"Concat", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}  # change no value
ACTIVATIONS = {"LeakyRelu", "Relu", "Sigmoid", "Tanh"}
CONVOLUTIONS = {"Conv", "ConvTranspose"}
QDQ = {"QuantizeLinear", "DequantizeLinear"}


def retype(model: onnx.ModelProto, default: str, types: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """A copy of an fp32 graph, with or without Q/DQ, whose nodes compute in "fp32", "fp16" or "bf16".

    `default` is the type of every node that the rules leave free, `types` those of some nodes by name.

    1. The graph's inputs and outputs keep their types.
    2. A node named in `types` has that type. An activation behind a convolution named there has the convolution's type.
    3. What comes before every convolution and computes (codes to luma), and what comes after every convolution (the residual's sum,
       luma to codes) stays fp32: there 11 bits would be seen in the picture.
    4. What comes before every convolution and only moves values has its readers' type, fp32 when they differ, so that the input
       is cast once.
    5. Float constants become their reader's type, once per type; values beyond fp16 are refused. Constants that ONNX wants in
       fp32 (the scales of Resize), integers and shapes stay.
    6. Q/DQ have their readers' type, the default where these differ, so that no Cast parts them from their layer.
    7. A Cast stands where a value's type and its reader's differ, and nowhere else; one for all readers of a type.
    8. The opset is raised to the first that knows the type (bf16: 22).

    Raises ModelError when the graph is typed already, or its nodes' names are missing or not unique; InputError when `types` names
    a type or a node that does not exist.
    """
    types = dict(types or {})
    model = named(model)
    _check(model.graph, default, types)
    floats = fp32_values(model)
    chosen = node_types(model.graph, default, types)
    nodes = _Rewriter(model.graph, floats, chosen).rewritten()
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    _drop_unread_constants(model.graph)
    for type_name in set(chosen.values()):
        raise_opset(model, MIN_OPSET[type_name])
    onnx.checker.check_model(model, full_check=True)
    return model


def node_types(graph: onnx.GraphProto, default: str, types: Mapping[str, str]) -> dict[str, str]:
    """The type of each node by name, by rules 2 to 4 and 6 of `retype`."""
    behind, before = behind_convolutions(graph), before_convolutions(graph)
    made_by, read_by = producers(graph), readers(graph)
    outputs = {value.name for value in graph.output}
    chosen: dict[str, str] = {}
    for node in reversed(graph.node):  # readers first, for rule 4
        source = made_by.get(node.input[0]) if node.input else None
        if node.name in types:
            chosen[node.name] = types[node.name]
        elif node.op_type in ACTIVATIONS and source is not None and source.op_type in CONVOLUTIONS and source.name in types:
            chosen[node.name] = types[source.name]
        elif node.op_type in QDQ:
            chosen[node.name] = _agreed(node, read_by, chosen, default)
        elif node.op_type in CONVOLUTIONS or node.name in behind & before:
            chosen[node.name] = default
        elif node.op_type in MOVES and node.name not in behind and not outputs.intersection(node.output):
            chosen[node.name] = _agreed(node, read_by, chosen, "fp32")
        else:
            chosen[node.name] = "fp32"
    return chosen


def _agreed(node: onnx.NodeProto, read_by: Mapping[str, list[onnx.NodeProto]], chosen: Mapping[str, str], otherwise: str) -> str:
    """The type of all readers of a node, or `otherwise`."""
    wanted = {chosen[reader.name] for value in node.output for reader in read_by.get(value, [])}
    return wanted.pop() if len(wanted) == 1 else otherwise


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes all have a name: a nameless one is called after its first output. Raises ModelError when two share one."""
    model = copy.deepcopy(model)
    seen: set[str] = set()
    for node in model.graph.node:
        node.name = node.name or node.output[0]
        if node.name in seen:
            raise ModelError(
                f"two nodes are called {node.name}, names must be unique: export the model again with videodeblur export"
            )
        seen.add(node.name)
    return model


def fp32_values(model: onnx.ModelProto) -> set[str]:
    """Names of all fp32 values and constants. Raises ModelError when the graph has another float type, or is not valid."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"the graph is not valid ONNX ({brief(error)}): export it again with videodeblur export") from error
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for name, elem_type in types.items():
        if elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            kind = TensorProto.DataType.Name(elem_type).lower()
            raise ModelError(f"{name} is {kind}, expected an fp32 graph: hand over the file that videodeblur export wrote")
    return {name for name, elem_type in types.items() if elem_type == TensorProto.FLOAT}


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each value."""
    return {value: node for node in graph.node for value in node.output if value}


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each value, in order, each once."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for value in dict.fromkeys(node.input):
            found.setdefault(value, []).append(node)
    return found


def behind_convolutions(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that read, at any distance, what a convolution made."""
    made: set[str] = set()
    found = set()
    for node in graph.node:
        if made.intersection(node.input):
            found.add(node.name)
        if node.name in found or node.op_type in CONVOLUTIONS:
            made.update(node.output)
    return found


def before_convolutions(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes whose output reaches, at any distance, a convolution's input."""
    read: set[str] = set()
    found = set()
    for node in reversed(graph.node):
        if read.intersection(node.output):
            found.add(node.name)
        if node.name in found or node.op_type in CONVOLUTIONS:
            read.update(node.input)
    return found


def raise_opset(model: onnx.ModelProto, least: int) -> None:
    """Sets the opset to at least `least`, in place; the operators of these graphs mean the same from 18 to 22."""
    (opset,) = (entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset.version < MIN_OPSET["fp32"]:
        raise ModelError(f"the graph has opset {opset.version}, types need {least}: export with opset 20, and lower it afterwards")
    opset.version = max(opset.version, least)


def _check(graph: onnx.GraphProto, default: str, types: Mapping[str, str]) -> None:
    for type_name in (default, *types.values()):
        if type_name not in FLOATS:
            raise InputError(f"the type is {type_name!r}, expected one of {', '.join(FLOATS)}")
    unknown = sorted(set(types) - {node.name for node in graph.node})
    if unknown:
        raise InputError(f"there is no node {unknown[0]!r} in the graph: names are those of the ONNX file")


class _Rewriter:
    """Walks the graph once and applies rules 5 and 7."""

    def __init__(self, graph: onnx.GraphProto, floats: set[str], chosen: Mapping[str, str]) -> None:
        self._graph, self._floats, self._chosen = graph, floats, chosen
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._type_of = {value.name: "fp32" for value in graph.input}
        self._outputs = {value.name for value in graph.output}
        self._wanted = self._types_wanted()
        self._whole = {node.input[i] for node in graph.node for i in WHOLE_INPUTS.get(node.op_type, ()) if i < len(node.input)}
        self._copies: dict[tuple[str, str], str] = {}  # (value, type): the name of its constant or Cast of that type
        self._nodes: list[onnx.NodeProto] = []

    def rewritten(self) -> list[onnx.NodeProto]:
        """The nodes with Casts between them; constants are added to the graph."""
        for node in self._graph.node:
            type_name = self._chosen[node.name]
            for i in self._retyped_inputs(node):
                node.input[i] = self._as_type(node.input[i], type_name)
            self._nodes.append(node)
            self._retype_outputs(node, type_name)
        return self._nodes

    def _types_wanted(self) -> dict[str, set[str]]:
        """The types that the readers of each constant want it in."""
        wanted: dict[str, set[str]] = {}
        for node in self._graph.node:
            for value in self._retyped_inputs(node):
                wanted.setdefault(node.input[value], set()).add(self._chosen[node.name])
        return wanted

    def _retyped_inputs(self, node: onnx.NodeProto) -> list[int]:
        whole = WHOLE_INPUTS.get(node.op_type, ())
        return [i for i, value in enumerate(node.input) if value in self._floats and i not in whole]

    def _retype_outputs(self, node: onnx.NodeProto, type_name: str) -> None:
        made = [value for value in node.output if value in self._floats]
        if made and node.op_type == "Cast":
            set_attribute(node, "to", FLOATS[type_name])
        for i, value in enumerate(node.output):
            if value not in made:
                continue
            if value in self._outputs and type_name != "fp32":
                node.output[i] = f"{value}_{type_name}"
                self._nodes.append(_cast(node.output[i], value, "fp32"))
                self._type_of[value] = "fp32"
            else:
                self._type_of[value] = type_name

    def _as_type(self, value: str, type_name: str) -> str:
        if (value, type_name) not in self._copies:
            copied = self._constant_as if value in self._constants else self._cast_to
            self._copies[value, type_name] = copied(value, type_name)
        return self._copies[value, type_name]

    def _constant_as(self, value: str, type_name: str) -> str:
        """A constant whose readers agree keeps its name, which is that of the PyTorch parameter."""
        if type_name == "fp32":
            return value
        name = value if len(self._wanted[value]) == 1 and value not in self._whole else f"{value}_{type_name}"
        converted = _converted(self._constants[value], name, type_name)
        if name == value:
            self._constants[value].CopyFrom(converted)
        else:
            self._graph.initializer.append(converted)
        return name

    def _cast_to(self, value: str, type_name: str) -> str:
        if self._type_of[value] == type_name:
            return value
        self._nodes.append(_cast(value, f"{value}_{type_name}", type_name))
        return f"{value}_{type_name}"


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Replaces an attribute of a node, or adds it."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _cast(value: str, output: str, type_name: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [value], [output], name=f"{output}/Cast", to=FLOATS[type_name])


def _converted(tensor: onnx.TensorProto, name: str, type_name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        low = values.astype(DTYPES[type_name])
    if not np.isfinite(low.astype(np.float32)).all():
        raise ModelError(f"{tensor.name} holds {np.abs(values).max():.4g}, beyond {type_name}: keep its layer in fp32")
    return numpy_helper.from_array(low, name)


def _drop_unread_constants(graph: onnx.GraphProto) -> None:
    read: set[str] = {value for node in graph.node for value in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
