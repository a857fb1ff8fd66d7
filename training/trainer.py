"""Trains a network: batches in, an averaged checkpoint, a CSV log and a resumable state out."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from model import DeblurNetwork, NetworkConfig, load_checkpoint
from model.network import initialise
from runtime.errors import DeployError
from training.interrupts import deferred_interrupts
from training.losses import loss_of
from training.normalisation import folded, normalised
from training.optimizers import WeightAverage, build_optimizers, learning_rate, set_learning_rate
from training.progress import LogRow, ProgressLog
from training.recipes import Recipe
from training.replicas import Replicas
from training.sources import SampleStream, Source
from training.state import read_state, write_checkpoint, write_state
from training.synthesis import Samples
from training.validation import Gain, measure_gain
from training.widening import full_width, narrowed, prepare_generators, widened

BAD_STEPS = 20  # steps in a row with a loss that is not finite, after which a run stops


class TrainingError(DeployError):
    """A run that cannot go on; what it had saved is intact."""


@dataclass(frozen=True)
class TrainOptions:
    """One run."""

    folder: Path  # for the checkpoint, the state and the log
    recipe: Recipe
    config: NetworkConfig = field(default_factory=NetworkConfig)
    steps: int | None = None  # length of the run; this or `minutes`
    minutes: float | None = None  # wall-clock length of the run, over which its schedule stretches
    seed: int = 0
    device: str = "cpu"
    resume: bool = False  # go on from the folder's state
    start: Path | None = None  # a checkpoint whose weights begin the run
    save_every: float = 3.0  # minutes between checkpoints
    log_every: int = 50  # steps between lines of the log
    compiled: bool = False  # torch.compile
    replicas: int = 1  # threads that share a step's batch; above 1 on CPUs only

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"steps is {self.steps} and minutes {self.minutes}: give exactly one, the length of the run")
        if (self.steps if self.steps is not None else self.minutes) <= 0:
            raise ValueError(
                f"a run of {self.steps or self.minutes} {'steps' if self.steps is not None else 'minutes'}, expected above 0"
            )


@dataclass(frozen=True)
class TrainResult:
    """What a run reached."""

    checkpoint: Path  # fp16 safetensors, the averaged weights
    steps: int
    samples: int  # seen so far, repeats counted
    skipped: int  # steps whose loss was not finite
    finished: bool  # False when a signal ended the run early; `resume` goes on


def train(options: TrainOptions, source: Source, validation: Samples | None = None) -> TrainResult:
    """Runs to the end of the schedule, or until SIGINT or SIGTERM, and saves.

    Raises TrainingError when the loss stays non-finite or the seed is another, InputError when there is nothing to resume,
    SaveError when saving fails, with the previous files intact.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    run = _resumed(options) if options.resume else _begun(options)
    stream = SampleStream(source, options.recipe, options.seed)
    with ProgressLog(options.folder / "log.csv", append=options.resume) as log, deferred_interrupts() as interrupt:
        clock = _Clock(run.elapsed)
        saved = clock.elapsed()
        while _progress(options, run.step, clock.elapsed()) < 1 and not interrupt.asked:
            run.advance(stream, _progress(options, run.step, clock.elapsed()))
            due = clock.elapsed() - saved > options.save_every * 60
            if due:
                run.save(clock.elapsed())
                log.write(run.row(clock.elapsed(), _gain(run, validation)))
                saved = clock.elapsed()
            elif run.step % options.log_every == 0:
                log.write(run.row(clock.elapsed(), None))
        run.save(clock.elapsed())
        log.write(run.row(clock.elapsed(), _gain(run, validation)))
    return TrainResult(run.checkpoint, run.step, run.samples, run.skipped, not interrupt.asked)


class _Run:
    """The network, its average, the optimizers and the counters of a run in progress."""

    def __init__(self, options: TrainOptions, network: DeblurNetwork, divisor: int, normal: bool = False) -> None:
        self.options, self.recipe = options, options.recipe
        self.device = torch.device(options.device)
        self.checkpoint = options.folder / "network.safetensors"
        self.step = self.samples = self.skipped = self._bad_in_a_row = 0
        self.elapsed = 0.0  # seconds trained before this process
        self._losses: list[float] = []
        self._take(network, divisor, normal)

    def _take(self, network: DeblurNetwork, divisor: int, normal: bool = False) -> None:
        """Trains `network`, whose generators are narrowed by `divisor` and `normal`ised, from now on."""
        self.divisor, self.normalised = divisor, normal
        if normal:
            network = normalised(network)
        self.network = network.to(self.device).to(memory_format=torch.channels_last).train()
        compiled = torch.compile(self.network) if self.options.compiled else self.network
        self.replicas = Replicas(compiled, self.options.replicas)
        self.optimizers: list[Optimizer] = build_optimizers(self.network, self.recipe)
        self.average = WeightAverage(self.network, self.recipe.ema) if self.recipe.ema else None

    def _widen(self) -> None:
        """Doubles the generators; the averaged weights, the better ones, go on, and the optimizers begin anew."""
        self.replicas.close()
        self._take(widened(self.delivered(), self.divisor // 2, self.options.seed), self.divisor // 2)

    def advance(self, stream: SampleStream, progress: float) -> None:
        """One optimisation step; a loss that is not finite is skipped and counted."""
        stage = self.recipe.stage(progress)
        while self.divisor > stage.generators:
            self._widen()
        set_learning_rate(self.optimizers, learning_rate(self.recipe, self.step, progress))
        name = "mse" if progress >= 1 - self.recipe.final_mse else self.recipe.loss
        loss = self.replicas.backward(stream.batch(self.step, stage), partial(self._loss, name=name))
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip or math.inf)
        self.step += 1
        self.samples += stage.batch
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            self._skip(loss)
            return
        self._bad_in_a_row = 0
        self._losses.append(loss)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average:
            self.average.update(self.network)

    def delivered(self) -> DeblurNetwork:
        """The averaged weights so far, in evaluation mode, normalisation folded in; the generators may still be narrow."""
        network = copy.deepcopy(self.network)
        if self.average:
            network.load_state_dict(self.average.weights, strict=False)  # but the counters of normalisation
        return folded(network)

    def row(self, elapsed: float, gain: Gain | None) -> LogRow:
        """The log's line for the steps since the last one."""
        loss = sum(self._losses) / len(self._losses) if self._losses else math.nan
        self._losses = []
        progress = _progress(self.options, self.step, elapsed)
        left = max(0.0, elapsed * (1 - progress) / progress) if progress else math.nan
        rate = learning_rate(self.recipe, self.step, progress)
        return LogRow(self.step, self.samples, elapsed, left, rate, loss, self.skipped, gain)

    def save(self, elapsed: float) -> None:
        """Writes the checkpoint and the state; each appears whole or not at all."""
        notes = {"steps": str(self.step), "samples": str(self.samples), "seed": str(self.options.seed)}
        write_checkpoint(full_width(self.delivered(), self.divisor, self.options.seed), self.checkpoint, notes)
        content = {
            "run": _identity(self.options),
            "divisor": self.divisor,
            "normalised": self.normalised,
            "network": self.network.state_dict(),
            "average": self.average and (self.average.weights, self.average.updates),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": (self.step, self.samples, self.skipped, elapsed),
        }
        write_state(content, self.options.folder)

    def restore(self, content: dict[str, Any]) -> None:
        """Takes over a saved state."""
        self.step, self.samples, self.skipped, self.elapsed = content["counters"]
        self.network.load_state_dict(content["network"])
        if self.average and content["average"]:
            weights, self.average.updates = content["average"]
            for name, value in self.average.weights.items():
                value.copy_(weights[name])
        for optimizer, state in zip(self.optimizers, content["optimizers"]):
            optimizer.load_state_dict(state)

    def _loss(self, network: nn.Module, samples: Samples, name: str) -> Tensor:
        blurry = samples.blurry.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            output = network(blurry)
        return loss_of(name, output.float(), samples.sharp.to(self.device), self.recipe.charbonnier)

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= BAD_STEPS:
            raise TrainingError(
                f"the loss or its gradient was not finite for {BAD_STEPS} steps in a row (loss {loss}, step {self.step}); "
                f"what {self.options.folder} held before is intact: resume with a lower learning rate"
            )


def _gain(run: _Run, validation: Samples | None) -> Gain | None:
    return measure_gain(run.delivered(), validation) if validation else None


def _begun(options: TrainOptions) -> _Run:
    torch.manual_seed(options.seed)
    if options.start:
        return _Run(options, load_checkpoint(options.start, _config(options)), 1)
    network, divisor = _narrowed(DeblurNetwork(_config(options)), options.recipe.stages[0].generators)
    initialise(network, options.recipe.initialisation)
    if options.recipe.quiet_generators:
        prepare_generators(network)
    return _Run(options, network, divisor, options.recipe.normalised)


def _resumed(options: TrainOptions) -> _Run:
    content = read_state(options.folder)
    asked = _identity(options)
    differing = [
        f"{name} {content['run'][name]!r}, asked {value!r}" for name, value in asked.items() if content["run"][name] != value
    ]
    if differing:
        raise TrainingError(f"the run in {options.folder} has {'; '.join(differing)}: ask for the same, or name another folder")
    run = _Run(options, *_narrowed(DeblurNetwork(_config(options)), content["divisor"]), content["normalised"])
    run.restore(content)
    return run


def _identity(options: TrainOptions) -> dict[str, Any]:
    """What must not change when a run goes on; the rest of the recipe may."""
    return {"seed": options.seed, "optimizer": options.recipe.optimizer, "configuration": _config(options).to_dict()}


def _config(options: TrainOptions) -> NetworkConfig:
    return replace(options.config, residual=options.recipe.residual)


def _narrowed(network: DeblurNetwork, divisor: int) -> tuple[DeblurNetwork, int]:
    return (narrowed(network, divisor) if divisor > 1 else network), divisor


def _progress(options: TrainOptions, step: int, elapsed: float) -> float:
    return step / options.steps if options.steps else elapsed / (options.minutes * 60)


class _Clock:
    def __init__(self, before: float) -> None:
        self._start = time.monotonic() - before

    def elapsed(self) -> float:
        return time.monotonic() - self._start
