"""The PyTorch network as an ONNX graph whose names say where in the network each node comes from."""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch

from export.graph.receptive_field import receptive_field
from model import DeblurNetwork
from runtime.files.contract import INPUT, OUTPUT
from runtime.pixels.padding import MULTIPLE

OPSET = 20
TRACED = (2, 4 * MULTIPLE, 6 * MULTIPLE)  # N, H, W where they are dynamic
AXES = {0: "batch", 2: "height", 3: "width"}
SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's node metadata: the module path as a list in Python's notation


def network_to_onnx(
    network: DeblurNetwork, batch: int | None = None, height: int | None = None, width: int | None = None
) -> onnx.ModelProto:
    """The network in fp32, opset 20, weights inside, from `blurry` to `sharp`, both (N, frames, H, W).

    A size that is None is dynamic; H and W must be multiples of 8. Weights carry their parameter's name (`c1.weight`), nodes and
    values the path of the module that made them (`c1/Conv`, `c1/Conv_output_0`). Expects a network after `rewrites.canonical`,
    of operators that know no sizes: raises ModelError on any other.
    """
    sizes = [size or traced for size, traced in zip((batch, height, width), TRACED)]
    model = _trace(network.eval(), torch.zeros(sizes[0], network.config.frames, *sizes[1:]))
    _name_by_module(model.graph)
    _drop_metadata(model)
    free = {axis: name for (axis, name), size in zip(AXES.items(), (batch, height, width)) if size is None}
    _free_sizes(model, free)
    return model


def _trace(network: DeblurNetwork, example: torch.Tensor) -> onnx.ModelProto:
    with _quiet():
        program = torch.onnx.export(
            network, (example,), dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own deprecations and on torchvision, which is not needed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _name_by_module(graph: onnx.GraphProto) -> None:
    kept = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    renamed: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for node in graph.node:
        node.name = _numbered(f"{_module_path(node)}/{node.op_type}".lstrip("/"), seen)
        for i, value in enumerate(node.output):
            if value not in kept:
                renamed[value] = f"{node.name}_output_{i}"
    for node in graph.node:
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]


def _module_path(node: onnx.NodeProto) -> str:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "['', '']")
    *modules, _operation = ast.literal_eval(scopes)
    return modules[-1] if modules else ""


def _numbered(name: str, seen: Counter[str]) -> str:
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def _drop_metadata(model: onnx.ModelProto) -> None:
    """The exporter's notes hold source paths of the machine that exported."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    graph.name = "videodeblur"


def _free_sizes(model: onnx.ModelProto, free: dict[int, str]) -> None:
    """Names in place of the traced sizes, on these axes.

    A trace with symbolic sizes writes the same graph, and takes four times as long. This one is as good because every operator
    that `receptive_field` knows treats all samples of a plane alike, and it refuses every other.
    """
    receptive_field(model, MULTIPLE)
    for info in (*model.graph.input, *model.graph.output):
        for axis, name in free.items():
            info.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
