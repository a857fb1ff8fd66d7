"""Gives a graph that another tool rewrote its contract back, after it was compared with the file that it was made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from calibration.onnx_file import INPUT_TYPES, SIZES, load_onnx, types_held
from export.compare.parity import Parity
from export.compare.typed_file import load_fp32, write_compared
from runtime.errors import ModelError
from runtime.files.contract import INPUT, OUTPUT, Contract
from runtime.files.on_disk import check_not_input, file_sha256

MAKER = "videodeblur adopt"  # in the notes of adopted files
FOREIGN = "it is another network, or was quantised beyond use"


@dataclass(frozen=True)
class AdoptedGraph:
    """A graph with its contract."""

    path: Path
    contract: Contract
    parities: tuple[Parity, ...]  # against the fp32 file on ONNX Runtime; the first is what the gate judged
    remarks: tuple[str, ...]  # what the user should know


def adopt_graph(graph: Path, like: Path, output: Path, clip: Path) -> AdoptedGraph:
    """Writes `graph` as `output` with the contract of the fp32 file `like`, its own sizes, types and measured parities.

    It appears when it came close enough on held-out windows of `clip`, or not at all: LostParityError, with the numbers. Raises
    ModelError where its input or output is another than the contract's, and what reading and comparing the files raise.
    """
    check_not_input(output, graph, like, clip)
    contract = load_fp32(like)[1]
    model = load_onnx(graph)
    _drop_weights_among_inputs(model)
    _check_ends(graph, model, contract)
    found = replace(contract, precision=precision_of(model), **_sizes(graph, model, contract))
    notes = {"maker": MAKER, "tool": model.producer_name, "like_sha256": file_sha256(like), "made_of_sha256": file_sha256(graph)}
    return AdoptedGraph(output, *write_compared(model, found, like, output, clip, notes, FOREIGN))


def precision_of(model: onnx.ModelProto) -> str:
    """The word of a contract for the types that a graph holds: of several, the quantised one, "mixed" where two are of a kind."""
    held = types_held(model)
    for kind in ({"int8", "fp8"}, {"fp16", "bf16"}):
        if found := held & kind:
            return found.pop() if len(found) == 1 else "mixed"
    return "fp32"


def _drop_weights_among_inputs(model: onnx.ModelProto) -> None:
    """Old converters list weights as inputs with a default."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _check_ends(graph: Path, model: onnx.ModelProto, contract: Contract) -> None:
    names = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    if names != [[INPUT], [OUTPUT]]:
        told = " and ".join(f"{what} {', '.join(found) or 'none'}" for what, found in zip(("inputs", "outputs"), names))
        raise ModelError(f"{graph} has {told}, expected {INPUT} and {OUTPUT} alone: have the tool keep the graph's ends")
    for value in (*model.graph.input, *model.graph.output):
        kind, wanted = value.type.tensor_type.elem_type, INPUT_TYPES[contract.io]
        if kind != wanted:
            got, expected = (onnx.TensorProto.DataType.Name(each).lower() for each in (kind, wanted))
            raise ModelError(
                f"{graph} has {value.name} as {got}, expected {expected}: have the tool keep the types of inputs and outputs"
            )
    rank = 5 if contract.io == "u16" else 4
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if len(dims) != rank or dims[1].dim_value not in (0, contract.frames):
        got = " x ".join(str(dim.dim_value or dim.dim_param or "any") for dim in dims)
        raise ModelError(
            f"{graph} takes {got}, expected N x {contract.frames} x H x W{' x 2' * (rank == 5)}: it is another network"
        )


def _sizes(graph: Path, model: onnx.ModelProto, contract: Contract) -> dict[str, int | None]:
    """The sizes that are fixed in the graph. Raises ModelError where the contract's file is fixed at others."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    found = {name: dims[axis].dim_value or getattr(contract, name) for name, axis in SIZES.items()}
    for name, length in found.items():
        if getattr(contract, name) not in (None, length):
            raise ModelError(
                f"{graph} has a fixed {name} of {length}, --like one of {getattr(contract, name)}: name the file it was made of"
            )
        if contract.io == "f32" and name != "batch" and length and length % contract.multiple:
            raise ModelError(f"{graph} has a fixed {name} of {length}, expected a multiple of {contract.multiple}: fix it at one")
    return found
