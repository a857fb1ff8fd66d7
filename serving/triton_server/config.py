"""config.pbtxt of the models in a repository, as text.

The python ones have been served by Triton 2.51. Those of the onnxruntime and tensorrt backends follow the documentation and have
not been run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runtime.files.contract import INPUT, OUTPUT, Contract
from serving.triton_server.host import CONTRACT, HOSTING, codes_type
from serving.triton_server.options import TritonOptions
from serving.triton_server.source import Source

MICROSECONDS = 1_000_000  # of a second
TYPES = {"f32": "TYPE_FP32", "u8": "TYPE_UINT8", "u16": "TYPE_UINT16"}  # of an engine's tensors, by the ending of their names
GRAPH_TYPES = {"f32": "TYPE_FP32", "u8": "TYPE_UINT8", "u16": "TYPE_UINT8"}  # of a graph's, by its contract: u16 is byte pairs
PRECISION = "precision"  # of a graph; agreed with runtime/backends/triton_runner.py


@dataclass(frozen=True)
class _Tensor:
    name: str
    kind: str  # Triton's data type
    dims: tuple[int, ...]  # without the batch where the model has one; -1 = any
    optional: bool = False

    def __str__(self) -> str:
        dims = ", ".join(map(str, self.dims))
        optional = " optional: true" if self.optional else ""
        return f'{{ name: "{self.name}" data_type: {self.kind} dims: [ {dims} ]{optional} }}'


def window_config(options: TritonOptions, source: Source, model: str) -> str:
    """Of the python backend's windows: codes of 8 or 16 bits or float luma, by the input that is given.

    `model` is the name of the bundle or file beside model.py.
    """
    frames, batch = source.contract.frames, _batch(options, source)
    return _text(
        [
            "# one of the inputs; the output of the same ending answers; parameters of a request: bits, color_range,",
            "# strength, describe",
            f'name: "{options.name}"',
            'backend: "python"',
            f"max_batch_size: {batch}",
            *_tensors("input", [_Tensor(f"blurry_{kind}", TYPES[kind], (frames, -1, -1), True) for kind in TYPES]),
            *_tensors(
                "output",
                [
                    *(_Tensor(f"sharp_{kind}", TYPES[kind], (frames, -1, -1)) for kind in TYPES),
                    _Tensor("description", "TYPE_STRING", (1,)),
                ],
            ),
            *_queue(options, batch),
            *_warm_up(options, source.contract, batch),
            *_instances(options),
            *_policy(options),
            *_parameter(CONTRACT, source.contract.to_json()),
            *_parameter(HOSTING, replace(options.hosting, model=model).to_json()),
        ]
    )


def stream_config(options: TritonOptions, source: Source, model: str) -> str:
    """Of the python backend's streams: a frame a request, a response for each frame that became final."""
    idle = round(options.hosting.idle * MICROSECONDS)
    return _text(
        [
            "# a frame a request, on gRPC's stream; the end of a sequence may come without one; parameters of the first request:",
            "# bits, color_range, strength, stride, delay",
            f'name: "{stream_name(options)}"',
            'backend: "python"',
            "max_batch_size: 0",
            *_tensors("input", [_Tensor(f"frame_{kind}", TYPES[kind], (-1, -1), True) for kind in TYPES]),
            *_tensors("output", [_Tensor(f"sharp_{kind}", TYPES[kind], (-1, -1)) for kind in TYPES]),
            "sequence_batching {",
            f"  max_sequence_idle_microseconds: {idle}",
            f"  oldest {{ max_candidate_sequences: {options.streams} }}",
            "}",
            "model_transaction_policy { decoupled: true }",
            *_instances(options),
            *_policy(options),
            *_parameter(CONTRACT, source.contract.to_json()),
            *_parameter(HOSTING, replace(options.hosting, model=model).to_json()),
        ]
    )


def graph_config(options: TritonOptions, source: Source) -> str:
    """Of the onnxruntime and tensorrt backends: the graph's own tensors."""
    contract, batch = source.contract, 0 if source.contract.batch else _batch(options, source)
    dims = [contract.batch] if contract.batch else []
    dims += [contract.frames, contract.height or -1, contract.width or -1, *([2] if contract.io == "u16" else [])]
    kind = GRAPH_TYPES[contract.io]
    return _text(
        [
            f"# not run by this project's tests; needs {source.needs}",
            f'name: "{options.name}"',
            f'backend: "{options.backend}"',
            f"max_batch_size: {batch}",
            *_tensors("input", [_Tensor(INPUT, kind, tuple(dims))]),
            *_tensors("output", [_Tensor(OUTPUT, kind, tuple(dims))]),
            *(_queue(options, batch) if batch else []),
            *_instances(options),
            *_policy(options),
            *_parameter(CONTRACT, contract.to_json()),
            *_parameter(PRECISION, source.precision),
        ]
    )


def stream_name(options: TritonOptions) -> str:
    """Of the streaming model."""
    return f"{options.name}_stream"


def _batch(options: TritonOptions, source: Source) -> int:
    if source.contract.batch:
        return source.contract.batch
    return min(options.max_batch, source.largest_batch or options.max_batch)


def _tensors(role: str, tensors: Sequence[_Tensor]) -> list[str]:
    return [f"{role} [", *(f"  {tensor}{',' if tensor is not tensors[-1] else ''}" for tensor in tensors), "]"]


def _queue(options: TritonOptions, batch: int) -> list[str]:
    """Windows of equal size are run together, up to `batch`; a full queue refuses."""
    preferred = [f"  preferred_batch_size: [ {batch} ]"] if batch > 1 else []
    return [
        "dynamic_batching {",
        *preferred,
        f"  max_queue_delay_microseconds: {round(options.queue_delay * MICROSECONDS)}",
        "  default_queue_policy {",
        "    timeout_action: REJECT",
        f"    default_timeout_microseconds: {round(options.queue_timeout * MICROSECONDS)}",
        f"    max_queue_size: {options.queue_size}",
        "  }",
        "}",
    ]


def _warm_up(options: TritonOptions, contract: Contract, batch: int) -> list[str]:
    """Every size alone and in every number, since some backends compile for each."""
    kind = "u16" if codes_type(contract).__name__ == "uint16" else "u8"
    counts = [batch] if contract.batch else range(1, batch + 1)
    lines = []
    for height, width in options.hosting.warm_up:
        for count in counts:
            value = f"{{ data_type: {TYPES[kind]} dims: [ {contract.frames}, {height}, {width} ] zero_data: true }}"
            lines += [
                "model_warmup {",
                f'  name: "{count} x {width}x{height}" batch_size: {count}',
                f'  inputs {{ key: "blurry_{kind}" value {value} }}',
                "}",
            ]
    return lines


def _instances(options: TritonOptions) -> list[str]:
    where = f"kind: KIND_GPU gpus: [ {', '.join(map(str, options.gpus))} ]" if options.gpus else "kind: KIND_CPU"
    return [f"instance_group [ {{ count: {options.instances} {where} }} ]"]


def _policy(options: TritonOptions) -> list[str]:
    return ["version_policy { latest { num_versions: 1 } }"]


def _parameter(key: str, value: str) -> list[str]:
    return [f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}']


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
