"""Trains a network on synthetic blur, on pairs in the VideoDeblurring layout, or on both.

python -m training.train --textures FOLDER [...] --out runs/first                       goes on until it is stopped
python -m training.train --textures FOLDER [...] --out runs/first --anneal 30          a copy of it, brought to its end
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

from model import SIZES, VARIANTS
from runtime.command_line import command
from runtime.errors import InputError
from training.datasets import find_dataset, video_from_folders
from training.pairs import load_pairs
from training.parts import split
from training.recipes import RECIPES, changed
from training.sources import MixedSource, Source, SyntheticSource
from training.synthesis import synthesize
from training.textures import load_textures
from training.trainer import TrainOptions, train
from training.validation import Validation, real_frames

VALIDATION_SAMPLES, VALIDATION_CROP, VALIDATION_SEED = 64, 128, 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, trains, prints what the run reached and the next command."""
    arguments = _parse(argv)
    size = SIZES[arguments.size]
    widths = size.widths.divided(arguments.channel_divisor)
    config = replace(VARIANTS[arguments.variant], widths=widths, generator_skips=size.generator_skips)
    recipe = changed(RECIPES[arguments.recipe], arguments.set)
    options = TrainOptions(
        folder=arguments.out,
        recipe=replace(recipe, blur=replace(recipe.blur, frames=config.frames)),
        config=config,
        steps=arguments.steps,
        minutes=arguments.minutes,
        anneal=arguments.anneal,
        seed=arguments.seed,
        device=arguments.device,
        start=arguments.start,
        save_every=arguments.save_every,
        compiled=arguments.compile,
        replicas=arguments.replicas,
    )
    result = train(options, _source(arguments, options), _validation(arguments, options))
    end = "finished" if result.finished else "stopped, the same command goes on,"
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
    add("--data", type=Path, help="folder that holds VideoDeblurring's quantitative_datasets: trains on its 61 training videos")
    add("--textures", type=Path, nargs="+", help="sharp pictures, videos, or folders of them, to synthesise blur from")
    add("--validate", type=Path, nargs="+", help="held-out sharp pictures; the gain on them is logged at every checkpoint")
    add("--real", type=Path, nargs=2, metavar=("BLURRY", "SHARP"), help="folders of real frames, for the log as well")
    add("--out", type=Path, required=True, help="folder of the run: checkpoint, state, log, samples; a run that is there goes on")
    add("--recipe", choices=RECIPES, default="cpu", help="recipe, see training/recipes.py (default: cpu)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="number of the recipe to change, such as floor=0.003; repeat",
    )
    add("--size", choices=SIZES, default="light", help="size of the network, see model/sizes.py (default: light)")
    add("--variant", choices=VARIANTS, default="I5T3", help="network of the paper's Tables 2 and 3")
    add("--channel-divisor", type=int, default=1, help="number that divides all inner channels, for quick trials (default: 1)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="wall-clock length of the run; the schedule stretches over it")
    length.add_argument("--steps", type=int, help="length of the run in steps, for runs that can be repeated exactly")
    length.add_argument(
        "--anneal", type=float, metavar="MINUTES", help="bring a copy of the run in --out to its end; the run stays"
    )
    add("--start", type=Path, help="checkpoint whose weights begin the run; a narrower network is grown to --size")
    add("--seed", type=int, default=0, help="seed of all random choices (default: 0)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="device of PyTorch (default: %(default)s)")
    add("--compile", action="store_true", help="compile the network with torch.compile (worth it on a GPU)")
    add("--replicas", type=int, default=1, help="threads that share a batch, on a CPU with other work (default: 1)")
    add("--save-every", type=float, default=3.0, help="minutes between checkpoints (default: 3)")
    add("--parts", action="store_true", help="write the weights also in parts of at most 16 MB")
    return parser.parse_args(argv)


def _validation(arguments: argparse.Namespace, options: TrainOptions) -> Validation | None:
    if not arguments.validate:
        return None
    frames = options.config.frames
    blur = replace(options.recipe.blur, height=VALIDATION_CROP, width=VALIDATION_CROP, frames=frames)
    samples = synthesize(load_textures(arguments.validate, torch.device("cpu")), blur, VALIDATION_SAMPLES, VALIDATION_SEED)
    return Validation(samples, real_frames(video_from_folders(*arguments.real), frames) if arguments.real else ())


if __name__ == "__main__":
    raise SystemExit(main())
