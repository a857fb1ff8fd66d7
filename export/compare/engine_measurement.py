"""Runs an engine where it can run: how close it comes to its model on golden frames, how long it takes, what memory."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from export.compare.golden_frames import golden_kind, write_golden
from runtime import backends
from runtime.bundle import self_test
from runtime.errors import DeployError, MissingPackageError
from runtime.files.engine_record import Measured, load_record
from runtime.files.on_disk import file_sha256
from runtime.machine.requirements import requirement
from runtime.pixels.metrics import decibels_for_json

WARM_UP, TIMED = 3, 30  # windows
MIB = 1 << 20


def measure_engine(engine: Path, reference: Path, clip: Path, device: int = 0) -> Measured:
    """What an engine with a record does on this machine's GPU, held to the ONNX file `reference` on a window of `clip`.

    The window of the timing has the shape that the engine is tuned for. Memory that other programs take or free meanwhile is
    counted too. Raises BackendError where the engine does not run here, or is not the network: with the numbers.
    """
    try:
        from runtime.backends.device_memory import free_memory, on_gpu, open_gpu  # here: most machines that build have no GPU
    except ImportError as error:
        raise MissingPackageError(requirement("cuda-bindings"), "measuring an engine") from error
    gpu, record = open_gpu(device), load_record(engine)
    with on_gpu(gpu):
        before = free_memory()
    choice = backends.open_model(engine, backends.How(device=device))
    with closing(choice.runner), TemporaryDirectory() as folder, on_gpu(gpu):
        golden = write_golden(Path(folder), reference, clip, record.contract.frames, golden_kind(engine, record.contract))
        parity = decibels_for_json(self_test(Path(folder), golden, choice))
        shape = record.profiles[0].opt
        milliseconds = 1000 * _median_seconds(choice.runner, shape, record.contract.io)
        taken = before - free_memory()
    return Measured(
        gpu=gpu.name,
        library=f"{record.library} {record.version}",
        shape=shape,
        milliseconds=round(milliseconds, 3),
        device_memory=max(0, taken),
        parity=round(parity, 2),
        reference_sha256=file_sha256(reference),
    )


def measured_into_record(engine: Path, reference: Path, clip: Path) -> str:
    """Adds to an engine's record what it does here, and says so, or why it was not measured: no gate, unlike `measure_engine`."""
    try:
        found = measure_engine(engine, reference, clip)
    except DeployError as error:
        return f"not measured here ({error}); videodeblur adopt {engine} --like {reference} measures it where it runs"
    replace(load_record(engine), measured=found).save(engine)
    return told(found, reference)


def told(found: Measured, reference: Path) -> str:
    """A measurement as text."""
    shape = "x".join(map(str, found.shape))
    return (
        f"on {found.gpu}: {found.parity:.1f} dB to {reference} on golden frames, {found.milliseconds:.2f} ms for {shape}, "
        f"{found.device_memory / MIB:.0f} MiB of the GPU"
    )


def _median_seconds(runner: Any, shape: tuple[int, ...], io: str) -> float:
    codes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    window = codes.astype(np.float32) / 255 if io == "f32" else codes
    seconds = []
    for _ in range(WARM_UP + TIMED):
        started = time.perf_counter()
        runner.run(window)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP:])
