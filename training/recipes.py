"""How a network is trained, as data: `RECIPES` by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from training.synthesis import BlurOptions


@dataclass(frozen=True)
class Stage:
    """What a share of a run trains on."""

    start: float  # share of the run at which it begins, 0 to 1
    crop: int  # pixels, height and width of the samples
    batch: int  # samples a step
    speed: float = BlurOptions.speed  # pixels a frame, the median camera speed of synthetic samples
    generators: int = 1  # divides the inner channels of the weight generators, see training/widening.py; halves from stage to stage


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a step does; where the data comes from and how long the run is are not part of it."""

    stages: tuple[Stage, ...]
    optimizer: str = "adamw"  # "adam", "adamw" or "muon"
    learning_rate: float = 2e-4  # the peak
    final_learning_rate: float = 1e-7  # after the cosine; equal to the peak for a constant rate
    warmup: int = 500  # steps
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    initialisation: str = "kaiming"  # or "paper"
    quiet_generators: bool = True  # centred kernels, and a last layer that begins at zero, see training/widening.py
    normalised: bool = False  # batch normalisation inside the generators, at their first width, see training/normalisation.py
    residual: bool = True  # the network adds its output to its input
    loss: str = "charbonnier+fft"  # "mse", "charbonnier", "charbonnier+fft" or "psnr"
    charbonnier: float = 1e-3  # where that loss turns from squares to absolute values, on the scale of [0, 1]
    final_mse: float = 0.1  # share of the run, at its end, that minimises MSE instead
    clip: float | None = 1.0  # largest gradient norm
    ema: float | None = 0.999  # decay of the averaged weights, which are what a run delivers
    bf16: bool = True  # autocast of the forward pass
    reuse: int = 1  # times that a synthetic sample is used, each time mirrored and turned anew
    blur: BlurOptions = field(default_factory=BlurOptions)  # its crop and speed come from the stage

    def __post_init__(self) -> None:
        starts = [stage.start for stage in self.stages]
        if not starts or starts[0] != 0 or starts != sorted(starts) or starts[-1] >= 1:
            raise ValueError(f"stages start at {starts}, expected increasing shares of the run from 0, below 1")
        widths = [stage.generators for stage in self.stages]
        if any(b not in (a, a // 2) for a, b in pairwise(widths)) or widths[-1] != 1:
            raise ValueError(
                f"stages divide the generators by {widths}, expected each the same or half of the one before, 1 at last"
            )
        for name, allowed in (("optimizer", OPTIMIZERS), ("loss", LOSSES), ("initialisation", ("kaiming", "paper"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        if self.warmup < 0 or self.reuse < 1 or not 0 <= self.final_mse <= 1:
            raise ValueError(
                f"warmup {self.warmup}, reuse {self.reuse}, final_mse {self.final_mse}: expected >= 0, >= 1, in [0, 1]"
            )

    def stage(self, progress: float) -> Stage:
        """The stage at `progress`, 0 to 1."""
        return [stage for stage in self.stages if stage.start <= progress][-1]

    def stage_blur(self, stage: Stage) -> BlurOptions:
        """The law of the synthetic samples of a stage."""
        return replace(self.blur, height=stage.crop, width=stage.crop, speed=stage.speed)


OPTIMIZERS = ("adam", "adamw", "muon")
LOSSES = ("mse", "charbonnier", "charbonnier+fft", "psnr")

RECIPES: dict[str, Recipe] = {
    "default": Recipe(stages=(Stage(0, crop=128, batch=32), Stage(0.5, crop=192, batch=32)), normalised=True),
    "cpu": Recipe(  # for an hour or two on two busy cores: mild blur only, heavy blur takes far longer to learn
        stages=(
            Stage(0.0, crop=64, batch=8, speed=8.0, generators=4),
            Stage(0.6, crop=96, batch=4, speed=8.0, generators=4),
            Stage(0.88, crop=96, batch=4, speed=8.0, generators=2),
            Stage(0.94, crop=96, batch=4, speed=8.0, generators=1),
        ),
        optimizer="muon",
        learning_rate=3e-4,
        final_learning_rate=1e-5,
        warmup=100,
        weight_decay=0.0,
        normalised=True,
        loss="psnr",
        charbonnier=0.003,
        final_mse=0.0,  # it buys 0.04 dB on heavy blur with 0.5 dB on frames that are nearly sharp
        ema=0.998,
        reuse=4,
    ),
    "paper": Recipe(  # Jiang et al. 2020, sections III and IV, literally; its initialisation hardly trains
        stages=(Stage(0, crop=128, batch=4),),
        optimizer="adam",
        learning_rate=1e-5,
        final_learning_rate=1e-5,
        warmup=0,
        betas=(0.9, 0.999),
        weight_decay=0.0,
        initialisation="paper",
        quiet_generators=False,
        residual=False,
        loss="mse",
        clip=None,
        ema=None,
        bf16=False,
    ),
}
