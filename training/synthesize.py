"""Makes blurry clips with known sharp frames from pictures, as videos or in the layout of the VideoDeblurring data set.

python -m training.synthesize --pictures photo.png [...] --out FOLDER --format mp4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from runtime.command_line import command
from runtime.errors import InputError
from runtime.pixels.metrics import psnr
from training.media import write_video
from training.synthesis import BlurOptions, synthesize
from training.textures import load_textures

NO_LAYERS = (1.0,)  # probabilities of foreground layers: camera motion alone looks natural on one picture


@dataclass(frozen=True)
class Clip:
    """A synthetic clip and its ground truth, (frames, H, W, 3) uint8 sRGB."""

    name: str
    blurry: np.ndarray
    sharp: np.ndarray


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, makes the clips, prints the input's PSNR of each."""
    arguments = _parse(argv)
    width, height = arguments.size
    layers = BlurOptions.layers if arguments.foregrounds else NO_LAYERS
    blur = BlurOptions(height, width, arguments.frames, arguments.speed, arguments.spread, layers=layers, noise=arguments.noise)
    clips = [make_clip(path, blur, arguments.seed + i) for i, path in enumerate(arguments.pictures)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.format == "mp4":
        for kind in ("blurry", "sharp"):
            frames = (frame for clip in clips for frame in getattr(clip, kind))
            write_video(arguments.out / f"{arguments.name}_{kind}.mp4", frames, arguments.rate, arguments.crf)
    else:
        for clip in clips:
            write_tree(clip, arguments.out, arguments.jpeg)
    for clip in clips:
        values = [psnr(b, s, 255) for b, s in zip(clip.blurry, clip.sharp)]
        print(f"{clip.name}: input {np.mean(values):.2f} dB, by frame " + " ".join(f"{value:.1f}" for value in values))
    return 0


def make_clip(picture: Path, blur: BlurOptions, seed: int) -> Clip:
    """Moves a camera over a picture. Raises InputError when the picture is smaller than the clip."""
    textures = load_textures([picture], torch.device("cpu"), colour=True, scales=(1.0,), mirrored=False)
    height, width = textures.pictures[0].shape[1:]
    if height < blur.height or width < blur.width:
        raise InputError(
            f"{picture} has {width}x{height} pixels, too few for a clip of {blur.width}x{blur.height}: make it smaller"
        )
    samples = synthesize(textures, blur, 1, seed)
    return Clip(picture.stem, _codes(samples.blurry), _codes(samples.sharp))


def write_tree(clip: Clip, root: Path, quality: int | None = None) -> None:
    """Adds a clip to quantitative_datasets/<name>/{input,GT}/00000.<suffix>: PNG, or JPEG of a quality."""
    for kind, frames in (("input", clip.blurry), ("GT", clip.sharp)):
        folder = root / "quantitative_datasets" / clip.name / kind
        folder.mkdir(parents=True, exist_ok=True)
        for i, frame in enumerate(frames):
            options = {"quality": quality} if quality else {}
            Image.fromarray(frame).save(folder / f"{i:05d}.{'jpg' if quality else 'png'}", **options)


def _codes(frames: Tensor) -> np.ndarray:
    return (frames[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="training.synthesize", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--pictures", type=Path, nargs="+", required=True, help="sharp pictures; each becomes a clip")
    add("--out", type=Path, required=True, help="folder to write to")
    add(
        "--format",
        choices=("mp4", "tree"),
        default="mp4",
        help="form of a clip: two videos, or the data set's layout (default: mp4)",
    )
    add("--name", default="clip", help="name of the videos, NAME_blurry.mp4 and NAME_sharp.mp4 (default: clip)")
    add("--frames", type=int, default=10, help="frames of each clip (default: 10)")
    add("--size", type=_size, default=(480, 320), help="size in pixels, WIDTHxHEIGHT (default: 480x320)")
    add("--speed", type=float, default=BlurOptions.speed, help="median camera speed, pixels a frame (default: %(default)s)")
    add(
        "--spread",
        type=float,
        default=BlurOptions.speed_spread,
        help="spread of the speed's logarithm over clips (default: %(default)s)",
    )
    add(
        "--noise",
        type=float,
        default=BlurOptions.noise,
        help="largest standard deviation of the noise, in 8-bit codes (default: %(default)s)",
    )
    add("--foregrounds", action="store_true", help="add parts that move on their own")
    add("--rate", type=int, default=30, help="frames a second of videos (default: 30)")
    add("--crf", type=float, default=18, help="H.264 quality of videos, lower is better (default: 18)")
    add("--jpeg", type=int, help="JPEG quality of a tree's frames (default: PNG)")
    add("--seed", type=int, default=0, help="seed of all random choices (default: 0)")
    return parser.parse_args(argv)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 480x320")
    return int(width), int(height)


if __name__ == "__main__":
    raise SystemExit(main())
