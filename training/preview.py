"""Shows what a recipe's blur synthesis makes: the input's PSNR as a histogram, beside that of real pairs, and a sheet of samples.

python -m training.preview --textures FOLDER --sheet samples.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from PIL import Image

from runtime.command_line import command
from runtime.pixels.metrics import psnr
from training.datasets import video_from_folders
from training.media import luma, read_image
from training.recipes import RECIPES
from training.synthesis import Samples, synthesize
from training.textures import load_textures
from training.validation import frame_psnr

BINS = (0, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 40, 44, 61)  # dB
BAR = 50  # characters of a full histogram
ROWS = 16  # samples on a sheet


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, synthesises, prints the histogram, writes the sheet."""
    parser = argparse.ArgumentParser(prog="training.preview", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--textures", type=Path, nargs="+", required=True, help="sharp pictures, videos, or folders of them")
    add("--recipe", choices=RECIPES, default="cpu", help="recipe whose blur is made (default: cpu)")
    add("--samples", type=int, default=256, help="samples of 5 frames (default: 256)")
    add("--crop", type=int, default=128, help="pixels, height and width of a sample (default: 128)")
    add("--seed", type=int, default=0, help="seed of all random choices (default: 0)")
    add("--sheet", type=Path, help="PNG to write, a row a sample: its blurry frames, then the sharp one in the middle")
    add("--blurry", type=Path, help="folder of real blurry frames to compare with")
    add("--sharp", type=Path, help="folder with the ground truth of some of them, under the same names")
    arguments = parser.parse_args(argv)
    blur = replace(RECIPES[arguments.recipe].blur, height=arguments.crop, width=arguments.crop)
    samples = synthesize(load_textures(arguments.textures, torch.device("cpu")), blur, arguments.samples, arguments.seed)
    print(histogram(frame_psnr(samples.blurry, samples.sharp).flatten().numpy()))
    if arguments.blurry and arguments.sharp:
        print(real_pairs(arguments.blurry, arguments.sharp))
    if arguments.sheet:
        sheet(samples).save(arguments.sheet)
    return 0


def histogram(values: np.ndarray) -> str:
    """A line a bin, and the mean."""
    counts, _ = np.histogram(values, BINS)
    lines = [
        f"{low:>3} to {high:<3} {count / len(values):>6.1%} {'#' * round(BAR * count / counts.max())}"
        for low, high, count in zip(BINS, BINS[1:], counts)
    ]
    return "\n".join([f"luma PSNR of the input in dB, frames: {len(values)}", *lines, f"mean {values.mean():.2f} dB"])


def real_pairs(blurry: Path, sharp: Path) -> str:
    """A line a frame with ground truth."""
    pairs = [pair for pair in video_from_folders(blurry, sharp).frames if pair.sharp]
    values = [psnr(luma(read_image(pair.blurry)), luma(read_image(pair.sharp)), 255) for pair in pairs]
    return "\n".join(f"real {pair.blurry.name}: {value:.1f} dB" for pair, value in zip(pairs, values))


def sheet(samples: Samples) -> Image.Image:
    """The first samples as a picture."""
    middle = samples.sharp.shape[1] // 2
    rows = [torch.cat([*blurry, sharp[middle]], 1) for blurry, sharp in zip(samples.blurry[:ROWS], samples.sharp[:ROWS])]
    return Image.fromarray((torch.cat(rows) * 255).round().byte().numpy())


if __name__ == "__main__":
    raise SystemExit(main())
