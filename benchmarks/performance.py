"""Writes the tables and charts of docs/performance.md: models, then bench, roofline, scaling and the ways to run faster.

python benchmarks/performance.py                     all of it, about 40 minutes on two quiet cores
python benchmarks/performance.py --quick             small sizes, few calls, about 12 minutes; the page says so
python benchmarks/performance.py --only roofline     one part again
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import bench_rows, bench_table, goals, ideas, roofline, scaling, up_and_convolve
from benchmarks.bench import QUICK_PEERS
from benchmarks.bench_chart import save_chart as save_bench_chart
from benchmarks.bench_options import NAIVE, TRTEXEC, BenchOptions
from benchmarks.bench_report import BenchReport, read_report
from benchmarks.marked_text import fill
from benchmarks.other_work import OtherWork
from benchmarks.peers import PEERS
from benchmarks.roofline_chart import save_chart as save_roofline_chart
from benchmarks.scaling_chart import save_chart as save_scaling_chart
from benchmarks.subjects import expand
from benchmarks.timing import Effort
from benchmarks.windows import BLURRY
from runtime.command_line import command
from runtime.default_model import ROOT
from runtime.errors import BackendError
from runtime.plan import file_sha256

PAGE = ROOT / "docs" / "performance.md"
PARTS = ("bench", "roofline", "scaling", "ideas")
MODEL, INT8, SPLIT, SPLIT_INT8, CELLS_INT8 = (
    "model.onnx",
    "int8.onnx",
    "split_heads.onnx",
    "split_heads_int8.onnx",
    "cells_int8.onnx",
)
WITH_CELLS = r".*generator\.layer([1-9]|1[0-4])|spatial\.cells.*|temporal\.cells.*h_.*"  # all that see no picture and make none
SMALL_ONLY = (  # what is left out at 720p, where all together would take more than 20 GB
    "pytorch fp32",
    "pytorch fp32 channels_last",
    "torch.compile fp32",
    "openvino fp32 fixed shape",
    "polygraphy onnxruntime",
)
QUIET = 0.2  # cores that other processes may keep busy before the page says that they did


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    small: tuple[int, int]  # H, W, with all peers
    large: tuple[int, int] | None  # H, W, with fewer
    quick: bool
    runs: int  # of a profile
    sizes: tuple[str, ...]  # of the scaling
    iterations: int
    calibration: int  # windows


FULL = Plan((184, 320), (720, 1280), False, 5, scaling.SIZES, 10, 32)
QUICK = Plan((184, 320), None, True, 2, ("256x256", "640x360", "960x540"), 3, 6)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/performance.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few calls")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "performance", help="for models and reports (default %(default)s)"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="default %(default)s; charts lie beside it")
    given = parser.parse_args(argv)
    plan = QUICK if given.quick else FULL
    work = (
        given.work / f"{file_sha256(_checkpoint())[:12]}_{plan.calibration}"
    )  # other weights, or another calibration: other files
    make_models(work, plan)
    writers: dict[str, Callable[[Path, Path, Plan, OtherWork], None]] = {
        "bench": write_bench,
        "roofline": write_roofline,
        "scaling": write_scaling,
        "ideas": write_ideas,
    }
    for part in given.only:
        _say(part)
        writers[part](work, given.page, plan, OtherWork())
    print(f"wrote {given.page}; models and reports are in {work}")
    return 0


def make_models(work: Path, plan: Plan) -> None:
    """The files that are compared, by this project's own commands; those that are there are kept.

    Raises BackendError when a command fails.
    """
    work.mkdir(parents=True, exist_ok=True)
    for model, rewrites in ((MODEL, "fold,whole-window"), (SPLIT, "fold,whole-window,split-heads")):
        _make(work / model, "export", "--rewrites", rewrites)
        windows = str(plan.calibration)
        ranges = work / f"{Path(model).stem}.ranges.json"
        _make(ranges, "calibrate", str(BLURRY), "--onnx", str(work / model), "--windows", windows)
    for int8, model, layers in ((INT8, MODEL, ()), (SPLIT_INT8, SPLIT, ()), (CELLS_INT8, MODEL, ("--layers", WITH_CELLS))):
        ranges = work / f"{Path(model).stem}.ranges.json"
        _make(work / int8, "quantize", "--onnx", str(work / model), "--ranges", str(ranges), "--placement", "cpu", *layers)


def write_bench(work: Path, page: Path, plan: Plan, others: OtherWork) -> None:
    """The table, the chart, and the report in `work`."""
    options = BenchOptions(
        subjects=tuple(expand([str(work / MODEL)], ()))
        + tuple(f"{work / INT8}@{how}" for how in ("openvino:bf16", "openvino:fp32", "onnxruntime")),
        peers=QUICK_PEERS if plan.quick else (*PEERS, NAIVE, TRTEXEC),
        sizes=(plan.small,),
        model=work / MODEL,
        checkpoint=_checkpoint(),
        effort=Effort(plan.iterations, 0 if plan.quick else 200, 0 if plan.quick else 3),
        windows=2 if plan.quick else 4,
        video_frames=10 if plan.quick else 20,
        video_rounds=1 if plan.quick else 5,
    )
    report, _ = bench_rows.measure(options, _say)
    if plan.large:
        subjects = (*expand([str(work / MODEL)], ()), f"{work / INT8}@openvino:bf16")
        peers = tuple(name for name in options.peers if name not in SMALL_ONLY)
        effort = Effort(5, 0, 0)
        larger = replace(options, sizes=(plan.large,), subjects=subjects, peers=peers, effort=effort, windows=2, video_rounds=3)
        report = _joined(report, bench_rows.measure(larger, _say)[0])
    (work / "bench.json").write_text(report.to_json())
    save_bench_chart(report, page.with_name("performance_bench.svg"))
    fill(page, "bench", f"{_remark(plan, others.cores())}{bench_table.markdown(report)}")


def write_roofline(work: Path, page: Path, plan: Plan, others: OtherWork) -> None:
    """The table, the chart, and the goals, for which the report of the last `bench` is read."""
    profiles = [f"{work / MODEL}@openvino:bf16", f"{work / INT8}@openvino:bf16", f"{work / MODEL}@onnxruntime"]
    height, width = plan.large or plan.small
    found = roofline.measure(profiles, height, width, plan.runs)
    save_roofline_chart(found, page.with_name("performance_roofline.svg"))
    fill(page, "roofline", f"{_remark(plan, others.cores())}{roofline.markdown(found)}")
    if (work / "bench.json").is_file():
        report = read_report(work / "bench.json")
        fill(page, "goals", goals.markdown(goals.goals(report, found, MODEL, INT8)))


def write_scaling(work: Path, page: Path, plan: Plan, others: OtherWork) -> None:
    """The table and the chart."""
    sizes = tuple(scaling.size(text)[::-1] for text in plan.sizes)
    found = scaling.measure(scaling.ScalingOptions(str(work / MODEL), sizes, plan.small, effort=Effort(plan.iterations // 2, 0, 0)))
    save_scaling_chart(found, page.with_name("performance_scaling.svg"))
    fill(page, "scaling", f"{_remark(plan, others.cores())}{scaling.markdown(found)}")


def write_ideas(work: Path, page: Path, plan: Plan, others: OtherWork) -> None:
    """Two tables, in bf16 and with INT8, and one of the upsampling layers' forms."""
    height, width = (-(-side // 16) * 16 for side in plan.small)
    tables = []
    for model, graphs in ((MODEL, (SPLIT,)), (INT8, (SPLIT_INT8, CELLS_INT8))):
        found = ideas.measure(work / model, [work / graph for graph in graphs], height, width, plan.iterations)
        tables.append(f"{_remark(plan, others.cores())}{ideas.markdown(found)}")
    fill(page, "ideas", "\n\n".join(tables))
    found_forms = {layer: up_and_convolve.measure(layer, rounds=2 * plan.iterations) for layer in up_and_convolve.LAYERS}
    fill(page, "up_and_convolve", up_and_convolve.markdown(found_forms))


def _checkpoint() -> Path:
    return next((ROOT / "model" / "weights").glob("*.safetensors"))


def _joined(first: BenchReport, second: BenchReport) -> BenchReport:
    return replace(
        first, load=(first.load[0], second.load[1]), rows=first.rows + second.rows, skipped=first.skipped + second.skipped
    )


def _remark(plan: Plan, others: float | None) -> str:
    """What a reader must know of a run that is not the full one on a quiet machine."""
    words = ["A quick run: few calls, small pictures."] if plan.quick else []
    if others is not None and others > QUIET:
        words.append(f"OTHER WORK kept {others:.1f} cores busy meanwhile: only ratios within a round mean something.")
    return f"**{' '.join(words)}**\n\n" if words else ""


def _make(path: Path, name: str, *arguments: str) -> None:
    if path.is_file():
        return
    _say(f"making {path.name}")
    program = [sys.executable, str(ROOT / "videodeblur.py"), name, *arguments, "--output", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"videodeblur {name} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
