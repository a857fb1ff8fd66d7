"""Measures what the tensors of a model hold on real clips: DATA and an ONNX file -> ranges.json."""

from __future__ import annotations

import argparse
import ctypes
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration import scales
from calibration.clips import Window, windows
from calibration.fingerprints import graph_hash, weights_hash
from calibration.histograms import Extent, Histogram
from calibration.onnx_file import load_model
from calibration.operator_runner import OperatorRunner
from calibration.ranges import MeasuredWindow, Ranges, TensorRange, with_scales
from calibration.tensors import Activation, activations, scaled_tensors
from runtime.command_line import command, quoted
from runtime.errors import InputError, ModelError
from runtime.files.contract import Contract
from runtime.pixels import padding, sample_codes
from runtime.progress import ProgressBar

WINDOWS = 32
CROP = (256, 448)  # pixels; a whole 1280x720 window takes eight times as long and four times the memory
# Where in the frames the crops of successive windows lie, as shares of the room above and left of them
PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0))
LISTED = 10  # layers in the printed table
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MEGABYTE = 1 << 20

Progress = Callable[[int, int], object]  # (frames done, frames in all)


@dataclass(frozen=True)
class CollectOptions:
    """What is measured on what."""

    data: Path  # a video, a folder of frames, or a folder above such
    onnx: Path  # fp32, from videodeblur export
    windows: int = WINDOWS  # at most
    crop: tuple[int, int] | None = CROP  # height and width of the part of each window that is run, None for whole frames
    batch: int = 1  # windows run at once; the result does not depend on it, memory does
    method: str = "max"  # that the file names as its choice; scales by all methods are in it
    percentile: float = scales.PERCENTILE  # in percent
    threads: int | None = None  # CPU cores, all when None

    def __post_init__(self) -> None:
        """Raises InputError on a value out of range."""
        scales.check(self.method, "int8", self.percentile)
        if self.windows < 1 or self.batch < 1:
            raise InputError(f"got {self.windows} windows in batches of {self.batch}, expected 1 or more of both")
        if self.crop and min(self.crop) < 1:
            raise InputError(f"the crop is {self.crop[0]}x{self.crop[1]}, expected height x width of 1 or more pixels")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, writes the ranges, prints the largest."""
    parser = argparse.ArgumentParser(prog="videodeblur calibrate", description=__doc__)
    parser.add_argument("data", type=Path, help="VideoDeblurring data set, any folder of frames or videos, or a video")
    parser.add_argument("--onnx", type=Path, required=True, help="fp32 file of videodeblur export")
    parser.add_argument("--output", type=Path, default=Path("ranges.json"), help="ranges to write (default %(default)s)")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="windows to measure, at most (default %(default)s)")
    parser.add_argument(
        "--crop", type=_size, default=CROP, metavar="HxW", help="pixels of each window that are run, or 'full' (default 256x448)"
    )
    parser.add_argument("--batch", type=int, default=1, help="windows run at once (default %(default)s)")
    parser.add_argument(
        "--method", choices=scales.METHODS, default="max", help="method to choose scales, noted in the ranges (default %(default)s)"
    )
    parser.add_argument(
        "--percentile", type=float, default=scales.PERCENTILE, help="percentile of the method of that name (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="CPU cores (default: all)")
    settings = vars(parser.parse_args(argv))
    output = settings.pop("output")
    options = CollectOptions(**settings)
    _return_freed_memory()
    with ProgressBar() as bar:
        ranges = collect(options, bar)
    ranges.save(output)
    print(table(ranges))
    files = ("--onnx", options.onnx, "--ranges", output, "--precision", "int8", "--output", "int8.onnx")
    print(f"wrote {output}; next: {quoted('videodeblur', 'quantize', *files)}")
    return 0


def collect(options: CollectOptions, progress: Progress = lambda done, total: None) -> Ranges:
    """Runs the windows through the model and returns what its tensors held.

    Holds one batch of windows and the tensors that are alive at one operator, whatever the number of windows. Raises ModelError
    when the model is not in fp32 or yields NaN or infinite values, InputError when there are no windows or they do not fit.
    """
    model, contract = load_model(options.onnx)
    if contract.precision != "fp32":
        raise ModelError(f"{options.onnx} is in {contract.precision}, expected fp32: calibrate the model that was exported first")
    model = onnx.shape_inference.infer_shapes(model)
    survey = _Survey(activations(model.graph), scaled_tensors(model.graph))
    seen: list[MeasuredWindow] = []
    with OperatorRunner(model, options.threads) as runner:
        for parts in _batches(windows(options.data, contract.frames, limit=options.windows), options, contract):
            feed = _feed([luma for luma, _ in parts], contract)
            names = [measured for _, measured in parts]
            for name, value in runner.run(feed):
                survey.add(name, value, names)
            seen += names
            progress(len(seen) * contract.frames, options.windows * contract.frames)
    return Ranges(
        graph_hash(model),
        weights_hash(model),
        contract.checkpoint_sha256,
        options.method,
        options.percentile,
        tuple(seen),
        {"python": platform.python_version(), **{lib.__name__: lib.__version__ for lib in (np, onnx, onnxruntime)}},
        {tensor.name: tensor for tensor in survey.ranges(options.percentile)},
    )


def table(ranges: Ranges) -> str:
    """The layers of the largest magnitudes, as text."""
    by_layer: dict[str, TensorRange] = {}
    for tensor in sorted(ranges.tensors.values(), key=lambda tensor: -tensor.extent.absmax):
        by_layer.setdefault(tensor.layer, tensor)
    with_scale = sum(tensor.histogram is not None for tensor in ranges.tensors.values())
    head = f"{len(ranges.windows)} windows, {len(ranges.tensors)} tensors, {with_scale} with scales; the largest magnitudes:"
    lines = [head, f"{'absmax':>10} {'of FP16':>8}  layer or tensor"]
    lines += [
        f"{tensor.extent.absmax:10.4g} {tensor.fp16_share:8.2%}  {layer}" for layer, tensor in list(by_layer.items())[:LISTED]
    ]
    return "\n".join(lines)


class _Survey:
    """What each tensor held so far: a histogram where a scale may be wanted, the extent elsewhere."""

    def __init__(self, tensors: tuple[Activation, ...], scaled: frozenset[str]) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._measured = {name: Histogram() if name in scaled else Extent() for name in self._tensors}

    def add(self, name: str, value: npt.NDArray[Any], parts: Sequence[MeasuredWindow]) -> None:
        """Counts a tensor's values, (len(parts), ...). Raises ModelError where they are not finite."""
        measured = self._measured.get(name)
        if measured is None:  # shapes and other integers
            return
        measured.add(value)
        extent = measured.extent if isinstance(measured, Histogram) else measured
        if extent.bad:
            part = next(part for part, values in zip(parts, value) if not np.isfinite(values).all())
            raise ModelError(
                f"tensor {name!r} (layer {self._tensors[name].made_by or 'none'}) has {extent.nan} NaN and {extent.infinite}"
                f" infinite values on clip {part.clip}, frames from {part.first}: the weights or the export are broken"
            )

    def ranges(self, percentile: float) -> Iterator[TensorRange]:
        """In order of the graph."""
        return (with_scales(tensor, self._measured[name], percentile) for name, tensor in self._tensors.items())


Part = tuple[npt.NDArray[np.float32], MeasuredWindow]  # the cropped luma (frames, H, W) and where it is from


def _batches(found: Iterator[Window], options: CollectOptions, contract: Contract) -> Iterator[list[Part]]:
    """As many windows as are run at once; fewer where the size of the frames changes, and at the end."""
    parts: list[Part] = []
    for number, window in enumerate(found):
        part = _cropped(window, number, options.crop, contract)
        if parts and (len(parts) == (contract.batch or options.batch) or parts[0][0].shape != part[0].shape):
            yield parts
            parts = []
        parts.append(part)
    yield parts


def _cropped(window: Window, number: int, crop: tuple[int, int] | None, contract: Contract) -> Part:
    height, width = window.luma.shape[1:]
    wanted = (contract.height or (crop or (height, width))[0], contract.width or (crop or (height, width))[1])
    size = min(height, wanted[0]), min(width, wanted[1])
    down, right = PLACES[number % len(PLACES)]
    top, left = round(down * (height - size[0])), round(right * (width - size[1]))
    luma = window.luma[:, top : top + size[0], left : left + size[1]]
    return luma, MeasuredWindow(window.clip, window.first, window.sha256, top, left, *size)


def _feed(lumas: list[npt.NDArray[np.float32]], contract: Contract) -> npt.NDArray[Any]:
    """The model's input: floats padded to its multiple, or codes."""
    unit = np.stack(lumas)
    if contract.io == "f32":
        feed: npt.NDArray[Any] = padding.pad(unit, contract.multiple)
    else:
        feed = sample_codes.from_unit(unit, contract.bits or 8, contract.color_range or "full")
    expected = tuple(
        fixed or got for fixed, got in zip((contract.batch, contract.frames, contract.height, contract.width), feed.shape)
    )
    if feed.shape != expected:
        raise InputError(f"got windows {feed.shape}, the model is fixed at {expected}: export it with free sizes to calibrate it")
    return sample_codes.to_pairs(feed) if contract.io == "u16" else feed


def _size(text: str) -> tuple[int, int] | None:
    if text == "full":
        return None
    try:
        height, width = map(int, text.split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected HEIGHTxWIDTH in pixels, such as 256x448, or full") from error
    return height, width


def _return_freed_memory() -> None:
    """Has glibc give freed tensors back to the system; it would keep those under 32 MiB, in pieces that no later one fits."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, MEGABYTE)
        library.mallopt(M_TRIM_THRESHOLD, 64 * MEGABYTE)  # small blocks are used again and again, and stay


if __name__ == "__main__":
    raise SystemExit(main(None))
