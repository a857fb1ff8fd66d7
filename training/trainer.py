"""Trains a network: batches in, an averaged checkpoint, a CSV log and a resumable state out."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from model import DeblurNetwork, NetworkConfig, load_checkpoint, read_notes
from model.network import initialise
from runtime.errors import DeployError, InputError
from training.beginning import coarse_alone, prepare
from training.centring import centre, recentre, uncentred
from training.growth import grown
from training.interrupts import deferred_interrupts
from training.losses import loss_on
from training.optimizers import WeightAverage, build_optimizers, set_learning_rate
from training.progress import LogRow, ProgressLog
from training.recipes import Recipe
from training.replicas import Replicas
from training.sources import Source
from training.state import has_state, read_state, write_checkpoint, write_state
from training.stored import StoredSamples
from training.validation import Gain, Validation

BAD_STEPS = 20  # steps in a row with a loss that is not finite, after which a run stops
RECENTRED = tuple(round(20 * 2.5**power) for power in range(13))  # steps at which the inputs' means are measured anew
MEASURED = 32  # samples that the beginning is measured with


class TrainingError(DeployError):
    """A run that cannot go on: its loss stays non-finite, or it does not match the state it should resume."""


@dataclass(frozen=True)
class TrainOptions:
    """One run. Without `steps` and `minutes` it goes on until it is told to stop, at its full rate."""

    folder: Path  # for the checkpoint, the state, the log and the samples; a state that is there goes on
    recipe: Recipe
    config: NetworkConfig = field(default_factory=NetworkConfig)
    steps: int | None = None  # length of the run; this, or `minutes`, or neither
    minutes: float | None = None  # wall-clock length of the run, over which its schedule stretches
    anneal: float | None = None  # minutes in which a copy of the folder's state is brought to its end; the run itself stays
    seed: int = 0
    device: str = "cpu"
    start: Path | None = None  # a checkpoint whose weights begin the run, grown to the configuration's widths
    save_every: float = 3.0  # minutes between checkpoints
    log_every: int = 50  # steps between lines of the log
    compiled: bool = False  # torch.compile
    replicas: int = 1  # threads that share a step's batch; above 1 on CPUs only

    def __post_init__(self) -> None:
        lengths = {"steps": self.steps, "minutes": self.minutes, "anneal": self.anneal}
        given = {name: value for name, value in lengths.items() if value is not None}
        if len(given) > 1 or any(value <= 0 for value in given.values()):
            raise ValueError(f"got {given}, expected at most one of steps, minutes and anneal, above 0")


@dataclass(frozen=True)
class TrainResult:
    """What a run reached."""

    checkpoint: Path  # fp16 safetensors, the averaged weights
    steps: int
    samples: int  # seen so far, repeats counted
    skipped: int  # steps whose loss was not finite
    finished: bool  # False when a signal ended the run early; the same command goes on


def train(options: TrainOptions, source: Source, validation: Validation | None = None) -> TrainResult:
    """Begins a run, or goes on with the folder's, to the end of the schedule or until SIGINT or SIGTERM, and saves.

    Raises TrainingError when the loss stays non-finite or the folder holds another run, InputError when its state is damaged or
    there is none to anneal, SaveError when saving fails, with the previous files intact.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    recipe = options.recipe
    samples = StoredSamples(source, recipe, options.folder / "samples", options.seed, torch.device(options.device))
    resumed = has_state(options.folder)
    if options.anneal and not resumed:
        raise InputError(f"{options.folder} holds no state to anneal: train there first, without --anneal")
    run = _resumed(options) if resumed else _begun(options, samples)
    log_file = options.folder / ("annealed.csv" if options.anneal else "log.csv")
    with ProgressLog(log_file, append=resumed and not options.anneal) as log, deferred_interrupts() as interrupt:
        clock = _Clock(0.0 if options.anneal else run.elapsed)
        saved = clock.elapsed()
        while run.progress(clock.elapsed()) < 1 and not interrupt.asked:
            run.advance(samples, run.progress(clock.elapsed()))
            if clock.elapsed() - saved > options.save_every * 60:
                run.save(clock.elapsed())
                log.write(run.row(clock.elapsed(), _gain(run, validation)))
                saved = clock.elapsed()
            elif run.step % options.log_every == 0:
                log.write(run.row(clock.elapsed(), None))
        run.save(clock.elapsed())
        log.write(run.row(clock.elapsed(), _gain(run, validation)))
        run.replicas.close()
    return TrainResult(run.checkpoint, run.step, run.samples, run.skipped, not interrupt.asked)


class _Run:
    """The network, its average, the optimizers and the counters of a run in progress."""

    def __init__(self, options: TrainOptions, network: DeblurNetwork) -> None:
        self.options, self.recipe = options, options.recipe
        if options.anneal:
            self.recipe = replace(self.recipe, anneal=1.0)
        self.device = torch.device(options.device)
        self.checkpoint = options.folder / ("annealed.safetensors" if options.anneal else "network.safetensors")
        self.step = self.samples = self.skipped = self._bad_in_a_row = 0
        self.before = 0  # samples that the weights had seen when the run began from them
        self.elapsed = 0.0  # seconds trained before this process
        self._losses: list[float] = []
        self.network = network.to(self.device).to(memory_format=torch.channels_last).train()
        compiled = torch.compile(self.network) if options.compiled else self.network
        self.replicas = Replicas(compiled, options.replicas)
        self.optimizers: list[Optimizer] = build_optimizers(self.network, self.recipe)
        self.average = WeightAverage(self.network, self.recipe.ema) if self.recipe.ema else None

    @property
    def seen(self) -> int:
        """Samples that the weights have seen, in this run and before it."""
        return self.before + self.samples

    def progress(self, elapsed: float) -> float:
        """The share of the schedule that is done; 0 for a run without an end."""
        if self.options.steps:
            return self.step / self.options.steps
        minutes = self.options.anneal or self.options.minutes
        return elapsed / (minutes * 60) if minutes else 0.0

    def advance(self, samples: StoredSamples, progress: float) -> None:
        """One optimisation step; a loss that is not finite is skipped and counted."""
        stage = self.recipe.stage(self.seen)
        set_learning_rate(self.optimizers, self.recipe.rate(self.step, self.seen, progress))
        for network in self.replicas.networks:
            coarse_alone(getattr(network, "_orig_mod", network), self._coarse_alone())
        floor = self.recipe.loss_floor(self.seen, progress)
        batch = samples.batch(self.step, stage, min(self.samples, self.seen - stage.start))
        if self.recipe.initialisation == "prepared" and self.step in RECENTRED:
            recentre(self.network, batch.blurry, self.average and self.average.weights)
        loss = self.replicas.backward(batch, lambda network, part: loss_on(network, part, self.recipe, floor))
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

    def _coarse_alone(self) -> bool:
        return not self.options.start and self.samples < self.recipe.coarse_alone

    def delivered(self) -> DeblurNetwork:
        """The averaged weights so far, plain and in evaluation mode."""
        network = copy.deepcopy(self.network)
        if self.average:
            network.load_state_dict(self.average.weights, strict=False)
        coarse_alone(network, False)
        return uncentred(network).eval()

    def row(self, elapsed: float, gain: Gain | None) -> LogRow:
        """The log's line for the steps since the last one."""
        loss = sum(self._losses) / len(self._losses) if self._losses else math.nan
        self._losses = []
        progress = self.progress(elapsed)
        left = max(0.0, elapsed * (1 - progress) / progress) if progress else math.nan
        rate = self.recipe.rate(self.step, self.seen, progress)
        return LogRow(self.step, self.samples, elapsed, left, rate, loss, self.skipped, gain)

    def save(self, elapsed: float) -> None:
        """Writes the checkpoint and, of a run that is not annealed, the state; each appears whole or not at all."""
        notes = {"steps": str(self.step), "samples": str(self.seen), "seed": str(self.options.seed)}
        write_checkpoint(self.delivered(), self.checkpoint, notes)
        if self.options.anneal:
            return
        content = {
            "run": _identity(self.options),
            "network": self.network.state_dict(),
            "average": self.average and (self.average.weights, self.average.updates),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": (self.step, self.samples, self.skipped, elapsed),
            "before": self.before,
        }
        write_state(content, self.options.folder)

    def restore(self, content: dict[str, Any]) -> None:
        """Takes over a saved state."""
        self.step, self.samples, self.skipped, self.elapsed = content["counters"]
        self.before = content.get("before", 0)
        self.network.load_state_dict(content["network"])
        if self.average and content["average"]:
            weights, self.average.updates = content["average"]
            for name, value in self.average.weights.items():
                value.copy_(weights[name])
        for optimizer, state in zip(self.optimizers, content["optimizers"]):
            optimizer.load_state_dict(state)

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= BAD_STEPS:
            raise TrainingError(
                f"the loss or its gradient was not finite for {BAD_STEPS} steps in a row (loss {loss}, step {self.step}); "
                f"what {self.options.folder} held before is intact: resume with a lower learning rate"
            )


def _gain(run: _Run, validation: Validation | None) -> Gain | None:
    return validation.gain(run.delivered()) if validation else None


def _begun(options: TrainOptions, samples: StoredSamples) -> _Run:
    torch.manual_seed(options.seed)
    config, recipe = _config(options), options.recipe
    if options.start:
        network = load_checkpoint(options.start)
        network = network if network.config == config else grown(network, config.widths, seed=options.seed)
        _refuse_another({"configuration": network.config.to_dict()}, {"configuration": config.to_dict()}, options.start)
    else:
        network = DeblurNetwork(config)
        initialise(network, "paper" if recipe.initialisation == "paper" else "kaiming")
    if recipe.initialisation == "prepared":
        stage = replace(recipe.stage(0), batch=MEASURED)
        (centre if options.start else prepare)(network, samples.batch(0, stage, 0).blurry.cpu())
    run = _Run(options, network)
    noted = read_notes(options.start).get("samples", "") if options.start else ""
    run.before = int(noted) if noted.isdecimal() else 0
    return run


def _resumed(options: TrainOptions) -> _Run:
    content = read_state(options.folder)
    _refuse_another(content["run"], _identity(options), options.folder)
    network = DeblurNetwork(_config(options))
    if options.recipe.initialisation == "prepared":
        centre(network)
    run = _Run(options, network)
    run.restore(content)
    return run


def _identity(options: TrainOptions) -> dict[str, Any]:
    """What must not change when a run goes on; the rest of the recipe may."""
    recipe = options.recipe
    fixed = {"optimizer": recipe.optimizer, "initialisation": recipe.initialisation, "configuration": _config(options).to_dict()}
    return {"seed": options.seed, **fixed}


def _refuse_another(there: dict[str, Any], asked: dict[str, Any], where: Path) -> None:
    differing = [f"{name} {there.get(name)!r}, asked {value!r}" for name, value in asked.items() if there.get(name) != value]
    if differing:
        raise TrainingError(f"{where} has {'; '.join(differing)}: ask for the same, or name another")


def _config(options: TrainOptions) -> NetworkConfig:
    return replace(options.config, residual=options.recipe.residual)


class _Clock:
    def __init__(self, before: float) -> None:
        self._start = time.monotonic() - before

    def elapsed(self) -> float:
        return time.monotonic() - self._start
