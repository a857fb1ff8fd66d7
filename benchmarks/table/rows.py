"""Runs files and peers, interleaved, and makes a row of each: `measure(options) -> (report, times)`."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.peers import PEERS, PeerInput, guarded, trtexec
from benchmarks.shared.timing import Timing, interleave_for
from benchmarks.shared.windows import Material, read_material
from benchmarks.table import cold_start, end_to_end
from benchmarks.table.options import NAIVE, TRTEXEC, BenchOptions
from benchmarks.table.report import BenchReport, Ratio, Row, Skipped, Spread
from benchmarks.table.subjects import Subject, open_subject
from runtime.errors import BackendError, DeployError, InputError
from runtime.files.contract import read_contract
from runtime.files.model_spec import parse
from runtime.files.on_disk import file_sha256
from runtime.machine.hardware import cpu_name
from runtime.machine.packages import installed_version
from runtime.pixels.metrics import decibels_for_json, psnr
from runtime.progress import Say

BASELINE = "onnxruntime"  # the peer that latencies are compared with; where it was not asked for, the first row
REFERENCE = "PyTorch fp32"
BARE = " without copies"  # of the name of a candidate in the rounds
LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "openvino", "torch", "tensorrt", "nncf", "polygraphy", "opencv-python-headless")

Planes = npt.NDArray[np.float32]
Calls = list[dict[str, float]]  # of one row, as trtexec's --exportTimes has them


def measure(options: BenchOptions, say: Say = lambda _: None) -> tuple[BenchReport, dict[str, Calls]]:
    """All rows, and every call by "NAME WIDTHxHEIGHT". `say` is told what is at work."""
    before = os.getloadavg()[0]
    rows: list[Row] = []
    skipped: list[Skipped] = []
    times: dict[str, Calls] = {}
    references = set()
    baseline = BASELINE if BASELINE in options.peers else ""
    with tempfile.TemporaryDirectory() as folder:
        for height, width in options.sizes:
            bench = _SizeBench(options, height, width, Path(folder), say, baseline)
            found = bench.run()
            rows += found
            skipped += bench.skipped
            times.update(bench.times)
            references.add(bench.reference)
            baseline = bench.baseline
    report = BenchReport(
        cpu=cpu_name(),
        gpu=_gpu(),
        libraries=versions(),
        load=(before, os.getloadavg()[0]),
        threads=options.threads,
        clip=options.clip.name,
        reference=" or ".join(sorted(references)),
        baseline=_short(baseline) if any(row.times_as_fast for row in rows) else "",
        rows=tuple(rows),
        skipped=tuple(skipped),
    )
    return report, times


class _SizeBench:
    """Everything at one size."""

    def __init__(self, options: BenchOptions, height: int, width: int, folder: Path, say: Say, baseline: str) -> None:
        self.options, self._size, self._say, self._folder = options, (height, width), say, folder
        self.skipped: list[Skipped] = []
        self.times: dict[str, Calls] = {}
        self.baseline = baseline  # what latencies are compared with; "" until the first row is timed
        self.reference = REFERENCE if options.checkpoint else "a row of this run"
        self._rows: dict[str, Row] = {}
        self._begun = time.monotonic()
        self._network = _network(options)

    def run(self) -> list[Row]:
        """The rows, in the order in which the options name them."""
        self._open_and_time()
        if TRTEXEC in self.options.peers:
            self._run_trtexec()
        if "cold-start" in self.options.parts:
            self._start_cold()
        if "video" in self.options.parts:
            self._run_video()
        return list(self._rows.values())

    @property
    def _label(self) -> str:
        return f"{self._size[1]}x{self._size[0]}"

    def _skip(self, name: str, error: Exception) -> None:
        self.skipped.append(Skipped(name, self._label, " ".join(str(error).split())))

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        """What fails is a line of the report, and the others go on."""
        try:
            yield
        except DeployError as error:
            self._skip(name, error)

    def _check_network(self, subject: Subject) -> None:
        if subject.contract is None:
            return
        self._network = self._network or subject.contract.checkpoint_sha256
        if subject.contract.checkpoint_sha256 != self._network:
            raise InputError("it was made from another checkpoint than the model or the first file: measure it in a run of its own")

    def _check_deadline(self) -> None:
        if time.monotonic() - self._begun > self.options.deadline:
            raise InputError(f"the {self.options.deadline:.0f} seconds of a quick run are over: leave out --quick")

    def _open_and_time(self) -> None:
        options = self.options
        with ExitStack() as opened:
            subjects: list[Subject] = []
            given = self._given()
            for name in (*options.subjects, *(peer for peer in options.peers if peer in PEERS)):
                self._say(f"{self._label}: opening {name}")
                with self._reported(name):
                    promised = sum(subject.memory for subject in subjects)
                    subject = opened.enter_context(open_subject(name, given, options.threads, promised))
                    self._check_network(subject)
                    subjects.append(subject)
            if not subjects:
                return
            for subject in subjects:
                self._rows[subject.name] = self._row(subject)
            material = Material(given.calibration, given.truth if options.truth else None)
            self._judge(subjects, material)
            if "latency" in options.parts:
                self._time([each for each in subjects if each.name in self._rows], material.blurry[0])

    def _given(self) -> PeerInput:
        options = self.options
        shape = (options.batch, options.frames, *self._size)
        material = read_material(options.clip, options.truth, options.windows, shape)
        folder = self._folder / self._label
        folder.mkdir(exist_ok=True)
        truth = material.blurry[:0] if material.sharp is None else material.sharp
        return PeerInput(options.model or Path(), options.checkpoint, shape, folder, material.blurry, truth)

    def _row(self, subject: Subject) -> Row:
        path = Path(parse(subject.name).file)
        size = None if subject.kind == "peer" else sum(file.stat().st_size for file in _files(path)) / 1e6
        return Row(
            name=_short(subject.name),
            kind=subject.kind,
            backend=subject.backend,
            precision=subject.precision,
            reason=subject.reason,
            batch=self.options.batch,
            height=self._size[0],
            width=self._size[1],
            file_mb=size,
        )

    def _judge(self, subjects: Sequence[Subject], material: Material) -> None:
        """Parity with the reference, and the loss against the truth, over all windows; also warms up."""
        self._say(f"{self._label}: parity on {len(material.blurry)} windows")
        expected = self._reference(material.blurry)
        for subject in sorted(subjects, key=lambda subject: subject.precision != "fp32"):  # without PyTorch, fp32 is the reference
            with self._reported(subject.name):
                got = [_deblur(subject, window) for window in material.blurry]
                if expected is None:
                    self.reference, expected = f"{_short(subject.name)}", got
                found = {"parity_db": decibels_for_json(psnr(np.stack(got), np.stack(expected), 1.0))}
                if material.sharp is not None:
                    found["loss_db"] = _quality(expected, material.sharp) - _quality(got, material.sharp)
                self._rows[subject.name] = replace(self._rows[subject.name], **found)
                continue
            del self._rows[subject.name]

    def _reference(self, blurry: Planes) -> list[Planes] | None:
        if self.options.checkpoint is None:
            return None
        try:
            from model import load_checkpoint  # torch, where a checkpoint is at hand
            from model.reference import TorchRunner
        except ModuleNotFoundError as error:
            self._skip(REFERENCE, BackendError(f"{error.name} is not installed: parity is with a row of this run"))
            return None
        with TorchRunner(load_checkpoint(self.options.checkpoint)) as network:
            return [network.run(window) for window in blurry]

    def _time(self, subjects: Sequence[Subject], window: Planes) -> None:
        self._say(f"{self._label}: timing {len(subjects)} candidates, interleaved")
        calls = self._calls(subjects, window)
        on_gpu = {subject.name + word for subject in subjects if subject.gpu for word in ("", BARE)}
        timings: Mapping[str, Timing] = {}
        with self._reported("latency"):
            timings = {timing.name: timing for timing in interleave_for(calls, self.options.effort, on_gpu)}
        for subject in subjects if timings else ():
            self.baseline = self.baseline or subject.name
            whole, bare = timings[subject.name], timings.get(subject.name + BARE)
            self._rows[subject.name] = self._timed(self._rows[subject.name], whole, bare, timings.get(self.baseline))
            figures = {"latencyMs": whole, **({"computeMs": bare} if bare else {})}
            self.times[f"{_short(subject.name)} {self._label}"] = [
                dict(zip(figures, call)) for call in zip(*(timing.milliseconds for timing in figures.values()))
            ]

    def _calls(self, subjects: Sequence[Subject], window: Planes) -> dict[str, Callable[[], object]]:
        """A call for every subject's latency, and one without copies where that works."""
        calls: dict[str, Callable[[], object]] = {}
        for subject in subjects:
            samples = subject.encode(window)
            calls[subject.name] = lambda subject=subject, samples=samples: subject.run(samples)
            if subject.without_copies:
                with self._reported(subject.name + BARE):
                    bare_call = guarded(guarded(subject.without_copies)(samples))
                    bare_call()
                    calls[subject.name + BARE] = bare_call
        return calls

    def _timed(self, row: Row, whole: Timing, bare: Timing | None, baseline: Timing | None) -> Row:
        return replace(
            row,
            latency_ms=Spread.of(whole.milliseconds),
            compute_ms=Spread.of(bare.milliseconds) if bare else None,
            processor_ms=float(np.median(whole.processor)),
            rounds_ms=whole.milliseconds,
            times_as_fast=Ratio.of(baseline, whole) if baseline else None,
            fps_engine=1000 * self.options.frames * self.options.batch / whole.median,
        )

    def _run_trtexec(self) -> None:
        with self._reported(TRTEXEC):
            found = trtexec.measure(
                self.options.model or Path(), (self.options.batch, self.options.frames, *self._size), self.options.effort
            )
            latency, compute = (Spread.of([call[key] for call in found]) for key in ("latencyMs", "computeMs"))
            frames = 1000 * self.options.frames * self.options.batch
            row = Row(TRTEXEC, "peer", "tensorrt", "tf32", "", self.options.batch, *self._size, latency, compute)
            self._rows[TRTEXEC] = replace(row, fps_engine=frames / latency.median)
            self.times[f"{TRTEXEC} {self._label}"] = found

    def _start_cold(self) -> None:
        given = PeerInput(
            self.options.model or Path(),
            self.options.checkpoint,
            (self.options.batch, self.options.frames, *self._size),
            self._folder / self._label,
            np.empty(0, np.float32),
            np.empty(0, np.float32),
        )
        for name in [name for name in self._rows if name != TRTEXEC]:
            self._say(f"{self._label}: cold start of {_short(name)}")
            with self._reported(f"{name}, cold start"):
                self._check_deadline()
                found = cold_start.measure(name, given, self.options.threads)
                self._rows[name] = replace(self._rows[name], cold_start_s=found.seconds, peak_memory_mb=found.peak)

    def _run_video(self) -> None:
        names = [name for name, row in self._rows.items() if row.kind == "engine"]
        scripts = [NAIVE] if NAIVE in self.options.peers else []
        self._say(f"{self._label}: {self.options.video_frames} frames end to end, {len(names) + len(scripts)} candidates")
        timings: Mapping[str, Timing] = {}
        with self._reported("video"):
            self._check_deadline()
            found = end_to_end.measure([*names, *scripts], self.options, *self._size, lambda name: self._reported(f"{name}, video"))
            timings = {timing.name: timing for timing in found}
        if NAIVE in timings:
            self._rows[NAIVE] = Row(NAIVE, "peer", "onnxruntime", "fp32", "", 1, *self._size)
        for name, timing in timings.items():
            self._rows[name] = replace(
                self._rows[name],
                fps_end_to_end=1000 * self.options.video_frames / timing.median,
                times_as_fast_end_to_end=Ratio.of(timings[NAIVE], timing) if NAIVE in timings else None,
            )


def _network(options: BenchOptions) -> str:
    """SHA-256 of the checkpoint that all files must come from; "" when the first one says which."""
    if options.model:
        return read_contract(options.model).checkpoint_sha256
    return file_sha256(options.checkpoint) if options.checkpoint else ""


def _deblur(subject: Subject, window: Planes) -> Planes:
    return subject.decode(np.array(subject.run(subject.encode(window))))


def _quality(got: Sequence[Planes], sharp: Planes) -> float:
    """dB against the truth, mean over the windows, samples clipped to [0, 1]."""
    return float(np.mean([psnr(np.clip(a, 0, 1), np.clip(b, 0, 1), 1.0) for a, b in zip(got, sharp)]))


def _short(name: str) -> str:
    """Without folders."""
    file = parse(name).file
    return f"{Path(file).name}{name.removeprefix(file)}"


def _files(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else iter((path,))


def versions() -> dict[str, str]:
    """Of Python, and of the libraries here that figures depend on."""
    found = {name: version for name in LIBRARIES if (version := installed_version(name))}
    return {"python": platform.python_version(), **found}


def _gpu() -> str | None:
    try:
        from runtime.backends.device_memory import open_gpu

        return open_gpu().name
    except (ImportError, DeployError):
        return None
