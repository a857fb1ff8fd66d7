"""What a network's kernels did, by the libraries' own profiles: OpenVINO's, ONNX Runtime's, and trtexec's --exportProfile."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends.openvino_runner import core, native_bf16, settings
from runtime.errors import BackendError, InputError

GROUPS = {  # name: the beginnings of the module paths that belong to it
    "temporal generator": ("temporal.generator",),
    "spatial generator": ("spatial.generator",),
    "ConvGRUs": ("temporal.cell", "spatial.cell", "spatial.projections"),
}
RECONSTRUCTION = "reconstruction"  # c1, c2, r1, r2, the sums and joins around them, and what no module made
BYTES = {"f32": 4, "i32": 4, "bf16": 2, "f16": 2, "i8": 1, "u8": 1, "boolean": 1, "i64": 8}
ORT_BYTES = {"float": 4, "float16": 2, "uint8": 1, "int8": 1, "int32": 4, "int64": 8, "bool": 1}
ORT_TYPES = {"float": "f32", "float16": "f16", "uint8": "u8", "int8": "i8"}
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Identity")  # move nothing
CONV_NODE = re.compile(r"[\w.]+?/Conv(_\d+)?")

Planes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Kernel:
    """One step of a compiled network, on one window."""

    name: str  # of the node it came from
    kind: str  # the library's word: "Convolution", "Interpolate", ...
    milliseconds: float
    flops: int  # 2 for each multiply-add of a convolution; 0 for everything else
    bytes: int  # its inputs, filters and outputs, each moved once
    type: str  # arithmetic: "f32", "bf16", "i8", "u8"

    @property
    def group(self) -> str:
        """A key of GROUPS, or RECONSTRUCTION."""
        return next((name for name, starts in GROUPS.items() if self.name.startswith(starts)), RECONSTRUCTION)


@dataclass(frozen=True)
class Profile:
    """The kernels of one run, and what it costs to be looked at."""

    kernels: list[Kernel]
    unprofiled_ms: float | None = None  # the least that the same run took without a profile, in turn with it; None: not known


def openvino_profile(path: Path, window: Planes, precision: str, runs: int) -> Profile:
    """Kernels of the model compiled as `Engine` compiles it, in the fastest of `runs` runs.

    Raises BackendError for bf16 on a CPU that would emulate it.
    """
    if precision == "bf16" and not native_bf16():
        raise BackendError("this CPU has no bf16 arithmetic (AMX or AVX512-BF16): profile openvino:fp32")
    model = core().read_model(path)
    if model.is_dynamic():
        model.reshape(list(window.shape))
    hints = settings(precision)
    plain = core().compile_model(model, "CPU", hints).create_infer_request()
    compiled = core().compile_model(model, "CPU", {**hints, "PERF_COUNT": "YES"})
    request = compiled.create_infer_request()
    found: list[dict[str, float]] = []

    def profiled() -> None:
        request.infer({0: window}, share_inputs=True)
        found.append({step.node_name: step.real_time.total_seconds() * 1e3 for step in request.profiling_info})

    unprofiled_ms = _in_turn(lambda: plain.infer({0: window}, share_inputs=True), profiled, runs)
    times = min(found[1:], key=lambda run: sum(run.values()))
    flops = conv_flops(path, window.shape)
    kernels = []
    for operation in compiled.get_runtime_model().get_ops():
        facts = {key: value.astype(str) for key, value in operation.get_rt_info().items()}
        if facts.get("layerType") in ("Const", "Parameter", "Result", None) or facts.get("execTimeMcs") == "not_executed":
            continue
        kernels.append(_openvino_kernel(operation, facts, times.get(operation.get_friendly_name(), 0.0), flops))
    return Profile(kernels, unprofiled_ms)


def _in_turn(plain: Callable[[], object], profiled: Callable[[], object], runs: int) -> float:
    """Calls both once to warm up, then in turn; the least milliseconds of the first."""
    least = math.inf
    for number in range(runs + 1):
        begun = time.perf_counter()
        plain()
        if number:
            least = min(least, 1000 * (time.perf_counter() - begun))
        profiled()
    return least


def _openvino_kernel(operation: Any, facts: Mapping[str, str], milliseconds: float, flops: Mapping[str, int]) -> Kernel:
    moved = sum(math.prod(_shape(port)) * _width(port.get_source_output()) for port in operation.inputs())
    moved += sum(math.prod(_shape(port)) * _width(port) for port in operation.outputs())
    names = [name for name in facts["originalLayersNames"].split(",") if name]
    chosen = next((name for name in names if not name.startswith("Constant")), operation.get_friendly_name())
    computed = flops.get(_node_of(chosen), 0) if facts["layerType"] == "Convolution" else 0
    return Kernel(chosen, facts["layerType"], milliseconds, computed, moved, facts["runtimePrecision"])


def _shape(port: Any) -> tuple[int, ...]:
    return tuple(port.get_partial_shape().to_shape())


def _width(output: Any) -> int:
    """Bytes of a sample of a node's output, as the compiled graph stores it."""
    words = output.get_node().get_rt_info()["outputPrecisions"].astype(str).split(",")
    at = output.get_index()
    return BYTES.get(words[at] if at < len(words) else words[0], 4)


def conv_flops(path: Path, shape: Sequence[int]) -> dict[str, int]:
    """2 for each multiply-add of every Conv node of an ONNX file, by its name, for an input of this shape."""
    model = core().read_model(path)
    if model.is_dynamic():
        model.reshape(list(shape))
    return {
        _node_of(operation.get_friendly_name()): 2
        * math.prod(_shape(operation.output(0)))
        * math.prod(_shape(operation.input(1)))
        // _shape(operation.output(0))[1]
        for operation in model.get_ops()
        if operation.get_type_name() in ("Convolution", "GroupConvolution")
    }


def _node_of(name: str) -> str:
    """The ONNX node that a library's name began as: "r1/Conv" of "r1/Conv/WithoutBiases" and "r1/Conv_nchwc"."""
    found = CONV_NODE.match(name)
    return found[0] if found else name


def onnxruntime_profile(path: Path, window: Planes, runs: int) -> Profile:
    """The same from the trace that ONNX Runtime writes; filters that it repacked count with their padding."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix, options.log_severity_level = True, str(Path(folder) / "trace"), 3
        profiled = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        plain = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feed = {profiled.get_inputs()[0].name: window}
        unprofiled_ms = _in_turn(lambda: plain.run(None, feed), lambda: profiled.run(None, feed), runs)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    return Profile(onnxruntime_kernels(events, conv_flops(path, window.shape)), unprofiled_ms)


def onnxruntime_kernels(events: Iterable[Mapping[str, Any]], flops: Mapping[str, int]) -> list[Kernel]:
    """The kernels of the fastest run of a trace, but for the first, which warms up; `flops` by Conv node."""
    seen: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    totals = [sum(call["dur"] for call in run) for run in zip(*seen.values())]
    fastest = min(range(1, len(totals)), key=lambda number: totals[number])
    kernels = []
    for name, calls in seen.items():
        facts = calls[fastest]["args"]
        tensors = [*_ort_shapes(facts["input_type_shape"]), *_ort_shapes(facts["output_type_shape"])]
        moved = 0 if facts["op_name"] in VIEWS else sum(math.prod(shape) * ORT_BYTES.get(kind, 4) for kind, shape in tensors)
        kind = ORT_TYPES.get(tensors[0][0] if tensors else "float", "f32")
        computed = (flops.get(_node_of(name)) or _flops_by_shape(tensors)) if "Conv" in facts["op_name"] else 0
        kernels.append(Kernel(name, facts["op_name"], calls[fastest]["dur"] / 1e3, computed, moved, kind))
    return kernels


def _flops_by_shape(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> int:
    """Of a convolution that is named after its activation: from input, filter, ..., output; channels may be padded."""
    planes = [shape for _, shape in tensors if len(shape) == 4]
    return 2 * math.prod(planes[-1]) * math.prod(planes[1]) // planes[-1][1] if len(planes) > 2 else 0


def _ort_shapes(listed: Sequence[Mapping[str, Sequence[int]]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(kind, tuple(shape)) for entry in listed for kind, shape in entry.items()]


def trtexec_profile(path: Path, flops: Mapping[str, int], kind: str) -> Profile:
    """Layers of a file of --exportProfile, with the FLOPs of the convolutions that their names hold; bytes are not known there.

    `flops` is by Conv node, see `conv_flops`; `kind` the type of their arithmetic, which the file does not say. Raises InputError
    when the file is no such. Not yet used on a file from a GPU.
    """
    try:
        rows = [row for row in json.loads(path.read_text()) if "name" in row]
        return Profile([_trtexec_kernel(row["name"], float(row["averageMs"]), flops, kind) for row in rows])
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no file of trtexec's --exportProfile ({error!r})") from error


def _trtexec_kernel(name: str, milliseconds: float, flops: Mapping[str, int], kind: str) -> Kernel:
    nodes = list(dict.fromkeys(re.findall(r"[\w.]+/\w+", name))) or [name]
    return Kernel(nodes[0], "layer", milliseconds, sum(flops.get(_node_of(node), 0) for node in nodes), 0, kind)
