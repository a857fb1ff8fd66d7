"""Windows of a clip and what PyTorch makes of them in fp32, as one .npz file: for machines that have a GPU and no PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.windows import windows
from model import default_checkpoint, load_checkpoint
from model.reference import TorchRunner
from runtime.command_line import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, runs PyTorch, writes."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/reference_windows.py", description=__doc__)
    parser.add_argument("clip", type=Path, help="video to take windows from")
    parser.add_argument("--output", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint to run (default: the shipped one)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(720, 1280),
        metavar=("H", "W"),
        help="pixels of a window, mirrored to them (default 720 1280)",
    )
    parser.add_argument("--windows", type=int, default=3, help="windows to write (default %(default)s)")
    given = parser.parse_args(argv)
    network = load_checkpoint(given.checkpoint or default_checkpoint())
    found = islice(windows(given.clip, network.config.frames, given.size), given.windows)
    with TorchRunner(network) as runner:
        pairs = [(window, runner.run(window)) for window in found]
    np.savez(given.output, blurry=np.stack([pair[0] for pair in pairs]), sharp=np.stack([pair[1] for pair in pairs]))
    print(f"wrote {given.output}, {len(pairs)} windows of {given.size[0]}x{given.size[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
