"""Measures what a checkpoint gains on held-out pictures with synthetic blur, by how blurred the frames are, and on real frames.

python -m training.gain --pictures FOLDER --real BLURRY SHARP
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from model import load_checkpoint
from runtime.command_line import command
from training.datasets import video_from_folders
from training.recipes import RECIPES
from training.synthesis import synthesize
from training.textures import load_textures
from training.validation import CLASSES, Gain, Validation, real_frames


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, synthesises, measures, prints the table."""
    parser = argparse.ArgumentParser(prog="training.gain", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--pictures", type=Path, nargs="+", required=True, help="sharp pictures, or folders of them, that were not trained on")
    add("--model", type=Path, help="checkpoint (default: the shipped one)")
    add("--real", type=Path, nargs=2, metavar=("BLURRY", "SHARP"), help="folders of real frames; SHARP may hold only some of them")
    add("--samples", type=int, default=128, help="samples of 5 frames (default: 128)")
    add("--crop", type=int, default=128, help="pixels, height and width of a sample (default: 128)")
    add("--recipe", choices=RECIPES, default="cpu", help="recipe whose blur is made (default: cpu)")
    add("--seed", type=int, default=0, help="seed of all random choices (default: 0)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="device of PyTorch (default: %(default)s)")
    arguments = parser.parse_args(argv)
    network = load_checkpoint(arguments.model).to(arguments.device).to(memory_format=torch.channels_last)
    blur = replace(RECIPES[arguments.recipe].blur, height=arguments.crop, width=arguments.crop, frames=network.config.frames)
    samples = synthesize(load_textures(arguments.pictures, torch.device("cpu")), blur, arguments.samples, arguments.seed)
    real = real_frames(video_from_folders(*arguments.real), network.config.frames) if arguments.real else ()
    print(table(Validation(samples, real).gain(network)))
    return 0


def table(gain: Gain) -> str:
    """A row a class of input PSNR, and their mean over frames."""
    lines = [f"{'input PSNR, dB':<16}{'frames':>8}{'gain, dB':>10}"]
    for (low, high), count, value in zip(pairwise(CLASSES), gain.counts, gain.by_class):
        name = f"{low:g} to {high:g}" if math.isfinite(high) else f"above {low:g}"
        lines.append(f"{name:<16}{count:>8}{value:>+10.2f}")
    lines.append(
        f"{'all':<16}{sum(gain.counts):>8}{gain.mean:>+10.2f}   (mean input {gain.input:.2f} dB, output {gain.output:.2f} dB)"
    )
    lines += [f"{part} is worth {value:+.3f} dB of it" for part, value in gain.worth.items()]
    lines += [f"real frame {name}: {value:+.2f} dB of luma" for name, value in gain.real.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
