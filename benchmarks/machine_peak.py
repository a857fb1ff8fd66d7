"""What the machine can do, measured: the best matrix product of each type through the libraries in use, and a copy in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from runtime.hardware import usable_cores

SIDE = 2048  # of the square matrices: 100 MB of traffic for 17 GFLOP, so that arithmetic is what is measured
COPIED = 256 << 20  # bytes, far more than any cache
REPEATS = 5


@dataclass(frozen=True)
class MachinePeak:
    """The best of several runs, all cores."""

    flops: dict[str, float]  # by type, a second: "f32", "bf16" where the CPU has it, "i8"
    bandwidth: float  # bytes a second, read and written ones together

    def limit_ms(self, flops: int, moved: int, kind: str) -> float:
        """The least milliseconds for so much arithmetic of a type and so many bytes."""
        return 1000 * max(flops / self.flops_of(kind), moved / self.bandwidth)

    def flops_of(self, kind: str) -> float:
        """Of a kernel's type; u8 counts as i8, what was not measured as f32."""
        return self.flops.get("i8" if kind == "u8" else kind, self.flops["f32"])


def measure_peak() -> MachinePeak:
    """Runs for some seconds."""
    flops = {"f32": max(_openvino_product("f32"), _torch_product("f32")), "i8": _openvino_int8_product()}
    if _native_bf16():
        flops["bf16"] = max(_openvino_product("bf16"), _torch_product("bf16"))
    return MachinePeak(flops, _copy_bandwidth())


def _openvino_product(hint: str) -> float:
    from openvino import Model, opset13

    left = opset13.parameter([SIDE, SIDE], np.float32)
    right = opset13.constant(_matrix(1))
    return _run_openvino(Model([opset13.matmul(left, right, False, True)], [left]), hint)


def _openvino_int8_product() -> float:
    """The product of two matrices that were quantised by FakeQuantize, the form that OpenVINO turns into int8 kernels."""
    from openvino import Model, opset13

    def quantised(node):  # noqa: ANN001, ANN202 # a node of OpenVINO's graph
        bounds = [opset13.constant(np.float32(value)) for value in (-1, 1, -1, 1)]
        return opset13.fake_quantize(node, *bounds, 255)

    left = opset13.parameter([SIDE, SIDE], np.float32)
    product = opset13.matmul(quantised(left), quantised(opset13.constant(_matrix(1))), False, True)
    return _run_openvino(Model([product], [left]), "f32")


def _run_openvino(model, hint: str) -> float:  # noqa: ANN001 # openvino.Model
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"})
    request, left = compiled.create_infer_request(), _matrix(0)
    return _best_rate(lambda: request.infer({0: left}, share_inputs=True, share_outputs=True), 2 * SIDE**3)


def _torch_product(kind: str) -> float:
    try:
        import torch
    except ImportError:
        return 0.0
    left, right = (torch.from_numpy(_matrix(seed)).to(torch.bfloat16 if kind == "bf16" else torch.float32) for seed in (0, 1))
    with torch.inference_mode():
        return _best_rate(lambda: left @ right, 2 * SIDE**3)


def _copy_bandwidth() -> float:
    """One thread for each core; numpy copies without holding the interpreter's lock."""
    source, target = np.ones(COPIED, np.uint8), np.empty(COPIED, np.uint8)
    parts = list(zip(np.array_split(target, usable_cores()), np.array_split(source, usable_cores())))
    with ThreadPoolExecutor(len(parts)) as threads:
        return _best_rate(lambda: list(threads.map(lambda part: np.copyto(*part), parts)), 2 * COPIED)


def _best_rate(call: Callable[[], object], work: float) -> float:
    call()
    best = float("inf")
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begun)
    return work / best


def _matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)


def _native_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
