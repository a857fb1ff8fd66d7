"""Prints Tables 2, 3 and 4 of the paper with our own numbers beside them.

python -m training.tables I5T3=p1.json I5T1=i5t1.json ...

The files are what training.evaluate --json wrote, one a variant, best with --protocol P1, the paper's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from model import VARIANTS
from runtime.command_line import command
from runtime.errors import InputError
from training.datasets import TEST_VIDEOS
from training.evaluation import WINDOWS

OURS = "I5T3"
TABLE_2 = {"I1T1": (30.27, 0.90), "I3T1": (30.88, 0.91), "I5T1": (31.01, 0.91), "I7T1": (30.03, 0.89), "I5T5": (30.98, 0.91)}
TABLE_3 = {"3D-sub": (30.12, 0.90), "LSTM-sub": (29.60, 0.89), "Spatial-sub": (30.31, 0.90), "Temporal-sub": (30.27, 0.90)}
ANCESTOR = ("RNNs, Zhang et al.", (30.05, 0.92))
PAPER = (31.13, 0.91)  # I5T3
TABLE_4 = {  # average PSNR on the ten test videos, dB
    "input": 27.14,
    "PSDEBLUR": 25.08,
    "DeblurGAN": 26.90,
    "MSCNN": 28.49,
    "WFA": 28.35,
    "DBN single": 28.37,
    "DBN noalign": 30.05,
    "DBN flow": 30.05,
    "STAN": 30.29,
    "DMPHN": 30.76,
    "IFI-RNN": 30.73,
    "the paper": 31.13,
}


@dataclass(frozen=True)
class Measured:
    """What an evaluation of one variant found."""

    protocol: str
    videos: tuple[Mapping[str, Any], ...]  # VideoScore as JSON

    def mean(self, measure: str, windows: str = WINDOWS[0]) -> float:
        """The mean over videos of "psnr" or "ssim"; of the input when `windows` is "input"."""
        return float(np.mean([self.video(video, measure, windows) for video in self.videos]))

    def video(self, video: Mapping[str, Any], measure: str, windows: str) -> float:
        """One video's."""
        score = video["input"] if windows == "input" else video["outputs"][windows]
        return float(score[measure])


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Reads the evaluations, prints the three tables."""
    parser = argparse.ArgumentParser(prog="training.tables", description=__doc__.splitlines()[0])
    parser.add_argument(
        "evaluations", nargs="*", help="scores by variant, VARIANT=scores.json; a variant without one gets no number of ours"
    )
    found = dict(_read(text) for text in parser.parse_args(argv).evaluations)
    print(_variants("Table 2: frames in, frames a cell sees", {**TABLE_2, OURS: PAPER}, found))
    print(_variants("Table 3: what a part is worth", {**TABLE_3, ANCESTOR[0]: ANCESTOR[1], OURS: PAPER}, found))
    print(_videos(found.get(OURS)))
    return 0


def _read(text: str) -> tuple[str, Measured]:
    variant, _, name = text.partition("=")
    if variant not in VARIANTS or not name:
        raise InputError(f"got {text!r}, expected VARIANT=scores.json with one of {', '.join(VARIANTS)}")
    try:
        content = json.loads(Path(name).read_text())
        return variant, Measured(content["protocol"], tuple(content["videos"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name} does not hold scores ({error}): write it with training.evaluate --json") from error


def _variants(title: str, paper: Mapping[str, tuple[float, float]], found: Mapping[str, Measured]) -> str:
    lines = [title, f"{'network':<20}{'paper':>14}{'ours':>14}  protocol"]
    for name, (psnr, ssim) in paper.items():
        ours = found.get(name)
        cell = f"{ours.mean('psnr'):.2f} / {ours.mean('ssim'):.2f}" if ours else "-"
        lines.append(f"{name:<20}{f'{psnr:.2f} / {ssim:.2f}':>14}{cell:>14}  {ours.protocol if ours else ''}".rstrip())
    return "\n".join([*lines, ""])


def _videos(ours: Measured | None) -> str:
    lines = ["Table 4: average PSNR on the ten test videos, dB"]
    lines += [f"{name:<20}{value:>8.2f}" for name, value in TABLE_4.items()]
    if ours is None:
        return "\n".join([*lines, f"ours: not measured, give {OURS}=scores.json"])
    columns = ("input", *ours.videos[0]["outputs"])
    lines.append(f"\nours, protocol {ours.protocol}" + "".join(f"{name:>14}" for name in columns))
    for video in ours.videos:
        lines.append(f"{video['name']:<18}" + "".join(f"{ours.video(video, 'psnr', name):>14.2f}" for name in columns))
    lines.append(f"{'average':<18}" + "".join(f"{ours.mean('psnr', name):>14.2f}" for name in columns))
    missing = [name for name in TEST_VIDEOS if name not in [video["name"] for video in ours.videos]]
    if missing:
        lines.append(f"not comparable with the paper's average, these videos are missing: {', '.join(missing)}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
