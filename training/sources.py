"""Where samples come from, and the stream of batches a run takes from them: a function of the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.recipes import Recipe, Stage
from training.synthesis import Samples, synthesize
from training.textures import Textures

BLOCK = 128  # samples made at a time and shuffled together


class Source(Protocol):
    """Makes samples for a stage of a recipe."""

    def samples(self, stage: Stage, count: int, seed: int) -> Samples:
        """`count` samples of `stage.crop` squared pixels; the same arguments give the same samples."""


@dataclass(frozen=True)
class SyntheticSource:
    """Samples synthesised from sharp pictures."""

    textures: Textures
    recipe: Recipe

    def samples(self, stage: Stage, count: int, seed: int) -> Samples:
        """See Source."""
        return synthesize(self.textures, self.recipe.stage_blur(stage), count, seed)


@dataclass(frozen=True)
class MixedSource:
    """Equal shares of several sources."""

    sources: tuple[Source, ...]

    def samples(self, stage: Stage, count: int, seed: int) -> Samples:
        """See Source."""
        shares = [len(range(i, count, len(self.sources))) for i in range(len(self.sources))]
        parts = [source.samples(stage, share, seed) for source, share in zip(self.sources, shares) if share]
        device = parts[0].blurry.device
        return Samples(*(torch.cat([getattr(part, kind).to(device) for part in parts]) for kind in ("blurry", "sharp")))


class SampleStream:
    """Batches for the steps of a run. A block of samples serves `recipe.reuse` times over, shuffled, mirrored and turned anew."""

    def __init__(self, source: Source, recipe: Recipe, seed: int) -> None:
        self.source, self.recipe, self.seed = source, recipe, seed
        self._made: tuple[Stage, int] | None = None
        self._block: Samples | None = None

    def batch(self, step: int, stage: Stage) -> Samples:
        """The samples of a step, (stage.batch, frames, stage.crop, stage.crop)."""
        batches = max(1, BLOCK // stage.batch)
        block, within = divmod(step, batches * self.recipe.reuse)
        if self._made != (stage, block):
            self._made, self._block = (stage, block), self.source.samples(stage, batches * stage.batch, _mixed(self.seed, block))
        epoch, position = divmod(within, batches)
        generator = torch.Generator().manual_seed(_mixed(self.seed, block, epoch + 1))
        order = torch.randperm(batches * stage.batch, generator=generator)
        chosen = order[position * stage.batch : (position + 1) * stage.batch].to(self._block.blurry.device)
        turn = torch.rand(batches, 4, generator=generator)[position].tolist()
        return Samples(_turned(self._block.blurry[chosen], turn), _turned(self._block.sharp[chosen], turn))


def _turned(frames: Tensor, draws: list[float]) -> Tensor:
    reverse, flip, mirror, transpose = (draw < 0.5 for draw in draws)
    axes = [axis for axis, chosen in ((1, reverse), (2, flip), (3, mirror)) if chosen]
    frames = frames.flip(axes) if axes else frames
    return frames.transpose(2, 3) if transpose else frames


def _mixed(*numbers: int) -> int:
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (1 << 62)
    return mixed
