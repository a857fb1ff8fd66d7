"""Measures graphs with some layers quantised, on the same held-out windows: against the fp32 graph, and against the truth."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from calibration.clips import windows
from calibration.fingerprints import model_hash
from calibration.ranges import Ranges
from export.compare.literal_runner import exact_backend, open_backend
from export.compare.luma import against_truth, run_luma
from export.graph.fp16_range import fp32_nodes
from export.graph.layer_cost import LayerCost, measured_costs, modelled_costs, total
from export.graph.layer_precision import QUANTISED, layers
from export.graph.qdq_rules import QdqOptions, quantize
from export.shipped_clips import DEFAULT_PAIR, SIZE_COMPARED
from runtime import Engine, InputError
from runtime.files.contract import METADATA_KEY, MIN_PARITY, read_contract
from runtime.pixels.metrics import decibels, mean_squared_error
from runtime.pixels.sample_codes import to_unit
from runtime.progress import Progress
from runtime.video import VideoReader

Planes = npt.NDArray[np.float32]  # (1, F, H, W), luma in [0, 1]


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, on what, within what."""

    onnx: Path  # fp32, from videodeblur export
    ranges: Path  # from videodeblur calibrate, of the same graph
    clips: Path  # held-out windows are taken from their verification part
    precision: str = "int8"  # or "fp8"
    rest: str = "fp16"  # float type of the layers that are not quantised
    budget: float = 0.05  # dB of PSNR against the truth that may be lost
    min_psnr: float = MIN_PARITY["mixed"]  # dB against the fp32 graph
    truth: tuple[Path, Path] = DEFAULT_PAIR  # a blurry video and its sharp one
    limit: int = 3  # windows of each kind
    crop: tuple[int, int] = SIZE_COMPARED  # pixels, height and width of the middle that is run
    every_layer: bool = False  # also the layers that are not quantised by default
    times: Path | None = None  # measured layer times, see graph/layer_cost.py

    def __post_init__(self) -> None:
        if self.precision not in QUANTISED:
            raise InputError(f"precision is {self.precision!r}, expected one of {', '.join(QUANTISED)}")
        if self.budget < 0 or self.limit < 1:
            raise InputError(f"the budget is {self.budget} dB over {self.limit} windows, expected 0 or more, over 1 or more")
        if min(self.crop) < 64 or self.crop[0] % 8 or self.crop[1] % 8:
            raise InputError(f"the crop is {self.crop[0]}x{self.crop[1]}, expected multiples of 8 from 64 up")


@dataclass(frozen=True)
class Point:
    """A whole graph: what it costs and what it loses."""

    name: str
    layers: int  # quantised
    parity: float  # dB against the fp32 graph, on the held-out windows or on the truth's blurry ones, the lesser
    loss: float  # dB of PSNR against the truth, positive is worse
    time: float  # modelled, relative to fp32
    passed: bool


class PrecisionBench:
    """Builds graphs with some layers quantised and measures them on the same windows."""

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, options: SearchOptions, progress: Progress | None) -> None:
        self.options, self._model, self._ranges, self._progress = options, model, ranges, progress
        self._contract = read_contract(options.onnx)
        frames = self._contract.frames
        self.costs = _costs(model, options)
        nodes = fp32_nodes(model, ranges)
        self.beyond_fp16 = {name for name, layer in layers(model).items() if nodes.keys() & set(layer.nodes)}
        held_out = windows(options.clips, frames, "verification", options.limit)
        self._windows = [_middle(window.luma[None], options.crop) for window in held_out]
        self._blurry, self._sharp = _truth_windows(frames, options)
        self._folder, self._built = tempfile.TemporaryDirectory(), 0
        with Engine(options.onnx, "onnxruntime", "fp32") as engine:
            self._expected = [run_luma(engine, window) for window in self._windows]
            self._expected_sharp = [run_luma(engine, window) for window in self._blurry]
        self._quality = against_truth(self._expected_sharp, self._sharp)

    def precisions(self, quantised: Sequence[str], rest: str) -> dict[str, str]:
        """The precision of every layer with these quantised; what does not fit FP16 stays in fp32."""
        others = {name: "fp32" if rest == "fp16" and name in self.beyond_fp16 else rest for name in self.costs}
        return {**others, **dict.fromkeys(quantised, self.options.precision)}

    def parity(self, quantised: Sequence[str]) -> float:
        """dB against the fp32 graph on the held-out windows, with these layers quantised and the rest in fp32."""
        return _parity(self._run(self.precisions(quantised, "fp32"), "fp32", self._windows), self._expected)

    def point(self, name: str, quantised: Sequence[str], rest: str) -> Point:
        """The whole graph as it would be shipped."""
        chosen = self.precisions(quantised, rest)
        got = self._run(chosen, rest, [*self._windows, *self._blurry])
        held_out, sharp = got[: len(self._windows)], got[len(self._windows) :]
        parity = min(_parity(held_out, self._expected), _parity(sharp, self._expected_sharp))
        loss = self._quality - against_truth(sharp, self._sharp)
        time = total(self.costs, chosen) / total(self.costs, dict.fromkeys(self.costs, "fp32"))
        passed = parity >= self.options.min_psnr and loss <= self.options.budget
        return Point(name, len(quantised), parity, loss, time, passed)

    def _run(self, precisions: Mapping[str, str], rest: str, inputs: Sequence[Planes]) -> list[Planes]:
        path = Path(self._folder.name) / "graph.onnx"
        graph = quantize(self._model, self._ranges, precisions, QdqOptions(rest=rest))
        contract = replace(self._contract, graph_sha256=model_hash(graph))
        onnx.helper.set_model_props(graph, {METADATA_KEY: contract.to_json()})
        onnx.save(graph, path)
        with open_backend(path, exact_backend(graph)) as runner:
            got = [run_luma(runner, window) for window in inputs]
        self._built += 1
        if self._progress:
            self._progress(self._built, len(self.costs))
        return got

    def __enter__(self) -> PrecisionBench:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _costs(model: onnx.ModelProto, options: SearchOptions) -> dict[str, LayerCost]:
    if options.times:
        return measured_costs(model, *options.crop, options.times)
    return modelled_costs(model, *options.crop)


def _truth_windows(frames: int, options: SearchOptions) -> tuple[list[Planes], list[Planes]]:
    """The same windows of both videos, spread so that each scene is seen; one frame is held beside those of the windows.

    Raises InputError where the two differ in size or length, or are shorter than a window.
    """
    blurry, sharp = (_length_and_size(path) for path in options.truth)
    if blurry != sharp:
        told = (f"{path} has {count} frames of {size}" for path, (count, size) in zip(options.truth, (blurry, sharp)))
        raise InputError(f"{', '.join(told)}: expected the same video, blurry and sharp")
    starts = range(0, blurry[0] - frames + 1, frames)
    if not starts:
        raise InputError(f"{options.truth[0]} has {blurry[0]} frames, expected at least {frames}")
    spread = sorted({starts[i * len(starts) // options.limit] for i in range(options.limit)})
    return _windows_at(options.truth[0], spread, frames, options), _windows_at(options.truth[1], spread, frames, options)


def _length_and_size(path: Path) -> tuple[int, str]:
    """Counted, since containers may lie."""
    with VideoReader(path) as reader:
        return sum(1 for _ in reader), f"{reader.info.width}x{reader.info.height}"


def _windows_at(path: Path, starts: Sequence[int], frames: int, options: SearchOptions) -> list[Planes]:
    wanted = {start + offset for start in starts for offset in range(frames)}
    with VideoReader(path) as reader:
        bits, color_range = reader.info.bits, reader.info.color_range
        held = {frame.number: _middle(frame.luma, options.crop) for frame in reader if frame.number in wanted}
    return [to_unit(np.stack([held[start + i] for i in range(frames)])[None], bits, color_range) for start in starts]


def _middle(window: npt.NDArray[Any], crop: tuple[int, int]) -> npt.NDArray[Any]:
    top, left = (max(0, (have - want) // 2) for have, want in zip(window.shape[-2:], crop))
    return window[..., top : top + crop[0], left : left + crop[1]].copy()


def _parity(got: Sequence[Planes], expected: Sequence[Planes]) -> float:
    return decibels(float(np.mean([mean_squared_error(a, b) for a, b in zip(got, expected)])))


def error_of(psnr: float) -> float:
    """Mean square error, peak 1.0."""
    return 10 ** (-psnr / 10)
