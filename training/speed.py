"""Measures samples/s of blur synthesis and of training steps, apart, and their arithmetic as a share of a matrix product's.

python -m training.speed --textures FOLDER --size light
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch.utils.flop_counter import FlopCounterMode

from model import SIZES, DeblurNetwork, NetworkConfig
from runtime.command_line import command
from training.beginning import prepare
from training.losses import loss_on, multiplies_bf16
from training.optimizers import build_optimizers
from training.recipes import RECIPES, Recipe, Stage
from training.replicas import Replicas
from training.synthesis import Samples, synthesize
from training.textures import Textures, load_textures

BACKWARD = 2  # times the arithmetic of the forward pass
PRODUCT = 2048  # rows and columns of the matrix product that training is compared with
SYNTHESIS_SAMPLES = 64  # a call


@dataclass(frozen=True)
class Speed:
    """Samples per second."""

    synthesis: float
    training: float
    arithmetic: float  # operations a second in the convolutions of the training steps, a multiply-add being two


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures each stage of the recipe, prints a line for each."""
    parser = argparse.ArgumentParser(prog="training.speed", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--textures", type=Path, nargs="+", required=True, help="sharp pictures, or folders of them")
    add("--recipe", choices=RECIPES, default="cpu", help="recipe to time (default: cpu)")
    add("--size", choices=SIZES, default="light", help="size of the network, see model/sizes.py (default: light)")
    add("--repeats", type=int, default=5, help="calls timed, the median counts (default: 5)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="device of PyTorch (default: %(default)s)")
    add("--compile", action="store_true", help="compile the network with torch.compile")
    add("--replicas", type=int, default=1, help="threads that share a batch (default: 1)")
    arguments = parser.parse_args(argv)
    recipe, device = RECIPES[arguments.recipe], torch.device(arguments.device)
    textures = load_textures(arguments.textures, device)
    print(f"{_name(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.replicas} replicas")
    torch.set_num_threads(max(torch.get_num_threads(), arguments.replicas))  # a product gets what the replicas get together
    bf16 = recipe.bf16 and multiplies_bf16(device)
    peak = product_pace(device, torch.bfloat16 if bf16 else torch.float32, arguments.repeats)
    print(f"a product of {PRODUCT}x{PRODUCT} matrices in {'bf16' if bf16 else 'fp32'}: {peak / 1e12:.3f} TFLOP/s")
    for stage in recipe.stages:
        config = SIZES[arguments.size]
        speed = measure_stage(recipe, stage, config, textures, arguments.repeats, arguments.replicas, arguments.compile)
        print(line(stage, speed, peak))
    return 0


def measure_stage(
    recipe: Recipe, stage: Stage, config: NetworkConfig, textures: Textures, repeats: int, replicas: int, compiled: bool
) -> Speed:
    """Times synthesis, and training steps on one batch, by the median of `repeats` after a first call that does not count."""
    blur, device = recipe.stage_blur(stage), textures.device
    synthesis = _median_seconds(lambda: synthesize(textures, blur, SYNTHESIS_SAMPLES, 0), repeats, device)
    crop = replace(blur, height=stage.crop, width=stage.crop)
    samples = synthesize(textures, crop, stage.batch, 0)
    network = DeblurNetwork(config).to(device).to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(samples.blurry)
    step = _training_step(recipe, network, samples, device, replicas, compiled)
    seconds = _median_seconds(step, repeats, device)
    return Speed(SYNTHESIS_SAMPLES / synthesis, stage.batch / seconds, counter.get_total_flops() * (1 + BACKWARD) / seconds)


def product_pace(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """Operations a second of a matrix product on all threads."""
    matrix = torch.randn(PRODUCT, PRODUCT, device=device).to(dtype)
    return 2 * PRODUCT**3 / _median_seconds(lambda: matrix @ matrix, repeats, device)


def line(stage: Stage, speed: Speed, peak: float) -> str:
    """One stage in words."""
    text = f"crop {stage.crop}, batch {stage.batch}: synthesis {speed.synthesis:.1f} samples/s of {stage.stored} pixels, "
    text += f"training {speed.training:.1f} samples/s, {speed.arithmetic / 1e12:.3f} TFLOP/s"
    return f"{text}, {100 * speed.arithmetic / peak:.0f} % of the product"


def _training_step(
    recipe: Recipe, network: DeblurNetwork, samples: Samples, device: torch.device, replicas: int, compiled: bool
) -> Callable[[], None]:
    if recipe.initialisation == "prepared":
        prepare(network, samples.blurry)
    optimizers = build_optimizers(network, recipe)
    team = Replicas(torch.compile(network) if compiled else network, replicas)

    def step() -> None:
        team.backward(samples, lambda module, some: loss_on(module, some, recipe, recipe.floor))
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
