"""Holds one runner to another on real clips: PSNR, SSIM, the largest error, and where the graphs part, layer by layer.

videodeblur verify model.onnx model_int8.onnx --clips clip.mp4 --min-psnr 50
videodeblur verify weights.safetensors model.onnx@openvino:bf16 --clips DATA
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.clips import Window, windows
from export.compare.luma import as_codes_hold, graph_input
from export.compare.open_any import Opened, open_any
from runtime.bundle import MIN_PARITY_OF_CODES
from runtime.command_line import USER_ERROR, command
from runtime.errors import InputError
from runtime.files.contract import MIN_PARITY
from runtime.files.model_spec import parse
from runtime.pixels.metrics import decibels, mean_squared_error, psnr
from runtime.pixels.ssim import ssim

DRIFT_CROP = 128  # pixels, height and width of what `--layers` runs on, one operator at a time

Planes = npt.NDArray[np.float32]  # (F, H, W), luma in [0, 1]


@dataclass(frozen=True)
class VerifyOptions:
    """What is compared with what, on what."""

    reference: str  # see open_any; a checkpoint is the network itself
    candidate: str  # the same
    clips: Path  # see calibration.clips; the verification part of every clip is used
    limit: int = 8  # windows
    min_psnr: float | None = None  # dB; None: the threshold of the candidate's precision

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InputError(f"the limit is {self.limit} windows, expected 1 or more")


@dataclass(frozen=True)
class Score:
    """One window through both."""

    window: str
    psnr: float  # dB, peak 1.0, over all samples; infinite when equal
    ssim: float  # mean over the frames
    max_error: float  # largest difference of two samples, in unit luma


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    reference: str  # what ran, in words
    candidate: str
    scores: tuple[Score, ...]
    psnr: float  # dB over all windows together
    min_psnr: float  # dB asked for

    @property
    def passed(self) -> bool:
        """Whether the candidate counts as the same network."""
        return self.psnr >= self.min_psnr


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, compares, prints; status 1 when the candidate fails."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    options = VerifyOptions(arguments.reference, arguments.candidate, arguments.clips, arguments.windows, arguments.min_psnr)
    verdict = verify(options, arguments.worst)
    print(json.dumps(as_json(verdict)) if arguments.json else table(verdict))
    if arguments.worst:
        print(f"worst window (reference, candidate, difference): {arguments.worst}", file=sys.stderr)
    if arguments.layers:
        print(drift_table(options), file=sys.stderr if arguments.json else sys.stdout)
    return 0 if verdict.passed else USER_ERROR


def verify(options: VerifyOptions, worst: Path | None = None) -> Verdict:
    """Runs the windows through both and compares; writes a picture of the worst one to `worst`.

    Raises InputError when the two take different numbers of frames, and what opening and running them raises.
    """
    with open_any(options.reference, exact=True) as reference, open_any(options.candidate) as candidate:
        if reference.frames != candidate.frames:
            raise InputError(
                f"{options.reference} takes {reference.frames} frames, {options.candidate} {candidate.frames}: compare alike"
            )
        scores, errors, seen = [], [], _Worst()
        for window in windows(options.clips, reference.frames, "verification", options.limit):
            expected, got = _both(reference, candidate, window.luma[None])
            scores.append(score(str(window), expected, got))
            errors.append(mean_squared_error(expected, got))
            seen.offer(scores[-1].psnr, expected, got)
        if worst:
            seen.save(worst)
        minimum = _least(reference, candidate) if options.min_psnr is None else options.min_psnr
        return Verdict(reference.what, candidate.what, tuple(scores), decibels(float(np.mean(errors))), minimum)


def _both(reference: Opened, candidate: Opened, luma: Planes) -> Iterator[Planes]:
    """What each makes of one window. Where one takes codes, both are handed what these can say, and compared in them."""
    contracts = reference.contract, candidate.contract
    held = as_codes_hold(luma, *contracts)
    for opened in (reference, candidate):
        yield as_codes_hold(opened.run(held), *contracts)[0]


def _least(reference: Opened, candidate: Opened) -> float:
    """dB that the candidate must reach: by its precision, or what codes allow that round the other way."""
    takes_codes = any(opened.contract and opened.contract.io != "f32" for opened in (reference, candidate))
    return MIN_PARITY_OF_CODES if takes_codes else MIN_PARITY[candidate.precision]


def score(window: str, expected: Planes, got: Planes) -> Score:
    """Compares two results (F, H, W)."""
    similarity = float(np.mean([ssim(a, b, 1.0) for a, b in zip(expected, got)]))
    return Score(window, psnr(expected, got, 1.0), similarity, float(np.abs(expected - got).max()))


def table(verdict: Verdict) -> str:
    """The verdict as text."""
    lines = [
        f"reference: {verdict.reference}",
        f"candidate: {verdict.candidate}",
        f"{'PSNR':>10}{'SSIM':>10}{'max error':>11}  window",
    ]
    lines += [f"{row.psnr:7.2f} dB{row.ssim:10.5f}{row.max_error:11.5f}  {row.window}" for row in verdict.scores]
    relation = "meets" if verdict.passed else "is UNDER"
    lines.append(
        f"parity {verdict.psnr:.2f} dB over {len(verdict.scores)} windows {relation} the {verdict.min_psnr:.0f} dB asked for"
    )
    return "\n".join(lines)


def as_json(verdict: Verdict) -> dict[str, object]:
    """The verdict for machines; equal windows have PSNR null."""
    values = {**asdict(verdict), "passed": verdict.passed}
    for entry in (values, *values["scores"]):
        entry["psnr"] = entry["psnr"] if math.isfinite(entry["psnr"]) else None
    return values


def drift_table(options: VerifyOptions) -> str:
    """Signal-to-noise ratio of every convolution's output, for two ONNX files of one export, on the middle of a few windows."""
    from calibration.onnx_file import load_onnx  # only this table needs graphs
    from export.compare.layer_drift import layer_drift

    paths = [Path(parse(spec).file) for spec in (options.reference, options.candidate)]
    if any(path.suffix != ".onnx" for path in paths):
        raise InputError("--layers compares two ONNX files of one export: name the .onnx file instead of the checkpoint")
    with open_any(options.reference, exact=True) as reference:
        chosen = windows(options.clips, reference.frames, "verification", options.limit)
        crops = [_middle(window)[None] for window in islice(chosen, 2)]
        if reference.contract:
            crops = [graph_input(reference.contract, crop) for crop in crops]
    rows = layer_drift(*(load_onnx(path) for path in paths), crops)
    return "\n".join(["SQNR of each convolution's output, both graphs on ONNX Runtime's CPU kernels:", *_drift_lines(rows)])


def _drift_lines(rows: Iterable[object]) -> Iterator[str]:
    for row in rows:
        yield f"{row.sqnr:10.1f} dB  {row.layer}"


def _middle(window: Window) -> Planes:
    height, width = window.luma.shape[1:]
    top, left = max(0, (height - DRIFT_CROP) // 2), max(0, (width - DRIFT_CROP) // 2)
    crop = window.luma[:, top : top + DRIFT_CROP, left : left + DRIFT_CROP]
    return crop[:, : crop.shape[1] // 8 * 8, : crop.shape[2] // 8 * 8]


class _Worst:
    """The window with the lowest PSNR so far."""

    def __init__(self) -> None:
        self._psnr = math.inf
        self._planes: tuple[Planes, Planes] | None = None

    def offer(self, value: float, expected: Planes, got: Planes) -> None:
        if self._planes is None or value < self._psnr:
            self._psnr, self._planes = value, (expected, got)

    def save(self, path: Path) -> None:
        """Reference, candidate and their difference, side by side; the frame that differs most."""
        from runtime.video import write_gray  # PyAV, for those who ask for a picture

        expected, got = self._planes
        frame = int(np.argmax(np.square(expected - got).mean(axis=(1, 2))))
        difference = got[frame] - expected[frame]
        gain = 0.5 / max(float(np.abs(difference).max()), 1e-9)
        write_gray(path, np.concatenate([expected[frame], got[frame], 0.5 + gain * difference], axis=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodeblur verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    form = "FILE[@BACKEND[:PRECISION]], a checkpoint, an .onnx file, an engine or a bundle; @literal rounds as the file says"
    parser.add_argument(
        "reference", metavar="A", help=f"reference, held to be right: {form}; runs in exact arithmetic unless it says otherwise"
    )
    parser.add_argument("candidate", metavar="B", help="candidate that is compared with A, in the same form")
    parser.add_argument("--clips", type=Path, required=True, help="video, folder of frames, or a folder of such")
    parser.add_argument("--windows", type=int, default=8, metavar="N", help="windows to compare (default %(default)s)")
    limits = ", ".join(f"{name} {value:.0f}" for name, value in MIN_PARITY.items())
    parser.add_argument("--min-psnr", type=float, metavar="DB", help=f"fail under this (default by B's precision: {limits})")
    parser.add_argument("--worst", type=Path, metavar="PNG", help="write a picture of the worst window")
    parser.add_argument("--layers", action="store_true", help="compare the two graphs layer by layer too (with --json on stderr)")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON on stdout")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
