"""Golden frames: a window and the reference's result, with which a model proves itself on the machine where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.compare.parity import clip_windows
from runtime.bundle import GOLDEN_BITS, GOLDEN_RANGE, middle, mirrored
from runtime.engine import Engine
from runtime.files.contract import Contract
from runtime.files.engine_record import SUFFIXES, load_record
from runtime.files.manifest import Golden
from runtime.pixels import sample_codes

GOLDEN_SIZE = (96, 160)  # pixels of the stored picture, and of the window that models of any size are tested with


@dataclass(frozen=True)
class GoldenKind:
    """What golden frames must be like for a model."""

    io: str
    bits: int | None
    color_range: str | None
    height: int
    width: int


def golden_kind(path: Path, contract: Contract) -> GoldenKind:
    """The smallest that the model takes, but not smaller than the stored picture where it takes that."""
    if path.suffix in SUFFIXES:
        profile = load_record(path).profiles[0]
        height, width = (
            min(max(least, wanted), most) for least, wanted, most in zip(profile.min[2:4], GOLDEN_SIZE, profile.max[2:4])
        )
    else:
        height, width = contract.height or GOLDEN_SIZE[0], contract.width or GOLDEN_SIZE[1]
    return GoldenKind(contract.io, contract.bits, contract.color_range, height, width)


def write_golden(folder: Path, reference: Path, clip: Path, frames: int, kind: GoldenKind) -> Golden:
    """Writes a window of `clip` and what `reference` makes of it on ONNX Runtime. Raises what reading the two raises."""
    bits, color_range = kind.bits or GOLDEN_BITS, kind.color_range or GOLDEN_RANGE
    stored = min(GOLDEN_SIZE[0], kind.height), min(GOLDEN_SIZE[1], kind.width)
    codes = sample_codes.from_unit(clip_windows(clip, frames, 1, *stored)[0], bits, color_range)
    window = mirrored(codes, kind.height, kind.width)[None]
    with Engine(reference, "onnxruntime", "fp32") as engine:
        sharp = (
            engine.run(sample_codes.to_unit(window, bits, color_range))
            if kind.io == "f32"
            else engine.run(window, bits, color_range)
        )
    stem = f"golden-{kind.io}-{kind.width}x{kind.height}"
    golden = Golden(**vars(kind), input=f"{stem}-input.npy", reference=f"{stem}-reference.npy")
    np.save(folder / golden.input, codes)
    np.save(folder / golden.reference, np.ascontiguousarray(middle(sharp[0], *stored)))
    return golden
