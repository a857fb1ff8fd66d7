"""Windows of a clip and what PyTorch makes of them in fp32, as one .npz file: for machines that have a GPU and no PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from model import default_checkpoint, load_checkpoint
from model.reference import TorchRunner
from runtime.bundle import mirrored
from runtime.command_line import command
from runtime.pixels.sample_codes import to_unit
from runtime.video import VideoReader


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, runs PyTorch, writes."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/reference_windows.py", description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="the .npz file")
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(720, 1280), metavar=("H", "W"), help="default 720 1280; mirrored to it"
    )
    parser.add_argument("--windows", type=int, default=3, help="default %(default)s")
    given = parser.parse_args(argv)
    network = load_checkpoint(given.checkpoint or default_checkpoint())
    found = islice(windows(given.clip, network.config.frames, given.size), given.windows)
    with TorchRunner(network) as runner:
        pairs = [(window, runner.run(window)) for window in found]
    np.savez(given.output, blurry=np.stack([pair[0] for pair in pairs]), sharp=np.stack([pair[1] for pair in pairs]))
    print(f"wrote {given.output}, {len(pairs)} windows of {given.size[0]}x{given.size[1]}")
    return 0


def windows(clip: Path, frames: int, size: Sequence[int]) -> Iterator[np.ndarray]:
    """(1, frames, H, W) luma in [0, 1], one after the other, continued to the size by mirroring."""
    with VideoReader(clip) as reader:
        bits, color_range = reader.info.bits, reader.info.color_range
        codes: list[np.ndarray] = []
        for frame in reader:
            codes.append(frame.luma)
            if len(codes) == frames:
                yield to_unit(mirrored(np.stack(codes), *size), bits, color_range)[None]
                codes = []


if __name__ == "__main__":
    raise SystemExit(main())
