"""Compares a model file with what the PyTorch network computed, on windows of a real clip."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.engine import Engine
from runtime.errors import DeployError, InputError
from runtime.files.contract import MIN_PARITY, Contract
from runtime.pixels.metrics import decibels_for_json, psnr
from runtime.pixels.sample_codes import to_unit

GATE = MIN_PARITY["fp32"]  # dB
MAX_DIFFERING = 1e-4  # of all codes, between those that a graph writes and those made from its float graph's output
LONGEST = 300  # frames read of a clip

Samples = npt.NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """How close a file on one backend comes to the PyTorch network in fp32."""

    backend: str
    precision: str
    decibels: float  # PSNR against the full scale of a sample: 1.0, or the largest code; 200 where all are equal
    samples: int
    differing: int  # samples that are not equal; for codes the number that counts


class RunsModel(Protocol):
    """`Engine` and `export.compare.literal_runner.LiteralRunner`."""

    contract: Contract
    backend: str
    precision: str

    def run(self, window: Samples, /) -> Samples:
        """(N, F, H, W) in the model's own types -> the same shape."""
        ...


class ParityError(DeployError):
    """A file was made, and is not the network."""


def clip_windows(clip: Path, frames: int, count: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """(count, frames, height, width) luma in [0, 1]: windows spread over a clip, cut from the middle of the picture, which is
    mirrored where it is too small. Raises InputError when the clip is missing or too short, VideoError when it is no video."""
    from calibration.frames import check_video  # here, so that comparing needs no PyAV
    from runtime.video import VideoReader

    if not clip.is_file():
        raise InputError(f"{clip}: no such clip to verify on: name a video with --clip")
    check_video(clip)
    with VideoReader(clip, LONGEST) as reader:
        bits, color_range = reader.info.bits, reader.info.color_range
        lumas = [fit(frame.luma, (height, width)) for frame in reader]
    if len(lumas) < frames:
        raise InputError(f"{clip} has {len(lumas)} frames, expected at least {frames}: verify on a longer one")
    starts = np.linspace(0, len(lumas) - frames, count).astype(int)
    return to_unit(np.stack([lumas[start : start + frames] for start in starts]), bits, color_range)


def verify_float(path: Path, windows: Samples, expected: Samples) -> tuple[Parity, Samples]:
    """The parity of a float graph on ONNX Runtime, and what it computed. Raises ParityError under 100 dB."""
    with Engine(path, "onnxruntime", "fp32") as engine:
        found, computed = _measure(engine, windows, expected)
    if not found.decibels >= GATE:
        raise ParityError(f"{found.backend} comes to {found.decibels:.1f} dB of the PyTorch network, expected at least {GATE:.0f}")
    return found, computed


def verify_codes(path: Path, codes: Samples, expected: Samples, from_float: Samples) -> Parity:
    """The parity of a graph of codes on ONNX Runtime with the `expected` codes.

    Raises ParityError where it is more than one code, or in more than 0.01 % of the samples, off what the float graph gives.
    """
    with Engine(path, "onnxruntime", "fp32") as engine:
        found, got = _measure(engine, codes, expected)
    off = np.abs(got.astype(np.int64) - from_float)
    if off.max() > 1 or np.count_nonzero(off) > MAX_DIFFERING * off.size:
        raise ParityError(
            f"{np.count_nonzero(off)} of {off.size} codes differ from those of the float graph, by up to {off.max()}; expected "
            f"at most {MAX_DIFFERING:.2%}, by 1"
        )
    return found


def openvino_parities(path: Path, windows: Samples, expected: Samples) -> list[Parity]:
    """The parity of each arithmetic that OpenVINO offers on this machine, fp32 first; none where it is not installed."""
    found = []
    for precision in openvino_precisions():
        with Engine(path, "openvino", precision) as engine:
            found.append(_measure(engine, windows, expected)[0])
    return found


def openvino_precisions() -> tuple[str, ...]:
    """The arithmetic that OpenVINO offers on this machine, fp32 first; empty where it is not installed."""
    if find_spec("openvino") is None:
        return ()
    from runtime.backends.openvino_runner import native_bf16  # here, since it needs openvino

    return ("fp32", "bf16") if native_bf16() else ("fp32",)


def computed_by(runner: RunsModel, windows: Samples) -> Samples:
    """All windows, in batches of the model's size."""
    step = runner.contract.batch or 1
    return np.concatenate([runner.run(windows[i : i + step]) for i in range(0, len(windows), step)])


def compared(runner: RunsModel, got: Samples, expected: Samples) -> Parity:
    """What a model's output in its own types comes to; NaN dB where it holds NaN, which passes no gate."""
    bits = runner.contract.bits
    decibels = decibels_for_json(psnr(got, expected, 1.0 if bits is None else float(2**bits - 1)))
    return Parity(runner.backend, runner.precision, decibels, got.size, int(np.count_nonzero(got != expected)))


def fit(luma: Samples, size: tuple[int, int]) -> Samples:
    """(..., H, W) -> the middle of the picture in another size, a new array; mirrored where it is too small."""
    missing = [max(0, wanted - have) for wanted, have in zip(size, luma.shape[-2:])]
    if any(missing):
        luma = np.pad(luma, [(0, 0)] * (luma.ndim - 2) + [(0, count) for count in missing], mode="symmetric")
    top, left = ((have - wanted) // 2 for have, wanted in zip(luma.shape[-2:], size))
    return luma[..., top : top + size[0], left : left + size[1]].copy()


def _measure(engine: Engine, windows: Samples, expected: Samples) -> tuple[Parity, Samples]:
    got = computed_by(engine, windows)
    return compared(engine, got, expected), got
