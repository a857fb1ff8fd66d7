"""Which type each convolution runs in: from full TensorRT's engine inspector, and from TensorRT-RTX's list of layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from runtime.errors import InputError, ModelError

WORDS = {
    "float": "fp32",
    "fp32": "fp32",
    "half": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "int8": "int8",
    "fp8": "fp8",
}
CONVOLUTION = re.compile(r"/Conv(_\d+)?\b")
COPIES = ("reformat", "noop")  # kinds of layers that compute nothing; TensorRT names them after the layer that they copy for
NAME_PARTS = re.compile(r" \+ | \|\| |, ")  # between the names of nodes that became one layer
OF_PROFILE = re.compile(r" \[profile \d+\]$")  # ends the names of the second and later profiles' layers

TENSORRT_TYPES = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "Int8": "int8", "FP8": "fp8"}
RUNS_CONVOLUTION = {"correlation", "runtime_fusion"}  # TensorRT-RTX's kinds of layers that hold a filter
FILTER_RANK = 4  # outputs, inputs, height, width


def inspector_types(information: str) -> dict[str, str]:
    """The type of every Conv node, by its name in the ONNX file, in the JSON of `EngineInspector.get_engine_information`.

    A convolution runs in the type of its data; see `agreed` for engines of several profiles. The text that names it is the
    layer's "Metadata" ([ONNX Layer: NAME], from TensorRT 8.6 on), else its name. The type is in "Format/Datatype" up to
    TensorRT 10 and in "Datatype" from 11 on. Engines of several shapes have "N/A due to dynamic shapes" there: then the type is
    that of the weights, and a node whose layer names none is left out.
    Raises ModelError when the text is no such JSON or tells the type of no convolution.
    """
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the engine's inspector did not answer in JSON ({error})") from error
    found = agreed(pair for layer in layers if isinstance(layer, dict) for pair in _convolutions(layer))
    if not found:
        raise ModelError("the engine's inspector tells the type of no convolution: build for one shape, at detailed verbosity")
    return found


def tensorrt_types(layer_log: str) -> dict[str, str]:
    """The type of every Conv node, and of the nodes fused with it, in TensorRT-RTX's list of layers, which its builder logs at
    detailed verbosity.

    A convolution runs in the type of its data, a filter may be stored smaller than it is used; see `agreed` for engines of several
    profiles. Raises InputError when the text is no such list.
    """
    found = agreed(pair for line in layer_log.splitlines() for pair in _logged_types(line))
    if not found:
        raise InputError(
            "no convolution is in this list of layers, expected TensorRT-RTX's: build with --profilingVerbosity=detailed"
        )
    return found


def agreed(types: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One word for each node. An engine lists a node once for each profile; where those differ the word names all of them."""
    found: dict[str, list[str]] = {}
    for node, kind in types:
        found.setdefault(node, []).append(kind)
    return {node: " and ".join(dict.fromkeys(kinds)) for node, kinds in found.items()}


def _convolutions(layer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    inputs = layer.get("Inputs") or []
    if not inputs or str(layer.get("LayerType", "")).lower() in COPIES:
        return
    data, weights = inputs[0], layer.get("Weights") or {}
    kind = _type_in(data.get("Datatype") or data.get("Format/Datatype")) or _type_in(weights.get("Type"))
    if kind is None:
        return
    named = re.findall(r"\[ONNX Layer: ([^]\x1e]+)", str(layer.get("Metadata", "")))
    for name in named or NAME_PARTS.split(OF_PROFILE.sub("", str(layer.get("Name", "")))):
        if CONVOLUTION.search(name):
            yield name.strip(), kind


def _type_in(text: str | None) -> str | None:
    """The type that a text such as "Channel major FP16 format" names, None where it names none."""
    return next((WORDS[word] for word in re.findall(r"[a-z]+\d*", str(text).lower()) if word in WORDS), None)


def _logged_types(line: str) -> Iterator[tuple[str, str]]:
    kind = re.search(r", LayerType: (\w+)", line)
    if kind is None or kind[1] not in RUNS_CONVOLUTION:
        return
    data, filters = _types(line, "Inputs"), _types(line, "Constants", FILTER_RANK)
    if data and filters:
        for name in re.findall(r"\[ONNX Layer: ([^]]+)\]", line):
            yield name, TENSORRT_TYPES.get(data[0], data[0])


def _types(line: str, part: str, rank: int | None = None) -> list[str]:
    """The types of a layer's inputs or constants, in order; of those of a rank alone where one is named."""
    listed = re.search(rf"{part}: \[ (.*?)\}}\]", line)
    tensors = re.findall(r"Dimensions: \[([^]]*)\].*?Datatype: (\w+)", listed[1]) if listed else []
    return [kind for dimensions, kind in tensors if rank is None or len(dimensions.split(",")) == rank]
