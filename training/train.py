"""Trains a network on synthetic blur, on pairs in the VideoDeblurring layout, or on both.

python -m training.train --textures FOLDER [...] --out runs/first --minutes 25 --device cuda
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import replace

import torch

from model import PAPER, VARIANTS
from runtime.command_line import command
from runtime.errors import InputError
from training.datasets import find_dataset
from training.pairs import load_pairs
from training.parts import split
from training.recipes import RECIPES
from training.sources import MixedSource, Source, SyntheticSource
from training.synthesis import Samples, synthesize
from training.textures import load_textures
from training.trainer import TrainOptions, train

VALIDATION_SAMPLES, VALIDATION_CROP, VALIDATION_SEED = 64, 128, 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, trains, prints what the run reached and the next command."""
    arguments = _parse(argv)
    config = replace(VARIANTS[arguments.variant], widths=PAPER.divided(arguments.channel_divisor))
    recipe = RECIPES[arguments.recipe]
    options = TrainOptions(
        folder=arguments.out,
        recipe=replace(recipe, blur=replace(recipe.blur, frames=config.frames)),
        config=config,
        steps=arguments.steps,
        minutes=arguments.minutes,
        seed=arguments.seed,
        device=arguments.device,
        resume=arguments.resume,
        start=arguments.start,
        save_every=arguments.save_every,
        compiled=arguments.compile,
        replicas=arguments.replicas,
    )
    result = train(options, _source(arguments, options), _validation(arguments.validate, options))
    end = "finished" if result.finished else "stopped, --resume goes on,"
    print(f"{end} after {result.steps} steps, {result.samples} samples, {result.skipped} steps skipped")
    files = split(result.checkpoint) if arguments.parts else [result.checkpoint]
    print("weights: " + " ".join(map(str, files)))
    print(f"next: python -m training.evaluate --model {result.checkpoint} --protocol P2 --data ...")
    return 0


def _source(arguments: argparse.Namespace, options: TrainOptions) -> Source:
    sources: list[Source] = []
    if arguments.textures:
        sources.append(SyntheticSource(load_textures(arguments.textures, torch.device(options.device)), options.recipe))
    if arguments.data:
        dataset = find_dataset(arguments.data, "train")
        print("".join(f"skipped {reason}\n" for reason in dataset.skipped), end="", file=sys.stderr)
        sources.append(load_pairs(dataset.videos, options.config.frames))
    if not sources:
        raise InputError("got nothing to train on: give --textures, --data, or both")
    return sources[0] if len(sources) == 1 else MixedSource(tuple(sources))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="training.train", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="VideoDeblurring, the folder that holds quantitative_datasets: trains on its 61 training videos")
    add("--textures", type=Path, nargs="+", help="sharp pictures, videos, or folders of them, to synthesise blur from")
    add("--validate", type=Path, nargs="+", help="held-out sharp pictures; the gain on them is logged at every checkpoint")
    add("--out", type=Path, required=True, help="folder of the run: checkpoint, resumable state, log.csv")
    add("--recipe", choices=RECIPES, default="default", help="see training/recipes.py")
    add("--variant", choices=VARIANTS, default="I5T3", help="network of the paper's Tables 2 and 3")
    add("--channel-divisor", type=int, default=1, help="divides all inner channels, for quick trials (default: 1)")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="wall-clock length of the run; the schedule stretches over it")
    length.add_argument("--steps", type=int, help="length of the run in steps, for runs that can be repeated exactly")
    add("--start", type=Path, help="checkpoint whose weights begin the run")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--compile", action="store_true", help="torch.compile the network (worth it on a GPU)")
    add("--replicas", type=int, default=1, help="threads that share a batch, on a CPU with other work (default: 1)")
    add("--save-every", type=float, default=3.0, help="minutes between checkpoints (default: 3)")
    add("--parts", action="store_true", help="also write the weights in parts of at most 16 MB")
    return parser.parse_args(argv)


def _validation(sources: Sequence[Path] | None, options: TrainOptions) -> Samples | None:
    if not sources:
        return None
    blur = replace(options.recipe.blur, height=VALIDATION_CROP, width=VALIDATION_CROP, frames=options.config.frames)
    return synthesize(load_textures(sources, torch.device("cpu")), blur, VALIDATION_SAMPLES, VALIDATION_SEED)


if __name__ == "__main__":
    raise SystemExit(main())
