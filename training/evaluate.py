"""Scores a checkpoint or a deployed model on the VideoDeblurring data set, or on folders of frames.

python -m training.evaluate --data VideoDeblurring --protocol P1 --model model.onnx
python -m training.evaluate --blurry blur --sharp sharp --protocol P2
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from PIL import Image

from model import default_checkpoint, load_checkpoint
from model.reference import PRECISIONS, TorchRunner
from runtime import Engine
from runtime.command_line import command
from runtime.errors import InputError
from training.datasets import SPLITS, Dataset, PairedVideo, find_dataset, read_frames, video_from_folders
from training.evaluation import WINDOWS, Run, VideoScore, deblur_frames, mean_of_videos, score_videos
from training.media import read_image
from training.protocols import PROTOCOLS

CHECKPOINTS = (".safetensors", ".pth", ".pt")
SHEET = (320, 480)  # pixels of a frame on a sheet, height and width


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, scores every video, prints the table."""
    arguments = _parse(argv)
    dataset = _dataset(arguments)
    for reason in dataset.skipped:
        print(f"skipped {reason}", file=sys.stderr)
    windows = WINDOWS if arguments.windows == "both" else (arguments.windows,)
    with _opened(arguments.model or default_checkpoint(), arguments.precision, arguments.device) as (run, frames):
        scores = _with_progress(score_videos(dataset.videos, run, frames, arguments.protocol, windows), len(dataset.videos))
        if arguments.sheet:
            sheet(dataset.videos[0], run, frames).save(arguments.sheet)
    if arguments.frames:
        print(frame_table(scores))
    print(table(arguments.protocol, scores))
    if dataset.skipped:
        print(f"{len(dataset.skipped)} videos skipped")
    if arguments.json:
        content = {"protocol": arguments.protocol, "model": Path(arguments.model or default_checkpoint()).name}
        arguments.json.write_text(json.dumps({**content, "videos": [asdict(score) for score in scores]}, indent=1))
    return 0


def table(protocol: str, scores: Sequence[VideoScore]) -> str:
    """A row a video and their average: RGB PSNR, SSIM and luma PSNR, before and after."""
    lines = [f"protocol {protocol}: RGB PSNR dB / SSIM / luma PSNR dB"]
    lines.append(f"{'video':<16}{'frames':>7}  {'input':<24}" + "".join(f"{name:<24}" for name in scores[0].outputs))
    for score in [*scores, mean_of_videos(scores)]:
        columns = [score.input, *score.outputs.values()]
        cells = "".join(f"{f'{s.psnr:.2f} / {s.ssim:.4f} / {s.luma_psnr:.2f}':<24}" for s in columns)
        lines.append(f"{score.name:<16}{score.frames:>7}  {cells}".rstrip())
    return "\n".join(lines)


def frame_table(scores: Sequence[VideoScore]) -> str:
    """A row a frame: its RGB PSNR before and after."""
    lines = ["RGB PSNR of each frame, dB: input, " + ", ".join(scores[0].outputs)]
    lines += [f"{s.name}/{file}  " + "  ".join(f"{v:.2f}" for v in values) for s in scores for file, values in s.frame_psnr.items()]
    return "\n".join(lines)


def sheet(video: PairedVideo, run: Run, frames: int) -> Image.Image:
    """A row for each frame with ground truth: the middle of it blurry, deblurred in windows that follow one another, and true."""
    blurry = read_frames([pair.blurry for pair in video.frames])
    deblurred = deblur_frames(blurry, run, frames, stride=frames)
    rows = [
        np.concatenate([_middle(each) for each in (blurry[i], deblurred[i], read_image(pair.sharp))], axis=1)
        for i, pair in enumerate(video.frames)
        if pair.sharp
    ]
    return Image.fromarray(np.concatenate(rows))


def _middle(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    rows, columns = min(height, SHEET[0]), min(width, SHEET[1])
    top, left = (height - rows) // 2, (width - columns) // 2
    return frame[top : top + rows, left : left + columns]


@contextmanager
def _opened(model: Path, precision: str, device: str) -> Iterator[tuple[Run, int]]:
    if model.suffix in CHECKPOINTS:
        with TorchRunner(load_checkpoint(model), precision if precision != "auto" else "fp32", device) as runner:
            yield runner.run, runner.frames
    else:
        with Engine(model, precision=precision) as engine:
            print(engine.reason, file=sys.stderr)
            yield engine.run, engine.contract.frames


def _dataset(arguments: argparse.Namespace) -> Dataset:
    if arguments.data:
        return find_dataset(arguments.data, arguments.split)
    if not (arguments.blurry and arguments.sharp):
        raise InputError("got no videos: give --data, or --blurry and --sharp")
    return Dataset((video_from_folders(arguments.blurry, arguments.sharp),), ())


def _with_progress(scores: Iterator[VideoScore], count: int) -> list[VideoScore]:
    start, done = time.monotonic(), []
    for score in scores:
        done.append(score)
        left = (time.monotonic() - start) / len(done) * (count - len(done))
        print(f"{score.name}: {len(done)} of {count} videos, {left / 60:.0f} min left", file=sys.stderr)
    return done


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="training.evaluate", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="folder that holds quantitative_datasets")
    add("--split", choices=SPLITS, default="test", help="part of --data (default: test, the ten of Table 4)")
    add("--blurry", type=Path, help="folder of consecutive blurry frames, instead of --data")
    add("--sharp", type=Path, help="folder with the ground truth of some or all frames of --blurry, under the same names")
    add(
        "--protocol",
        choices=PROTOCOLS,
        required=True,
        help="protocol: P1 is the paper's, P2 everyone's since; see training/protocols.py",
    )
    add("--windows", choices=(*WINDOWS, "both"), default="both", help="arrangement of windows (default: both)")
    add("--model", type=Path, help="checkpoint or exported model (default: the shipped checkpoint)")
    add(
        "--precision",
        default="auto",
        help=f"arithmetic of a checkpoint: {', '.join(PRECISIONS)}; of an exported model, as Engine takes it",
    )
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device of PyTorch for checkpoints (default: %(default)s)",
    )
    add("--frames", action="store_true", help="print the PSNR of each frame too")
    add("--sheet", type=Path, help="write a picture of the first video's frames too: blurry, deblurred, true")
    add("--json", type=Path, help="write the scores here too, for training.tables")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
