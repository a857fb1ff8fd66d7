"""Runs an engine where it can run: how close it comes to its model on golden frames, how long it takes, what memory."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from export.compare.golden_frames import golden_kind, write_golden
from runtime import backends
from runtime.bundle import self_test
from runtime.errors import MissingPackageError
from runtime.files.engine_record import Measured, load_record
from runtime.files.on_disk import file_sha256
from runtime.machine.requirements import requirement
from runtime.pixels.metrics import decibels_for_json

WARM_UP, TIMED = 3, 30  # windows


def measure_engine(engine: Path, reference: Path, clip: Path, device: int = 0) -> Measured:
    """What an engine with a record does on this machine's GPU, held to the ONNX file `reference` on a window of `clip`.

    The window of the timing has the shape that the engine is tuned for. Memory that other programs take or free meanwhile is
    counted too. Raises BackendError where the engine does not run here, or is not the network: with the numbers.
    """
    try:
        from runtime.backends.device_memory import free_memory, open_gpu  # here: most machines that build have no GPU
    except ImportError as error:
        raise MissingPackageError(requirement("cuda-bindings"), "measuring an engine") from error
    gpu, record = open_gpu(device), load_record(engine)
    before = free_memory()
    choice = backends.open_model(engine, backends.How(device=device))
    with closing(choice.runner), TemporaryDirectory() as folder:
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


def _median_seconds(runner: Any, shape: tuple[int, ...], io: str) -> float:
    codes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    window = codes.astype(np.float32) / 255 if io == "f32" else codes
    seconds = []
    for _ in range(WARM_UP + TIMED):
        started = time.perf_counter()
        runner.run(window)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP:])
