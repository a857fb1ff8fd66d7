"""Bilinear x2 followed by a 3x3 convolution in four forms, on one thread of OpenVINO, which a busy machine hardly disturbs.

Both steps are linear, so the channels can be mixed at the low resolution and the taps gathered afterwards. Inside all forms agree;
at the outermost pixels the one step repeats the edge and the other pads with zeros, which "nine planes" and "four phases" get wrong
as they stand here. So what is printed for them is the most that a rewrite of the network could gain.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.arguments import count
from model.generators import upsample
from runtime.backends.openvino_runner import core, native_bf16
from runtime.command_line import command
from runtime.errors import BackendError
from runtime.machine.hardware import cpu_name

Layer = tuple[int, int, int, int]  # channels in and out, H and W of the input
LAYERS: tuple[Layer, ...] = ((256, 96, 92, 160), (256, 128, 23, 40), (128, 256, 46, 80))  # layer14, 11 and 13 for 320x184
PRECISIONS = {"bf16": "bf16", "f32": "fp32"}  # OpenVINO's word: ours
RING = 4  # pixels at the edge that are not compared
# u[2i + p + k - 1] of the upsampled line in terms of x[i - 1], x[i], x[i + 1]: by phase p and tap k
LINE = torch.tensor([[[3, 1, 0], [1, 3, 0], [0, 3, 1]], [[1, 3, 0], [0, 3, 1], [0, 1, 3]]]) / 4
TOLERANCE = 1e-4  # of values up to about 3


@dataclass(frozen=True)
class FormTime:
    """One form of a layer."""

    name: str
    milliseconds: dict[str, float]  # of processor time, median, by precision; bf16 only where the CPU has it


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/studies/up_and_convolve.py", description=__doc__)
    parser.add_argument(
        "--layer",
        type=count,
        nargs=4,
        metavar=("IN", "OUT", "H", "W"),
        help="channels in and out, height and width of a layer (default: the network's, for 320x184)",
    )
    parser.add_argument("--rounds", type=count, default=12, help="calls of each form (default %(default)s)")
    given = parser.parse_args(argv)
    layers = (tuple(given.layer),) if given.layer else LAYERS
    print(markdown({layer: measure(layer, given.rounds) for layer in layers}))
    return 0


def markdown(found: Mapping[Layer, Sequence[FormTime]]) -> str:
    """The figures as a Markdown table."""
    measured = [word for word in PRECISIONS if all(word in form.milliseconds for some in found.values() for form in some)]
    lines = [
        f"Processor milliseconds on one thread, median, {cpu_name()}.",
        "",
        f"| layer | form | {' | '.join(PRECISIONS[word] for word in measured)} |",
        "|---|---|" + "---|" * len(measured),
    ]
    for layer, forms_of in found.items():
        what = f"{layer[0]} to {layer[1]} channels from {layer[3]}x{layer[2]}"
        for form in forms_of:
            lines.append(f"| {what} | {form.name} | {' | '.join(f'{form.milliseconds[word]:.1f}' for word in measured)} |")
    missing = "" if "bf16" in measured else "\n\n- skipped: bf16: this CPU has no bf16 arithmetic (AMX or AVX512-BF16)"
    return "\n".join(lines) + missing


def forms(inputs: int, outputs: int) -> dict[str, nn.Module]:
    """All of them with the same random weights."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    found = {
        "plain": Plain(convolution),
        "nine planes, grouped gather": NinePlanes(convolution),
        "four phase kernels": FourPhases(convolution),
        "one direction mixed, shift and add": OneDirection(convolution),
    }
    return {name: form.eval() for name, form in found.items()}


def measure(layer: Layer, rounds: int) -> list[FormTime]:
    """Times all forms of a layer in both precisions, interleaved. Raises BackendError when a form is not the plain one inside."""
    inputs, outputs, height, width = layer
    x = torch.rand(1, inputs, height, width)
    made = forms(inputs, outputs)
    requests: dict[tuple[str, str], Any] = {}
    precisions = [word for word in PRECISIONS if word != "bf16" or native_bf16()]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        expected = made["plain"](x)
        for name, form in made.items():
            _check(name, form(x), expected)
            path = Path(folder) / "form.onnx"
            torch.onnx.export(form, (x,), path, dynamo=True, opset_version=20, verbose=False)
            for precision in precisions:
                hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": "1"}
                requests[name, precision] = core().compile_model(core().read_model(path), "CPU", hints).create_infer_request()
    times: dict[tuple[str, str], list[float]] = {key: [] for key in requests}
    for number in range(rounds + 1):
        for key, request in requests.items():
            begun = time.process_time()
            request.infer({0: x.numpy()}, share_inputs=True)
            if number:  # the first warms up
                times[key].append(1000 * (time.process_time() - begun))
    return [FormTime(name, {each: float(np.median(times[name, each])) for each in precisions}) for name in made]


def _check(name: str, found: Tensor, expected: Tensor) -> None:
    inside = (..., slice(RING, -RING), slice(RING, -RING))
    difference = float((found - expected)[inside].abs().max())
    if difference > TOLERANCE:
        raise BackendError(f"{name} differs from the plain form by {difference:.1e} inside, expected at most {TOLERANCE:.0e}")


class Plain(nn.Module):
    """As the network has it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', 2H, 2W)."""
        return self.convolution(upsample(x))


class NinePlanes(nn.Module):
    """A 1x1 convolution to nine planes for each output, one a tap; a grouped one gathers them: a quarter of the multiply-adds."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs = convolution.weight.shape[:2]
        self.mix = nn.Conv2d(inputs, 9 * outputs, 1, bias=False)
        self.gather = nn.Conv2d(9 * outputs, 4 * outputs, 3, padding=1, groups=outputs)
        with torch.no_grad():
            self.mix.weight.copy_(convolution.weight.permute(0, 2, 3, 1).reshape(9 * outputs, inputs, 1, 1))
            kernels = torch.einsum("pky,qlx->pqklyx", LINE, LINE).reshape(4, 9, 3, 3)
            self.gather.weight.copy_(kernels.repeat(outputs, 1, 1, 1))
            self.gather.bias.copy_(convolution.bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        """As Plain."""
        return functional.pixel_shuffle(self.gather(self.mix(x)), 2)


class FourPhases(nn.Module):
    """One convolution at the low resolution for the four phases of the output: as many multiply-adds, no upsampled tensor."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs = convolution.weight.shape[:2]
        self.phases = nn.Conv2d(inputs, 4 * outputs, 3, padding=1)
        with torch.no_grad():
            kernels = torch.einsum("oikl,pky,qlx->opqiyx", convolution.weight, LINE, LINE)
            self.phases.weight.copy_(kernels.reshape(4 * outputs, inputs, 3, 3))
            self.phases.bias.copy_(convolution.bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        """As Plain."""
        return functional.pixel_shuffle(self.phases(x), 2)


class OneDirection(nn.Module):
    """Upsampled down, mixed to three planes for each output, upsampled across, shifted and added: half the multiply-adds."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs = convolution.weight.shape[:2]
        self.outputs = outputs
        self.mix = nn.Conv2d(inputs, 3 * outputs, (3, 1), padding=(1, 0), bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(convolution.weight.permute(3, 0, 1, 2).reshape(3 * outputs, inputs, 3, 1))
        self.bias = nn.Parameter(convolution.bias.detach().reshape(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """As Plain."""
        tall = functional.interpolate(x, scale_factor=(2.0, 1.0), mode="bilinear", align_corners=False)
        wide = functional.interpolate(self.mix(tall), scale_factor=(1.0, 2.0), mode="bilinear", align_corners=False)
        left, middle, right = wide.split(self.outputs, dim=1)
        return functional.pad(left, (1, 0))[..., :-1] + middle + functional.pad(right, (0, 1))[..., 1:] + self.bias


if __name__ == "__main__":
    raise SystemExit(main())
