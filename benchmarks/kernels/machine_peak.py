"""What the machine can do, measured through the libraries in use: matrix products, convolutions, and a copy in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from runtime.backends.openvino_runner import core, native_bf16
from runtime.machine.hardware import usable_cores

SIDE = 2048  # of the square matrices: three of them are 50 MB in fp32 for 17 GFLOP, so that arithmetic is what is measured
CHANNELS, HEIGHT, WIDTH = 256, 46, 80  # of the convolutions, 3x3: the network's middle layers at 320x184
IN_A_ROW = 4  # layers, one after the other: what OpenVINO converts before the first and after the last weighs little
COPIED = 256 << 20  # bytes, far more than any cache
REPEATS = 5
HINTS = {"f32": "f32", "bf16": "bf16", "i8": "f32"}  # type: OpenVINO's for what is not quantised


@dataclass(frozen=True)
class MachinePeak:
    """The best of several runs, all cores of the CPU, or the GPU."""

    products: dict[str, float]  # operations a second of the matrix product, by type: "f32", "i8", "bf16" where the CPU has it
    convolutions: dict[str, float]  # the same of the convolution
    bandwidth: float  # bytes a second, read and written ones together

    def limit_ms(self, flops: int, moved: int, kind: str) -> float:
        """The least milliseconds for so much arithmetic of a type and so many bytes, at the best rates measured."""
        return 1000 * max(flops / self.flops_of(kind), moved / self.bandwidth)

    def flops_of(self, kind: str) -> float:
        """Of a kernel's type; u8 counts as i8, what was not measured as f32."""
        return self.flops.get("i8" if kind == "u8" else kind, self.flops["f32"])

    @property
    def flops(self) -> dict[str, float]:
        """The better of both, by type."""
        return {kind: max(rate, self.convolutions.get(kind, 0.0)) for kind, rate in self.products.items()}


def measure_peak() -> MachinePeak:
    """Of the CPU; runs for some seconds."""
    kinds = ("f32", "bf16", "i8") if native_bf16() else ("f32", "i8")
    products = {kind: max(_openvino_rate(kind, _matrices), _torch_product(kind)) for kind in kinds}
    return MachinePeak(products, {kind: _openvino_rate(kind, _convolutions) for kind in kinds}, _copy_bandwidth())


def measure_gpu_peak() -> MachinePeak | None:
    """Of the GPU through PyTorch; None where PyTorch or the GPU is missing. Never run yet."""
    if find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None

    def rate(call: Callable[[], object], work: float) -> float:
        def finished() -> None:
            for _ in range(REPEATS):
                call()
            torch.cuda.synchronize()

        return _best_rate(finished, REPEATS * work)

    torch.set_float32_matmul_precision("high")  # TF32, as TensorRT takes it for fp32
    made = torch.rand(4 * SIDE, 4 * SIDE, device="cuda")
    products = {}
    for kind, matrix in {"f32": made, "f16": made.half(), "bf16": made.bfloat16()}.items():
        products[kind] = rate(lambda matrix=matrix: matrix @ matrix, 2 * (4 * SIDE) ** 3)
    codes = (127 * made).to(torch.int8)
    products["i8"] = rate(lambda: torch._int_mm(codes, codes.T), 2 * (4 * SIDE) ** 3)
    return MachinePeak(products, {}, rate(lambda: made.clone(), 2 * made.nbytes))


def _openvino_rate(kind: str, made: Callable[[Any, str], tuple[Any, float]]) -> float:
    """Operations a second of the layers that `made` builds on an input; nothing is allocated or converted in Python meanwhile."""
    from openvino import Model, Tensor, opset13

    shape = [SIDE, SIDE] if made is _matrices else [1, CHANNELS, HEIGHT, WIDTH]
    given = opset13.parameter(shape, np.uint8 if kind == "i8" else np.float32)
    codes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    samples = codes if kind == "i8" else codes.astype(np.float32) / 255
    first = opset13.multiply(opset13.convert(given, np.float32), opset13.constant(np.float32(1 / 255))) if kind == "i8" else given
    layers, work = made(first, kind)
    settings = {"INFERENCE_PRECISION_HINT": HINTS[kind], "PERFORMANCE_HINT": "LATENCY"}
    request = core().compile_model(Model([layers], [given]), "CPU", settings).create_infer_request()
    request.set_input_tensor(Tensor(samples, shared_memory=True))
    return _best_rate(request.infer, work)


def _matrices(node: Any, kind: str) -> tuple[Any, float]:
    from openvino import opset13

    for _ in range(IN_A_ROW):
        node = _quantised(opset13.matmul(node, _filters((SIDE, SIDE), kind), False, True), kind)
    return node, IN_A_ROW * 2 * SIDE**3


def _convolutions(node: Any, kind: str) -> tuple[Any, float]:
    from openvino import opset13

    for _ in range(IN_A_ROW):
        filters = _filters((CHANNELS, CHANNELS, 3, 3), kind)
        node = _quantised(opset13.relu(opset13.convolution(node, filters, [1, 1], [1, 1], [1, 1], [1, 1])), kind)
    return node, IN_A_ROW * 2 * CHANNELS**2 * 9 * HEIGHT * WIDTH


def _filters(shape: tuple[int, ...], kind: str) -> Any:
    """Such that a layer's outputs are about as large as its inputs; codes of 8 bits and their scale for "i8"."""
    from openvino import opset13

    codes = np.random.default_rng(1).integers(-127, 128, shape, np.int8)
    scale = np.float32(1 / (73 * np.sqrt(np.prod(shape[1:]))))  # 73: the codes' standard deviation
    if kind != "i8":
        return opset13.constant(codes * scale)
    return opset13.multiply(opset13.convert(opset13.constant(codes), np.float32), opset13.constant(scale))


def _quantised(node: Any, kind: str) -> Any:
    """FakeQuantize, after which OpenVINO keeps 8 bits; nothing for other types."""
    from openvino import opset13

    bounds = [opset13.constant(np.float32(value)) for value in (0, 1, 0, 1)]
    return opset13.fake_quantize(node, *bounds, 256) if kind == "i8" else node


def _torch_product(kind: str) -> float:
    """0 where PyTorch is missing, and for 8 bits, for which it has no product worth the name on a CPU."""
    if kind == "i8" or find_spec("torch") is None:
        return 0.0
    import torch

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
