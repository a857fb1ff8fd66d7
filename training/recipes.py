"""How a network is trained, as data: `RECIPES` by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from runtime.errors import InputError
from training.synthesis import BlurOptions


@dataclass(frozen=True)
class Stage:
    """What a run trains on from some number of samples on."""

    start: int  # samples that the weights have seen before it
    crop: int  # pixels, height and width of what a step sees
    batch: int  # samples a step
    speed: float = BlurOptions.speed  # pixels a frame, the median camera speed of synthetic samples
    stored: int = 96  # pixels, height and width of the samples that crops are cut from


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a step does; where the data comes from and how long the run is are not part of it."""

    stages: tuple[Stage, ...]
    optimizer: str = "soap"  # "adam", "adamw" or "soap"
    learning_rate: float = 2e-3  # the peak; "soap" scales it for each kernel by the size of its weights, see training/optimizers.py
    full_rate: int | None = None  # samples after which the rate falls with the square root of those seen, and `floor` with it
    anneal: float = 0.3  # share of a timed run, at its end, in which the rate falls to zero and `floor` to `final_floor`
    warmup: int = 100  # steps
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    initialisation: str = "prepared"  # see training/beginning.py, or "kaiming", or "paper"
    coarse_alone: int = 0  # samples in which the output sees what comes from half resolution alone
    residual: bool = True  # the network adds its output to its input
    loss: str = "psnr"  # or "mse", see training/losses.py
    floor: float = 0.03  # RMS error in [0, 1] below which a frame hardly counts any more, for "psnr"
    final_floor: float = 0.003
    clip: float | None = 1.0  # largest gradient norm
    ema: float | None = 0.995  # decay of the averaged weights, which are what a run delivers
    bf16: bool = True  # autocast of the forward pass, where the device multiplies bf16 in hardware
    reuse: int = 8  # times that a sample is used, about, before the pool grows
    pool: int = 128  # blocks of samples, see training/stored.py, at which it stops growing
    blur: BlurOptions = field(default_factory=BlurOptions)  # its crop and speed come from the stage

    def __post_init__(self) -> None:
        starts = [stage.start for stage in self.stages]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"stages start at {starts}, expected increasing counts of samples from 0")
        if any(stage.stored < stage.crop for stage in self.stages):
            raise ValueError("a stage cuts crops out of samples that are smaller, expected stored >= crop")
        for name, allowed in (("optimizer", OPTIMIZERS), ("loss", LOSSES), ("initialisation", INITIALISATIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        if self.warmup < 0 or self.reuse < 1 or self.pool < 1 or not 0 <= self.anneal <= 1:
            raise ValueError(
                f"warmup {self.warmup}, reuse {self.reuse}, pool {self.pool}, anneal {self.anneal}: "
                "expected >= 0, >= 1, >= 1, in [0, 1]"
            )
        if self.full_rate is not None and self.full_rate < 1:
            raise ValueError(f"full_rate is {self.full_rate}, expected samples, at least 1")

    def stage(self, samples: int) -> Stage:
        """The stage after `samples`."""
        return [stage for stage in self.stages if stage.start <= samples][-1]

    def stage_blur(self, stage: Stage) -> BlurOptions:
        """The law of the synthetic samples of a stage."""
        return replace(self.blur, height=stage.stored, width=stage.stored, speed=stage.speed)

    def annealed(self, progress: float) -> float:
        """How far the rate has fallen at `progress` through a timed run, 0 to 1."""
        return min(1.0, max(0.0, (progress - 1 + self.anneal) / self.anneal)) if self.anneal else 0.0

    def settled(self, samples: int) -> float:
        """The share of the full rate that is left after `samples`, 1 to 0."""
        return min(1.0, math.sqrt(self.full_rate / samples)) if self.full_rate and samples else 1.0

    def rate(self, step: int, samples: int, progress: float) -> float:
        """The learning rate at `step` of this run, counted from 0, of a network that has seen `samples`."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * warm * self.settled(samples) * (1 - self.annealed(progress))

    def loss_floor(self, samples: int, progress: float) -> float:
        """The floor of the loss; annealing takes it by equal factors to `final_floor`."""
        floor = max(self.final_floor, self.floor * self.settled(samples))
        return floor * (self.final_floor / floor) ** self.annealed(progress)


def changed(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with some fields of one value each set anew, from texts such as "floor=0.003". Raises InputError."""
    values = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        present = getattr(recipe, name, None) if name in {field.name for field in fields(recipe)} else None
        kind = type(present)
        if kind not in (int, float, str) or not text:
            raise InputError(
                f"got --set {setting}, expected NAME=VALUE of a number or word in training/recipes.py, such as floor=0.003"
            )
        try:
            values[name] = kind(text)
        except ValueError as error:
            raise InputError(f"{name} is {text!r}, expected {kind.__name__}, as in {name}={present}") from error
    try:
        return replace(recipe, **values)
    except ValueError as error:
        raise InputError(str(error)) from error


OPTIMIZERS = ("adam", "adamw", "soap")
LOSSES = ("mse", "psnr")
INITIALISATIONS = ("prepared", "kaiming", "paper")

RECIPES: dict[str, Recipe] = {
    "cpu": Recipe(
        stages=(Stage(0, crop=64, batch=32), Stage(600_000, crop=96, batch=16, stored=144)),
        full_rate=8_000,
        coarse_alone=5_000,
    ),
    "gpu": Recipe(
        stages=(Stage(0, crop=96, batch=64, stored=144), Stage(600_000, crop=192, batch=32, stored=256)),
        full_rate=32_000,  # a batch is four times as large: never run yet
        coarse_alone=20_000,
        ema=0.999,
        reuse=16,
        pool=256,
    ),
    "paper": Recipe(  # Jiang et al. 2020, sections III and IV, literally; its initialisation hardly trains
        stages=(Stage(0, crop=128, batch=4, stored=128),),
        optimizer="adam",
        learning_rate=1e-5,
        anneal=0.0,
        warmup=0,
        betas=(0.9, 0.999),
        initialisation="paper",
        residual=False,
        loss="mse",
        clip=None,
        ema=None,
        bf16=False,
        reuse=1,
        pool=1 << 20,
    ),
}
