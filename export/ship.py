"""Checkpoint -> verified bundle and its report: export, calibrate, type, build, compare with PyTorch on real clips, bundle, try.

    videodeblur ship --target cpu --target rtx --for 720p --output x.bundle
    videodeblur ship my.safetensors --target rtx --computeCapabilities 8.9 --budget 0.05dB --clips footage/ --output x.bundle

Status 1, and no bundle, when a model is not the network any more or an engine does not run in the types that it should.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.collect_ranges import CollectOptions, collect
from calibration.onnx_file import load_onnx
from export.compare.literal_runner import exact_backend
from export.compare.precision_trials import SearchOptions
from export.compare.typed_file import LostParityError
from export.engine.flag_values import capabilities
from export.engine.flags import RUNTIMES
from export.engine.request import EngineRequest
from export.engine.size_presets import presets
from export.export_options import ExportOptions
from export.graph.qdq_rules import QdqOptions
from export.make_engine import make_engine
from export.report.records import GATES, Gate
from export.search_precision import as_json as search_as_json
from export.search_precision import decibels, search
from export.shipped_clips import DEFAULT_CLIP
from export.to_bundle import BundleRequest, write_bundle
from export.to_bundle import summary as bundle_summary
from export.to_qdq import QuantizeRequest, to_qdq
from export.to_report import ReportOptions, default_output, write_report
from export.verify import VerifyOptions, verify
from runtime.bundle import signatures
from runtime.command_line import USER_ERROR, command
from runtime.engine import Engine
from runtime.errors import BackendError, InputError
from runtime.files.contract import read_contract
from runtime.progress import Say

TARGETS = ("cpu", *RUNTIMES)
CALIBRATION_WINDOWS = 16
VERIFIED_WINDOWS = 4


@dataclass(frozen=True)
class ShipOptions:
    """What is shipped, and where to."""

    output: Path  # the bundle, a folder that is not there yet
    checkpoint: Path | None = None  # None: the shipped one
    targets: tuple[str, ...] = ("cpu",)  # of TARGETS
    sizes: tuple[str, ...] = ("720p",)  # that engines take, see export/to_engine.py --for
    compute_capabilities: tuple[tuple[int, int], ...] = ()  # of TensorRT-RTX; empty: any from 8.0 on
    budget: float | None = None  # dB of PSNR against the truth that INT8 may cost; None: no INT8
    clips: Path = DEFAULT_CLIP  # calibrated, compared and tested on
    windows: int = VERIFIED_WINDOWS  # compared with PyTorch
    min_psnr: float | None = None  # dB of PyTorch that every model must reach; None: that of its precision
    sign: Path | None = None  # private key for the bundle; None: not signed

    def __post_init__(self) -> None:
        """Raises InputError on another target, or a bundle that is there."""
        for target in self.targets:
            if target not in TARGETS:
                raise InputError(f"the target is {target!r}, expected some of {', '.join(TARGETS)}")
        if self.output.exists():
            raise InputError(f"{self.output} is there already: name another folder with --output, or remove it")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, ships, prints; status 1 when a gate fails."""
    options = _parse(argv)
    gates = ship(options, lambda text: print(text, file=sys.stderr))
    print(table(gates))
    if not all(gate.passed for gate in gates):
        print(f"{options.output} was not written: a model is not the network any more", file=sys.stderr)
        return USER_ERROR
    return 0


def ship(options: ShipOptions, say: Say) -> list[Gate]:
    """Writes the bundle when every gate is passed; returns the gates. Raises what the steps raise."""
    from export.network.exporter import export_onnx  # here, so that options and help need no PyTorch
    from model import default_checkpoint

    if options.sign:
        signatures().signer(options.sign)  # a key that is none is told now
    with _workshop(options.output) as folder:
        say("exporting")
        checkpoint = options.checkpoint or default_checkpoint()
        exported = export_onnx(ExportOptions(checkpoint=checkpoint, output=folder / f"{checkpoint.stem}.onnx"))
        if exported.note:
            say(exported.note)
        reference = exported.path
        ranges = folder / "ranges.json"
        say(f"measuring {options.clips}")
        collect(CollectOptions(data=options.clips, onnx=reference, windows=CALIBRATION_WINDOWS)).save(ranges)
        bench = _Bench(options, folder, reference, ranges, say)
        made = [pair for target in options.targets for pair in _members(target, bench)]
        gates = [_held_to_network(checkpoint, path, bench) for path in dict.fromkeys([*(typed for _, typed in made), reference])]
        if all(gate.passed for gate in gates):
            _bundle([member for member, _ in made], gates, bench)
        return gates


def table(gates: Sequence[Gate]) -> str:
    """The gates as text."""
    lines = ["against the PyTorch network in fp32, on real clips, each model computed as its file says:"]
    for gate in gates:
        parity = "equal" if gate.parity is None else f"{gate.parity:.1f} dB"
        relation = "passed" if gate.passed else "FAILED"
        lines.append(f"  {gate.model}: {gate.precision}, {parity}, expected {gate.least:.0f}: {relation}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Bench:
    """What every step works with."""

    options: ShipOptions
    folder: Path  # for what is made on the way
    reference: Path  # the fp32 ONNX file
    ranges: Path  # measured on it
    say: Say


Made = tuple[Path, Path]  # a member, and the ONNX file that stands for it where it cannot run


def _members(target: str, bench: _Bench) -> Iterator[Made]:
    """What a target gets beside the reference, the fastest first."""
    if target != "cpu":
        yield _engine(target, bench)
        return
    layers = _searched("fp32", bench)
    if layers:
        bench.say("writing the INT8 model for the CPU")
        output = bench.folder / f"{bench.reference.stem}.cpu.int8.onnx"
        how = QdqOptions(rest="fp32")
        to_qdq(QuantizeRequest(bench.reference, bench.ranges, output, layers=str(layers), clip=bench.options.clips, how=how))
        yield output, output


def _searched(rest: str, bench: _Bench) -> Path | None:
    """precision.json for INT8 within the budget; None when none was given or nothing fits into it."""
    budget, path = bench.options.budget, bench.folder / f"precision-int8-{rest}.json"
    if budget is None:
        return None
    if not path.is_file():
        bench.say(f"searching what may be INT8 beside {rest} for {budget:g} dB")
        asked = SearchOptions(bench.reference, bench.ranges, bench.options.clips, rest=rest, budget=budget)
        found = search(asked)
        path.write_text(json.dumps({**search_as_json(found, asked), "quantised": found.quantised}, indent=1) + "\n")
    quantised: int = json.loads(path.read_text())["quantised"]
    if not quantised:
        bench.say(f"no layer may be INT8 within {budget:g} dB")
    return path if quantised else None


def _engine(target: str, bench: _Bench) -> Made:
    """INT8 beside FP16 within the budget, else FP16, else BF16: the first that stays the network and runs in its types."""
    layers = _searched("fp16", bench)
    for precision in [*([("int8", "fp16")] if layers else []), ("fp16",), ("bf16",)]:
        request = _request(target, precision, layers, bench)
        bench.say(f"building {request.engine.name}")
        try:
            made = make_engine(request, None, bench.say)
        except LostParityError as error:
            bench.say(f"not {'-'.join(precision)}: {error}")
        else:
            return made.engine, made.onnx
    raise BackendError(f"no precision below fp32 keeps the network for {target}: build in fp32 with videodeblur build")


def _request(target: str, precision: tuple[str, ...], layers: Path | None, bench: _Bench) -> EngineRequest:
    return EngineRequest(
        onnx=bench.reference,
        engine=bench.folder / f"{bench.reference.stem}-{target}-{'-'.join(bench.options.sizes)}-{precision[0]}.engine",
        library=RUNTIMES[target],
        profiles=presets(bench.options.sizes, read_contract(bench.reference)),
        quantised="int8" if "int8" in precision else None,
        rest=precision[-1],
        precisions=layers if "int8" in precision else None,
        ranges=bench.ranges,
        calibration_data=bench.options.clips,
        compute_capabilities=bench.options.compute_capabilities if target == "rtx" else (),
    )


def _held_to_network(checkpoint: Path, path: Path, bench: _Bench) -> Gate:
    bench.say(f"comparing {path.name} with PyTorch")
    candidate = f"{path}@{exact_backend(load_onnx(path))}"
    verdict = verify(VerifyOptions(str(checkpoint), candidate, bench.options.clips, bench.options.windows, bench.options.min_psnr))
    parity = None if verdict.psnr == float("inf") else round(verdict.psnr, 2)
    return Gate(path.name, read_contract(path).precision, parity, verdict.min_psnr, verdict.passed)


def _bundle(members: Sequence[Path], gates: Sequence[Gate], bench: _Bench) -> None:
    told = bench.folder / GATES
    told.write_text(json.dumps([asdict(gate) for gate in gates], indent=1) + "\n")
    attached = (bench.ranges, told, *sorted(bench.folder.glob("precision-*.json")))
    clip = bench.options.clips if bench.options.clips.is_file() else DEFAULT_CLIP
    engines_first = sorted(members, key=lambda path: path.suffix == ".onnx")  # else a GPU would wait for the CPU
    options = bench.options
    manifest = write_bundle(BundleRequest(bench.reference, tuple(engines_first), options.output, attached, clip, options.sign))
    bench.say(bundle_summary(bench.options.output, manifest))
    with Engine(bench.options.output) as engine:
        bench.say(f"opened here: {engine.reason}")
    report = default_output(bench.options.output)
    write_report(ReportOptions(bench.options.output, report), bench.say)
    bench.say(f"the report: {report}; of a clip of yours: videodeblur report {bench.options.output} --clip BLURRY [--sharp SHARP]")


@contextmanager
def _workshop(output: Path) -> Iterator[Path]:
    """A folder beside the bundle, gone afterwards."""
    folder = output.with_name(f".{output.name}.work")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse(argv: Sequence[str] | None) -> ShipOptions:
    parser = argparse.ArgumentParser(
        prog="videodeblur ship", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="checkpoint to ship (default: the shipped one)")
    parser.add_argument("--output", type=Path, required=True, help="folder to make, such as x.bundle")
    parser.add_argument(
        "--target", action="append", choices=TARGETS, help="target that runs it; repeat; tensorrt needs the GPU here (default cpu)"
    )
    parser.add_argument(
        "--for",
        dest="sizes",
        default="720p",
        metavar="SIZE,...",
        help="sizes that the engines take: 720p, WIDTHxHEIGHT, ... (default %(default)s)",
    )
    parser.add_argument(
        "--computeCapabilities",
        type=capabilities,
        default=(),
        metavar="X.Y,...",
        help="GPUs that rtx is for (default: any from 8.0)",
    )
    parser.add_argument("--budget", type=decibels, metavar="DB", help="PSNR that INT8 may cost, such as 0.05dB (default: no INT8)")
    parser.add_argument(
        "--clips",
        type=Path,
        default=DEFAULT_CLIP,
        help="video or folder to calibrate, compare and test on (default: the shipped clip)",
    )
    parser.add_argument(
        "--windows",
        type=int,
        default=VERIFIED_WINDOWS,
        metavar="N",
        help="windows compared with PyTorch (default %(default)s)",
    )
    parser.add_argument("--min-psnr", type=decibels, metavar="DB", help="parity that every model needs (default by its precision)")
    parser.add_argument("--sign", type=Path, metavar="KEY", help="private key that signs the bundle (pip install '.[signing]')")
    given = parser.parse_args(argv)
    return ShipOptions(
        output=given.output,
        checkpoint=given.checkpoint,
        targets=tuple(dict.fromkeys(given.target or ["cpu"])),
        sizes=tuple(given.sizes.split(",")),
        compute_capabilities=given.computeCapabilities,
        budget=given.budget,
        clips=given.clips,
        windows=given.windows,
        min_psnr=given.min_psnr,
        sign=given.sign,
    )


if __name__ == "__main__":
    raise SystemExit(main())
