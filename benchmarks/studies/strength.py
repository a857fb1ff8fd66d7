"""How much of the network's change to keep: PSNR against the truth at five strengths, and whether holding it back by place helps.

The clip with synthetic blur that the project ships, and with --real a folder of blurry pictures and one of true ones of the same
names (GoPro). Tried besides are limits on what overshoots its surroundings, and leaving alone what is sharp already, by two
measures of sharpness: where the squared error falls in every tenth of the samples, no mask made from that measure does better.

python benchmarks/studies/strength.py model.onnx --real GoPro_istanbul/blur GoPro_istanbul/sharp
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.shared.windows import BLURRY, SHARP
from runtime import Engine, StreamDeblurrer
from runtime.command_line import command
from runtime.errors import InputError
from runtime.machine.hardware import cpu_name
from runtime.pixels.metrics import psnr
from runtime.pixels.strength import blend
from runtime.video import VideoReader, read_luma

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LIMITS = ((3, 0), (3, 8), (9, 0), (9, 8))  # side of the surroundings in pixels, and codes beyond their least and largest
TENTHS = 10
NEAR, WIDE, AROUND = 3, 7, 17  # pixels, sides of boxes: fine detail, the band below it, and where both are summed
EQUAL = 99.0  # dB, where all samples are the truth's
NEXT = 5  # frames of a window: a true picture is judged with the window of blurry ones that it is in

Codes = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A set of frames."""

    name: str
    frames: int
    strengths: tuple[float, ...]  # dB against the truth, mean of the frames, as STRENGTHS
    limits: tuple[float, ...]  # the same at full strength, as LIMITS
    fine_detail: tuple[float, ...]  # fall of the squared error (codes) in each tenth, from the least fine detail to the most
    sharpness: tuple[float, ...]  # the same by fine detail in relation to the band below it
    worse: int  # frames that are further from the truth than before
    worst: float  # dB that the worst frame gains


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/studies/strength.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX file, engine or bundle")
    parser.add_argument("--real", type=Path, nargs=2, metavar=("BLUR", "SHARP"), help="folders of numbered pictures, all and some")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    given = parser.parse_args(argv)
    with Engine(given.model) as engine:
        found = [judge("demo clip", *_clip(engine, BLURRY, SHARP)), judge("its truth as input", *_clip(engine, SHARP, SHARP))]
        if given.real:
            found.insert(1, judge("real pictures", *_real(engine, *given.real)))
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps({"cpu": cpu_name(), "sets": [asdict(each) for each in found]}, indent=1) + "\n")
    return 0


def judge(name: str, blurry: Sequence[Codes], sharp: Sequence[Codes], truth: Sequence[Codes]) -> Judged:
    """The figures of frames (H, W) of 8-bit luma: before, after, and the truth."""
    gains = [_decibels(after, true) - _decibels(before, true) for before, after, true in zip(blurry, sharp, truth)]
    fall = [_squared(before, true) - _squared(after, true) for before, after, true in zip(blurry, sharp, truth)]
    return Judged(
        name,
        len(truth),
        tuple(_mean([blend(before, after, part) for before, after in zip(blurry, sharp)], truth) for part in STRENGTHS),
        tuple(_mean([_limited(before, after, *limit) for before, after in zip(blurry, sharp)], truth) for limit in LIMITS),
        _by_tenths([fine_detail(before) for before in blurry], fall),
        _by_tenths([sharpness(before) for before in blurry], fall),
        sum(gain < 0 for gain in gains),
        min(gains),
    )


def fine_detail(luma: Codes) -> Plane:
    """Root of the mean square, around each sample, of what differs from its neighbours, in codes."""
    plane = luma.astype(np.float64)
    found: Plane = np.sqrt(_box((plane - _box(plane, NEAR)) ** 2, AROUND))
    return found


def sharpness(luma: Codes) -> Plane:
    """Fine detail by what there is in the band below it, which does not depend on contrast: blur takes the former first."""
    plane = luma.astype(np.float64)
    below = _box((_box(plane, NEAR) - _box(plane, WIDE)) ** 2, AROUND)
    found: Plane = fine_detail(luma) / np.sqrt(below + 1)
    return found


def table(sets: Sequence[Judged]) -> str:
    """The figures as text."""
    lines = [f"luma PSNR against the truth in dB, on {cpu_name()}"]
    for each in sets:
        lines.append(f"{each.name}, {each.frames} frames; {each.worse} are worse than before, the worst gains {each.worst:+.2f} dB")
        lines.append("  strength   " + "".join(f"{part:>9g}" for part in STRENGTHS))
        lines.append("             " + "".join(_short(value) for value in each.strengths))
        lines.append("  limited to " + "".join(f"{f'{side}x{side}+{margin}':>9}" for side, margin in LIMITS))
        lines.append("             " + "".join(_short(value) for value in each.limits))
        lines.append("  squared error falls by, in tenths of the samples, from the least sharp to the sharpest")
        lines.append("    by fine detail" + "".join(f"{value:7.1f}" for value in each.fine_detail))
        lines.append("    by sharpness  " + "".join(f"{value:7.1f}" for value in each.sharpness))
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:9.3f}"


def _clip(engine: Engine, blurry: Path, sharp: Path) -> tuple[list[Codes], list[Codes], list[Codes]]:
    with VideoReader(blurry) as reader:
        before, color_range = [frame.luma for frame in reader], reader.info.color_range
    with VideoReader(sharp) as reader:
        return before, _deblurred(engine, before, color_range), [frame.luma for frame in reader]


def _real(engine: Engine, blurry: Path, sharp: Path) -> tuple[list[Codes], list[Codes], list[Codes]]:
    names, true = (sorted(path.name for path in folder.glob("*.png")) for folder in (blurry, sharp))
    if not true or not set(true) <= set(names):
        raise InputError(f"{sharp} has {len(true)} pictures, expected some of the names in {blurry}")
    places = [names.index(name) for name in true]
    before = [_codes(blurry / name) for name in names[: -(-(max(places) + 1) // NEXT) * NEXT]]
    after = _deblurred(engine, before, "full")
    return [before[place] for place in places], [after[place] for place in places], [_codes(sharp / name) for name in true]


def _codes(path: Path) -> Codes:
    return np.rint(read_luma(path) * 255).astype(np.uint8)


def _deblurred(engine: Engine, frames: Sequence[Codes], color_range: str) -> list[Codes]:
    stream = StreamDeblurrer(engine, bits=8, color_range=color_range)
    return [sharp for frame in frames for sharp in stream.push(frame)] + stream.flush()


def _mean(frames: Sequence[Codes], truth: Sequence[Codes]) -> float:
    return float(np.mean([_decibels(frame, true) for frame, true in zip(frames, truth)]))


def _decibels(frame: Codes, true: Codes) -> float:
    return min(psnr(frame, true, 255), EQUAL)


def _squared(frame: Codes, true: Codes) -> Plane:
    return (frame.astype(np.float64) - true) ** 2


def _limited(before: Codes, after: Codes, side: int, margin: int) -> Codes:
    least, most = (_extreme(before, side, choose).astype(np.int16) for choose in (np.min, np.max))
    return np.clip(after.astype(np.int16), least - margin, most + margin).clip(0, 255).astype(np.uint8)


def _extreme(plane: Codes, side: int, choose: Callable[..., Codes]) -> Codes:
    for axis in (0, 1):
        margin = [(side // 2, side // 2) if each == axis else (0, 0) for each in (0, 1)]
        plane = choose(np.lib.stride_tricks.sliding_window_view(np.pad(plane, margin, mode="edge"), side, axis), axis=-1)
    return plane


def _box(plane: Plane, side: int) -> Plane:
    """Means of side x side samples around each."""
    for axis in (0, 1):
        margin = [(side // 2 + 1, side // 2) if each == axis else (0, 0) for each in (0, 1)]
        sums = np.cumsum(np.pad(plane, margin, mode="edge"), axis=axis)
        upper, lower = np.split(sums, [side], axis)[1], np.split(sums, [sums.shape[axis] - side], axis)[0]
        plane = (upper - lower) / side
    return plane


def _by_tenths(measure: Sequence[Plane], fall: Sequence[Plane]) -> tuple[float, ...]:
    value, gained = (np.concatenate([plane.ravel() for plane in planes]) for planes in (measure, fall))
    return tuple(float(tenth.mean()) for tenth in _tenths(value, gained))


def _tenths(value: Plane, gained: Plane) -> Iterator[Plane]:
    yield from np.array_split(gained[np.argsort(value, kind="stable")], TENTHS)


if __name__ == "__main__":
    raise SystemExit(main())
