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
from torch.export import Dim

from model import DeblurNetwork
from model.config import MULTIPLE
from runtime.contract import INPUT, OUTPUT

OPSET = 20
EXAMPLE = (2, 4 * MULTIPLE, 6 * MULTIPLE)  # N, H, W traced where they are dynamic; all different, none 1
SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's node metadata: the module path as a list in Python's notation


def network_to_onnx(
    network: DeblurNetwork, batch: int | None = None, height: int | None = None, width: int | None = None
) -> onnx.ModelProto:
    """The network in fp32, opset 20, weights inside, from `blurry` to `sharp`, both (N, frames, H, W).

    A size that is None is dynamic, H and W in multiples of 8. Weights carry their parameter's name (`c1.weight`), nodes and
    values the path of the module that made them (`c1/Conv`, `c1/Conv_output_0`).
    """
    sizes = [size or example for size, example in zip((batch, height, width), EXAMPLE)]
    example = torch.zeros(sizes[0], network.config.frames, *sizes[1:])
    dynamic = {
        axis: dim
        for axis, dim, size in (
            (0, Dim("batch"), batch),
            (2, MULTIPLE * Dim("h8"), height),
            (3, MULTIPLE * Dim("w8"), width),
        )
        if size is None
    }
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    model = program.model_proto
    _name_by_module(model.graph)
    _drop_metadata(model)
    onnx.checker.check_model(model, full_check=True)
    return model


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
    for info in graph.value_info:
        info.name = renamed.get(info.name, info.name)


def _module_path(node: onnx.NodeProto) -> str:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "['', '']")
    *modules, _operation = ast.literal_eval(scopes)
    return modules[-1] if modules else ""


def _numbered(name: str, seen: Counter[str]) -> str:
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def _drop_metadata(model: onnx.ModelProto) -> None:
    """The exporter's notes hold source paths of the machine that exported, and a third of the graph's size."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    graph.name = "videodeblur"
