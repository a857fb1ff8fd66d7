"""Measures samples/s of blur synthesis and of training steps, apart, and the arithmetic that training achieves.

python -m training.speed --textures FOLDER --device cuda --compile
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from model import DeblurNetwork
from runtime.command_line import command
from training.losses import loss_of
from training.optimizers import build_optimizers
from training.recipes import RECIPES, Recipe, Stage
from training.replicas import Replicas
from training.synthesis import Samples, synthesize
from training.textures import Textures, load_textures
from training.widening import narrowed

FORWARD_FLOP = 43.5e9 / 128**2  # of the full network per pixel of a five-frame window; one multiply-add is two
BACKWARD = 2  # times the forward pass
SYNTHESIS_SAMPLES = 64  # a call


@dataclass(frozen=True)
class Speed:
    """Samples per second."""

    synthesis: float
    training: float


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures each stage of the recipe, prints a line for each."""
    parser = argparse.ArgumentParser(prog="training.speed", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--textures", type=Path, nargs="+", required=True, help="sharp pictures, or folders of them")
    add("--recipe", choices=RECIPES, default="default")
    add("--repeats", type=int, default=5, help="calls timed, the median counts (default: 5)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--compile", action="store_true", help="torch.compile the network")
    add("--replicas", type=int, default=1, help="threads that share a batch (default: 1)")
    arguments = parser.parse_args(argv)
    recipe, device = RECIPES[arguments.recipe], torch.device(arguments.device)
    textures = load_textures(arguments.textures, device)
    print(f"{_name(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.replicas} replicas")
    for stage in recipe.stages:
        speed = measure_stage(recipe, stage, textures, arguments.repeats, arguments.replicas, arguments.compile)
        print(line(stage, speed))
    return 0


def measure_stage(recipe: Recipe, stage: Stage, textures: Textures, repeats: int, replicas: int, compiled: bool) -> Speed:
    """Times synthesis, and training steps on one batch, by the median of `repeats` after a first call that does not count."""
    blur, device = recipe.stage_blur(stage), textures.device
    synthesis = _median_seconds(lambda: synthesize(textures, blur, SYNTHESIS_SAMPLES, 0), repeats, device)
    samples = synthesize(textures, blur, stage.batch, 0)
    step = _training_step(recipe, stage, samples, device, replicas, compiled)
    return Speed(SYNTHESIS_SAMPLES / synthesis, stage.batch / _median_seconds(step, repeats, device))


def line(stage: Stage, speed: Speed) -> str:
    """One stage in words; the arithmetic is given where the network is whole."""
    text = f"crop {stage.crop}, batch {stage.batch}, generators 1/{stage.generators}: "
    text += f"synthesis {speed.synthesis:.1f} samples/s, training {speed.training:.1f} samples/s"
    if stage.generators == 1:
        text += f", {speed.training * stage.crop**2 * FORWARD_FLOP * (1 + BACKWARD) / 1e12:.2f} TFLOP/s"
    return text


def _training_step(
    recipe: Recipe, stage: Stage, samples: Samples, device: torch.device, replicas: int, compiled: bool
) -> Callable[[], None]:
    network = DeblurNetwork()
    network = (narrowed(network, stage.generators) if stage.generators > 1 else network).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizers = build_optimizers(network, recipe)
    team = Replicas(torch.compile(network) if compiled else network, replicas)

    def loss(module: torch.nn.Module, some: Samples) -> torch.Tensor:
        blurry = some.blurry.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            output = module(blurry)
        return loss_of(recipe.loss, output.float(), some.sharp, recipe.charbonnier)

    def step() -> None:
        team.backward(samples, loss)
        for optimizer in optimizers:
            optimizer.step()

    return step


def _median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
