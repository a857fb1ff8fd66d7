"""Where samples come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from training.recipes import Recipe, Stage
from training.synthesis import Samples, synthesize
from training.textures import Textures


class Source(Protocol):
    """Makes samples for a stage of a recipe."""

    def samples(self, stage: Stage, count: int, seed: int) -> Samples:
        """`count` samples of `stage.stored` squared pixels; the same arguments give the same samples."""


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
