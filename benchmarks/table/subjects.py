"""What a benchmark measures: a file on a backend, or a peer, behind one call for one window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers import PEERS, PeerInput, open_peer
from runtime import Engine
from runtime.backends import CPU_BACKENDS
from runtime.errors import InputError
from runtime.files.contract import Contract, read_contract
from runtime.files.engine_record import SUFFIXES
from runtime.files.model_spec import parse
from runtime.machine.memory import memory_at_hand
from runtime.pixels import padding, sample_codes
from runtime.run.network_memory import bytes_for

CPU_ARITHMETIC = ("openvino:bf16", "openvino:fp32", "onnxruntime")
GPU_ARITHMETIC = ("onnxruntime-cuda:fp32", "onnxruntime-cuda:tf32")
COPYING = ("onnxruntime-cuda",)  # backends whose computation is not to be had without the copies in and out
CODE_TYPES = {"u8": np.uint8, "u16": np.uint16}

Samples = npt.NDArray[Any]


@dataclass(frozen=True)
class Subject:
    """Something that deblurs windows of one shape."""

    name: str  # FILE@BACKEND:PRECISION, or a key of PEERS
    kind: str  # "engine" or "peer"
    backend: str
    precision: str
    reason: str  # why these; empty for peers
    run: Callable[[Samples], Samples]  # numpy in, numpy out
    without_copies: Callable[[Samples], Callable[[], object]] | None = None  # a window -> the bare computation; None: not to be had
    contract: Contract | None = None
    memory: int = 0  # bytes that it takes when it runs, about
    gpu: bool = False  # runs on one

    def encode(self, window: npt.NDArray[np.float32]) -> Samples:
        """Luma in [0, 1] -> what `run` takes."""
        contract = self.contract
        if contract is None or contract.io == "f32":
            return window
        assert contract.bits is not None
        assert contract.color_range is not None
        return sample_codes.from_unit(window, contract.bits, contract.color_range).astype(CODE_TYPES[contract.io])

    def decode(self, window: Samples) -> npt.NDArray[np.float32]:
        """What `run` yields -> luma, nominally in [0, 1]."""
        if self.contract is None or self.contract.io == "f32":
            return window
        return sample_codes.to_unit(window, self.contract.bits, self.contract.color_range)


def expand(files: Sequence[str], arithmetic: Sequence[str]) -> list[str]:
    """FILE@BACKEND:PRECISION for every file; one that says no more than FILE on all of `arithmetic`, or what its kind runs on.

    Raises InputError for a file that is missing, ModelError for an ONNX file that is not one of this project's.
    """
    specs: list[str] = []
    for text in files:
        name, backend, _ = parse(text)
        path = Path(name)
        if not path.exists():
            raise InputError(f"{path}: no such file, expected a model, an engine or a bundle")
        if backend or path.is_dir() or path.suffix in SUFFIXES:
            specs.append(text)
            continue
        read_contract(path)
        specs += [f"{name}@{each}" for each in arithmetic or (*CPU_ARITHMETIC, *GPU_ARITHMETIC)]
    return list(dict.fromkeys(specs))


def open_engine(text: str, threads: int | None = None) -> Engine:
    """The engine of FILE[@BACKEND[:PRECISION]]. Raises DeployError when it cannot run here."""
    name, backend, precision = parse(text)
    return Engine(name, backend or "auto", precision or "auto", threads)


@contextmanager
def open_subject(name: str, given: PeerInput, threads: int | None = None, promised: int = 0) -> Iterator[Subject]:
    """Opens what `expand` or PEERS names. Raises DeployError when it cannot run here, or there is too little memory.

    `promised` are the bytes that others which are open will still take.
    """
    if name in PEERS:
        memory = 0 if PEERS[name].gpu else _memory(read_contract(given.model), given.shape, PEERS[name].precision, promised)
        call = open_peer(name, given)
        yield Subject(name, "peer", name.split()[0], PEERS[name].precision, "", call, memory=memory, gpu=PEERS[name].gpu)
        return
    with open_engine(name, threads) as engine:
        check_size(engine.contract, given.shape)
        on_cpu = engine.backend in CPU_BACKENDS
        memory = _memory(engine.contract, given.shape, engine.precision, promised) if on_cpu else 0
        yield Subject(
            name,
            "engine",
            engine.backend,
            engine.precision,
            engine.reason,
            engine.run,
            None if engine.backend in COPYING else lambda window: call_without_copies(engine, window),
            engine.contract,
            memory,
            not on_cpu,
        )


def call_without_copies(engine: Engine, window: npt.NDArray[Any]) -> Callable[[], object]:
    """What is left of `engine.run(window)` without checks, padding, conversion, and copies in and out.

    On OpenVINO the inference request alone; on TensorRT the run on memory of the GPU, which is not recorded as a CUDA graph; on
    ONNX Runtime on a CPU the runner, which copies nothing that the library does not.
    """
    samples = _as_the_graph_takes_it(engine, window)
    if engine.backend == "tensorrt":
        return _on_gpu(engine, samples)
    if engine.backend == "openvino":
        runner: Any = engine.runner
        request = runner.compiled(samples.shape).create_infer_request()
        return lambda: request.infer({0: samples}, share_inputs=True, share_outputs=True)
    return lambda: engine.runner.run(samples)


def check_size(contract: Contract, shape: Sequence[int]) -> None:
    """Raises InputError where a file of fixed size does not take windows of (N, F, H, W)."""
    padded = padding.padded_size(shape[2], shape[3], contract.multiple if contract.io == "f32" else 1)
    fixed = (contract.batch, contract.height, contract.width)
    for word, got, expected in zip(("N", "H", "W"), (shape[0], *padded), fixed):
        if expected not in (None, got):
            raise InputError(f"it is fixed at {word} = {expected}, not {got}")


def _memory(contract: Contract, shape: Sequence[int], precision: str, promised: int) -> int:
    needed, free = bytes_for(shape[0] * shape[2] * shape[3], contract, precision), memory_at_hand()
    if free is not None and needed + promised > free:
        raise InputError(
            f"it takes about {needed / 1e9:.1f} GB beside the {promised / 1e9:.1f} of others, {free / 1e9:.1f} are free"
        )
    return needed


def _as_the_graph_takes_it(engine: Engine, window: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if engine.contract.io == "f32":
        return padding.pad(window, engine.contract.multiple)
    if engine.contract.io == "u8":
        return window
    return sample_codes.to_pairs(window)


def _on_gpu(engine: Engine, samples: npt.NDArray[Any]) -> Callable[[], object]:
    from benchmarks.shared.on_device import on_device  # needs cuda-bindings

    resident, result = on_device(samples), on_device(samples)
    return lambda: engine.run(resident, out=result)
