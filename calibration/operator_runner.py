"""Runs a graph with ONNX Runtime one operator at a time, so that every tensor can be looked at and few are held.

A graph whose tensors are all made outputs would hold all of them at once (10 GB for a 1280x720 window of the full network);
cutting it into parts and running each from the start would repeat the work. Here every operator runs once, and a tensor lives
from the operator that makes it to the last that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

from calibration.onnx_file import brief
from calibration.tensors import typed_values
from runtime.errors import BackendError, ModelError

ERRORS_ONLY = 3  # log severity
FP8 = onnx.TensorProto.FLOAT8E4M3FN
Array = npt.NDArray[Any]
Rounding = Callable[[str, Array], Array]  # (name of a tensor, what an operator made) -> what the tensor holds


@dataclass(frozen=True)
class Step:
    """An operator, ready to run."""

    name: str
    session: onnxruntime.InferenceSession
    reads: tuple[str, ...]  # tensors, without the weights
    makes: tuple[str, ...]
    frees: tuple[str, ...]  # tensors that nothing after it reads


class OperatorRunner:
    """A graph as a sequence of one-operator sessions on the CPU; a context manager.

    `model` has the type of every tensor in its value_info, as `onnx.shape_inference.infer_shapes` leaves it. `threads` is the
    number of cores, all when None; `rounding` is applied to all that operators make. Raises ModelError when the graph has an
    operator that ONNX Runtime cannot run.
    """

    def __init__(self, model: onnx.ModelProto, threads: int | None = None, rounding: Rounding = lambda _, value: value) -> None:
        self._rounding = rounding
        self._input = model.graph.input[0].name
        self._steps = _steps(model, threads)
        self._fp8 = {value.name for value in typed_values(model.graph) if value.type.tensor_type.elem_type == FP8}

    def run(self, feed: Array) -> Iterator[tuple[str, Array]]:
        """Yields (name, value) of every tensor as it is made, the input first; a value may be dropped as soon as it was seen.

        FP8, which numpy does not know, comes as its codes in uint8. Raises BackendError when an operator fails.
        """
        if not self._steps:
            raise BackendError("the runner is closed: open another")
        alive = {self._input: feed}
        yield from list(alive.items())
        for step in self._steps:
            try:
                values = step.session.run(step.makes, {name: self._typed(name, alive[name]) for name in step.reads})
            except Exception as error:  # its exceptions share no base but Exception
                raise BackendError(f"ONNX Runtime failed in {step.name} on input {feed.shape}: {brief(error)}") from error
            alive.update((name, self._rounding(name, value)) for name, value in zip(step.makes, values))
            del values
            for name in step.makes:
                yield name, alive[name]
            for name in step.frees:
                del alive[name]

    def _typed(self, name: str, value: Array) -> Any:
        if name not in self._fp8:
            return value
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(value, FP8)

    def close(self) -> None:
        """Frees the sessions; calling it again does nothing."""
        self._steps = ()

    def __enter__(self) -> OperatorRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _steps(model: onnx.ModelProto, threads: int | None) -> tuple[Step, ...]:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in typed_values(model.graph)}
    last = {name: number for number, node in enumerate(model.graph.node) for name in (*node.output, *node.input)}
    steps = []
    for number, node in enumerate(model.graph.node):
        reads = tuple(dict.fromkeys(name for name in node.input if name and name not in weights))
        makes = tuple(name for name in node.output if name)
        session = _session(_alone(model, node, reads, makes, weights, types), node, threads)
        frees = tuple(name for name in dict.fromkeys((*reads, *makes)) if last[name] == number)
        steps.append(Step(node.name or node.output[0], session, reads, makes, frees))
    return tuple(steps)


def _alone(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    reads: tuple[str, ...],
    makes: tuple[str, ...],
    weights: dict[str, onnx.TensorProto],
    types: dict[str, int],
) -> onnx.ModelProto:
    untyped = [name for name in (*reads, *makes) if not types.get(name)]
    if untyped:
        raise ModelError(f"the type of tensor {untyped[0]!r} cannot be inferred: export the model again with videodeblur export")
    inputs, outputs = ([helper.make_tensor_value_info(name, types[name], None) for name in names] for names in (reads, makes))
    constants = [weights[name] for name in dict.fromkeys(node.input) if name in weights]
    graph = helper.make_graph([node], "operator", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def _session(model: onnx.ModelProto, node: onnx.NodeProto, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.enable_cpu_mem_arena = False  # an arena per operator would keep each one's largest buffers
    options.enable_mem_pattern = False
    options.intra_op_num_threads = (threads or 0) if node.op_type == "Conv" else 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle pools of other operators must sleep
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        raise ModelError(f"ONNX Runtime {onnxruntime.__version__} cannot run {node.op_type} {node.name}: {brief(error)}") from error
