"""Samples made once, kept in a folder, and cut, mirrored and turned anew for each step: batches are a function of seed and step.

Synthesis costs about as much as a training step. A pool grows block by block while a run goes on, so that a run begins at once and
sees new samples for long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from runtime.errors import DeployError
from runtime.files.on_disk import partial_file
from training.recipes import Recipe, Stage
from training.sources import Source
from training.synthesis import Samples

BLOCK = 128  # samples a file
FIRST = 8  # blocks that are there before the first step


@dataclass
class StoredSamples:
    """Batches for the steps of a run, out of a pool of files in `folder`; a missing or damaged one is made again from its seed."""

    source: Source
    recipe: Recipe
    folder: Path
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _blocks: dict[tuple[Stage, int], Tensor] = field(default_factory=dict)

    def batch(self, step: int, stage: Stage, samples: int) -> Samples:
        """The samples of a step, (stage.batch, frames, stage.crop, stage.crop); `samples` of the stage were seen before it."""
        pool = min(self.recipe.pool, FIRST + samples // (BLOCK * self.recipe.reuse))
        generator = torch.Generator().manual_seed(_mixed(self.seed, step))
        chosen = torch.randint(pool * BLOCK, (stage.batch,), generator=generator).tolist()
        draws = torch.rand(stage.batch, 6, generator=generator).tolist()
        cut = [_cut(self._block(stage, place // BLOCK)[place % BLOCK], stage.crop, draw) for place, draw in zip(chosen, draws)]
        pairs = torch.stack(cut).to(self.device).float() / 255
        return Samples(pairs[:, 0], pairs[:, 1])

    def _block(self, stage: Stage, index: int) -> Tensor:
        """(BLOCK, 2, frames, size, size) uint8: blurry and sharp."""
        if (stage, index) not in self._blocks:
            self._blocks[stage, index] = torch.from_numpy(self._stored(stage, index))
        return self._blocks[stage, index]

    def _stored(self, stage: Stage, index: int) -> np.ndarray:
        size = stage.stored
        path = self.folder / f"{size}px_speed{stage.speed:g}_seed{self.seed}_{index:05}.npy"
        shape = (BLOCK, 2, self.recipe.blur.frames, size, size)
        try:
            kept = np.load(path, mmap_mode="c")  # pages come and go with the system's cache; private, never written
            if kept.shape == shape and kept.dtype == np.uint8:
                return kept
        except (OSError, ValueError, EOFError):
            pass
        made = self.source.samples(stage, BLOCK, _mixed(self.seed, index))
        pairs = torch.stack([made.blurry, made.sharp], 1).mul(255).round().byte().cpu().numpy()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial_file(path) as partial, partial.open("wb") as file:
                np.save(file, pairs)
        except OSError as error:
            raise DeployError(f"{path} cannot be written ({error}): free some space and give the same command again") from error
        return pairs


def _cut(pair: Tensor, crop: int, draws: list[float]) -> Tensor:
    """(2, frames, size, size) -> (2, frames, crop, crop), somewhere, turned and mirrored."""
    down, right, reverse, flip, mirror, transpose = draws
    room = pair.shape[-1] - crop + 1
    top, left = int(down * room), int(right * room)
    pair = pair[..., top : top + crop, left : left + crop]
    axes = [axis for axis, draw in ((1, reverse), (2, flip), (3, mirror)) if draw < 0.5]
    pair = pair.flip(axes) if axes else pair
    return pair.transpose(2, 3) if transpose < 0.5 else pair


def _mixed(*numbers: int) -> int:
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (1 << 62)
    return mixed
