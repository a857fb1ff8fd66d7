"""PSNR before and after on a clip whose truth is known, parity and speed of every CPU backend, and a contact sheet."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.contact_sheet import save_sheet
from model import load_checkpoint
from model.reference import TorchRunner
from runtime import DeployError, Engine, InputError
from runtime.backends.runner import Runner
from runtime.command_line import command
from runtime.machine.hardware import cpu_name
from runtime.pixels.metrics import psnr
from runtime.pixels.sample_codes import to_unit
from runtime.video import VideoReader

CANDIDATES = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))

Planes = npt.NDArray[np.float32]  # (frames, H, W), luma in [0, 1]


@dataclass(frozen=True)
class Row:
    """One backend on one clip."""

    backend: str
    precision: str
    parity: float  # dB against PyTorch fp32, over the whole clip
    quality: float  # dB against the truth, mean over the frames
    fps: float  # frames a second, engine only


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/quality.py", description=__doc__)
    parser.add_argument("blurry", type=Path, help="video to deblur")
    parser.add_argument("sharp", type=Path, help="video of the same frames without blur")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file from export/to_onnx.py")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint of the model (default: the shipped one)")
    parser.add_argument("--sheet", type=Path, help="write a PNG of frames before, after, and the truth")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(argv)
    blurry, sharp = read_luma(options.blurry), read_luma(options.sharp)
    if blurry.shape != sharp.shape:
        raise InputError(f"{options.blurry} is {blurry.shape}, {options.sharp} is {sharp.shape} (frames, H, W): expected the same")
    before = clip_psnr(blurry, sharp)
    rows = measure(options.model, options.checkpoint, blurry, sharp)
    print(table(before, rows, options.blurry, len(blurry)))
    if options.json:
        options.json.write_text(
            json.dumps({"cpu": cpu_name(), "input": before, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )
    if options.sheet:
        save_sheet(options.sheet, options.blurry, options.sharp, options.model)
        print(f"frames before, after and the truth: {options.sheet}")
    return 0


def read_luma(path: Path) -> Planes:
    """All frames of a short clip."""
    with VideoReader(path) as reader:
        return np.stack([to_unit(frame.luma, reader.info.bits, reader.info.color_range) for frame in reader])


def measure(model: Path, checkpoint: Path | None, blurry: Planes, sharp: Planes) -> list[Row]:
    """A row for every backend that this machine has; one after the other, the first window of each untimed: it compiles."""
    rows: list[Row] = []
    reference: Planes | None = None
    for backend, precision in CANDIDATES:
        try:
            engine = Engine(model, backend=backend, precision=precision)
        except DeployError as error:
            print(f"left out: {backend} {precision}: {error}", file=sys.stderr)
            continue
        with engine:
            size = engine.contract.frames
            if reference is None:
                with TorchRunner(load_checkpoint(checkpoint), "fp32") as network:
                    reference = deblur(network, blurry, size)
            deblur(engine, blurry[:size], size)
            seconds = -time.perf_counter()
            output = deblur(engine, blurry, size)
            seconds += time.perf_counter()
        parity = psnr(output, reference, 1.0)
        rows.append(Row(backend, precision, parity, clip_psnr(output, sharp), len(output) / seconds))
    return rows


def deblur(runner: Runner | TorchRunner | Engine, frames: Planes, size: int) -> Planes:
    """(frames, H, W) through anything with `run`, in windows of `size` frames; a rest of the clip is dropped."""
    starts = range(0, len(frames) - size + 1, size)
    return np.concatenate([runner.run(frames[start : start + size][None])[0] for start in starts])


def clip_psnr(frames: Planes, truth: Planes) -> float:
    """Mean over the frames of the luma PSNR in dB, samples clipped to [0, 1]."""
    return float(np.mean([psnr(np.clip(a, 0, 1), np.clip(b, 0, 1), 1.0) for a, b in zip(frames, truth)]))


def table(before: float, rows: Sequence[Row], clip: Path, frames: int) -> str:
    """The figures as text."""
    lines = [
        f"{clip.name}, {frames} frames, on {cpu_name()}",
        f"PSNR of the input against the truth: {before:.2f} dB (luma, mean over the frames)",
        f"{'':22}{'PSNR of output':>16}{'gain':>10}{'parity with PyTorch':>22}{'speed':>13}",
    ]
    for row in rows:
        gain, name = row.quality - before, f"{row.backend} {row.precision}"
        lines.append(f"{name:22}{row.quality:13.2f} dB{gain:+7.2f} dB{row.parity:19.1f} dB{row.fps:9.1f} fps")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
