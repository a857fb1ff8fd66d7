"""The type that each convolution asks for, and the one in which it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from export.graph.layer_precision import asked_precisions, layer_sizes, layers

NOT_FOUND = "not found"  # a node that the runtime does not name, though it names all that it runs
NOT_READ = "not read"  # a node whose type the runtime does not tell


@dataclass(frozen=True)
class LayerType:
    """One convolution of the network."""

    layer: str  # module path
    macs: int  # multiply-add pairs a window
    asked: str  # the type that the file says: "fp32", "fp16", "bf16", "int8" or "fp8"
    ran: str  # the type that the runtime took, NOT_FOUND or NOT_READ

    @property
    def granted(self) -> bool:
        """Whether it runs in the type that the file asks for."""
        return self.asked == self.ran


def layer_types(
    model: onnx.ModelProto, ran: Mapping[str, str], height: int, width: int, missing: str = NOT_FOUND
) -> list[LayerType]:
    """Every convolution with what it asked for and what it got; `ran` gives types by the names of Conv nodes, `missing` is what
    the others got.

    A layer with several nodes got what the first node that differs from the asked type got, NOT_READ only where none else differs.
    """
    asked, macs = asked_precisions(model), layer_sizes(model, height, width)
    rows = []
    for name, layer in layers(model).items():
        differing = [word for word in (ran.get(node, missing) for node in layer.nodes) if word != asked[name]]
        differing.sort(key=lambda word: word == NOT_READ)
        rows.append(LayerType(name, macs[name], asked[name], differing[0] if differing else asked[name]))
    return rows


def fixed_size(model: onnx.ModelProto, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that a graph is fixed at, those of `size` where they are free."""
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:4])
    return height or size[0], width or size[1]


def shares(rows: Iterable[LayerType], asked: bool = False) -> dict[str, float]:
    """The share of the convolution FLOPs by the type that ran, or was asked for; the largest first."""
    sums: dict[str, int] = {}
    for row in rows:
        word = row.asked if asked else row.ran
        sums[word] = sums.get(word, 0) + row.macs
    whole = sum(sums.values())
    return {word: macs / whole for word, macs in sorted(sums.items(), key=lambda item: -item[1])}


def granted_share(rows: Sequence[LayerType]) -> float:
    """The share of the FLOPs that asked for less than fp32 and got it, of those whose type was read; 1 when none asked."""
    lowered = [row for row in rows if row.asked != "fp32" and row.ran != NOT_READ]
    whole = sum(row.macs for row in lowered)
    return sum(row.macs for row in lowered if row.granted) / whole if whole else 1.0
