"""Writes the tables and charts of docs/performance.md: the default, bench, roofline, scaling and the ways to run faster.

Only the blocks of this machine's class of CPU are written; those of the others stay as they are.

python benchmarks/performance.py                     all of it, half an hour on two quiet cores
python benchmarks/performance.py --quick             small sizes, few calls, minutes; the page says so
python benchmarks/performance.py --only roofline     one part again; the goals need bench and roofline of one run
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import quality, roofline, scaling, sizes
from benchmarks.bench import QUICK_PEERS
from benchmarks.peers import PEERS
from benchmarks.roofline import Roofline
from benchmarks.shared.arguments import size
from benchmarks.shared.cpu_class import CLASSES, cpu_class
from benchmarks.shared.marked_text import check, fill
from benchmarks.shared.other_work import OtherWork
from benchmarks.shared.timing import Effort
from benchmarks.shared.windows import BLURRY, SHARP, VIDEO
from benchmarks.table import default_run, first_window, goals, rows, text
from benchmarks.table.options import NAIVE, TRTEXEC, BenchOptions
from benchmarks.table.report import FEWEST, BenchReport
from benchmarks.table.subjects import expand
from runtime.backends.openvino_runner import native_bf16
from runtime.command_line import command
from runtime.default_model import ROOT, SIZE
from runtime.engine import Engine
from runtime.errors import BackendError
from runtime.files.on_disk import file_sha256
from runtime.run.options import engine_named

PAGE = ROOT / "docs" / "performance.md"
PARTS = ("default", "bench", "roofline", "scaling", "ideas")
BLOCKS = {"bench": ("bench", "goals"), "roofline": ("roofline", "goals"), "ideas": ("ideas", "up_and_convolve")}  # that it fills
MAKERS = ("model", "export", "calibration")  # folders whose sources decide what the models are
MODEL, SPLIT, JOINED = "model.onnx", "split_heads.onnx", "joined.onnx"
INT8 = "int8.onnx"
REWRITES = "merge-duplicates,fold,whole-window,join-cells,split-joins"  # the exporter's default
FORMS = {MODEL: REWRITES, SPLIT: f"{REWRITES},split-heads", JOINED: "merge-duplicates,fold,whole-window"}  # of each file
NO_MERGING = "fold,whole-window"  # the rewrites but the one that drops channels which training left alike
NO_WEIGHTS = "none: "  # how a contract's sha256 begins where there is no checkpoint
SMALL_ONLY = (  # what is left out at 720p, where all together would take more than 20 GB, and an hour
    "pytorch fp32",
    "pytorch fp32 channels_last",
    "torch.compile fp32",
    "openvino fp32 fixed shape",
    "openvino nncf int8 max_drop",
    "polygraphy onnxruntime",
)
BEGUN = time.monotonic()
SHOWN = 8  # characters of a hash
QUIET = 0.2  # cores that other processes may keep busy before the page says that they did


@dataclass(frozen=True)
class Steps:
    """How much is measured."""

    small: tuple[int, int]  # H, W, with all peers
    large: tuple[int, int] | None  # H, W, with fewer
    quick: bool
    runs: int  # of a profile
    sizes: tuple[str, ...]  # of the scaling
    iterations: int
    calibration: int  # windows, of another clip than the one on which INT8 is judged


FULL = Steps((184, 320), (720, 1280), False, 3, scaling.SIZES, 10, 16)
QUICK = Steps((184, 320), None, True, 3, ("256x256", "640x360", "960x540"), 3, 6)
LEAST = FEWEST["p90"]  # calls of a setting, for a spread
LONGEST = 90.0  # seconds of one setting of the scaling, after which no further call begins
NOT_JUDGED = "Not judged: the tables below are not of one run. `python benchmarks/performance.py` judges the goals."


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/performance.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="take small sizes and few calls")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "performance", help="folder for models and reports (default %(default)s)"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write, with its charts beside it (default %(default)s)")
    parser.add_argument(
        "--paper", type=Path, metavar="CHECKPOINT", help="weights of the paper's size for the naive script (default: random ones)"
    )
    given = parser.parse_args(argv)
    steps = QUICK if given.quick else FULL
    check(given.page, [each for part in given.only for each in BLOCKS.get(part, (part,))])
    name = "_".join((file_sha256(_checkpoint())[:12], sources_sha256()[:12], str(steps.calibration)))
    work = given.work / name  # other weights, another exporter, or another calibration: other files
    if set(given.only) != {"default"}:
        make_models(work, steps)
    report = found = None
    for part in given.only:
        _say(part)
        others = OtherWork()
        if part == "default":
            write_default(make_paper(work, given.paper), given.page, steps, others)
        elif part == "bench":
            report = write_bench(work, given.page, steps, others)
        elif part == "roofline":
            found = write_roofline(work, given.page, steps, others)
        else:
            {"scaling": write_scaling, "ideas": write_ideas}[part](work, given.page, steps, others)
        if part in ("bench", "roofline"):
            write_goals(given.page, report, found)
    _say("done")
    print(f"wrote {given.page}; models and reports are in {work}")
    return 0


def sources_sha256() -> str:
    """Of the code that makes the models, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in MAKERS for path in (ROOT / folder).glob("**/*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def make_models(work: Path, steps: Steps) -> None:
    """The files that are compared, by this project's own commands; those that are there are kept.

    Raises BackendError when a command fails.
    """
    work.mkdir(parents=True, exist_ok=True)
    for model, rewrites in FORMS.items():
        _make(work / model, "export", "--rewrites", rewrites)
        ranges, layers = (work / f"{Path(model).stem}.{what}.json" for what in ("ranges", "precision"))
        measured = ("--onnx", str(work / model), "--ranges", str(ranges))
        _make(ranges, "calibrate", str(VIDEO), "--onnx", str(work / model), "--windows", str(steps.calibration))
        _make(layers, "search", *measured, "--clips", str(VIDEO), "--rest", "fp32")
        _make(work / quantised(model), "quantize", *measured, "--layers", str(layers))


def quantised(model: str) -> str:
    """The name of the INT8 file of a model."""
    return INT8 if model == MODEL else f"{Path(model).stem}_int8.onnx"


def make_paper(work: Path, checkpoint: Path | None) -> Path:
    """The network in the paper's size, all channels of it; without a checkpoint with random weights, which take the same time."""
    work.mkdir(parents=True, exist_ok=True)
    weights = [str(checkpoint), "--rewrites", NO_MERGING] if checkpoint else ["--random-weights"]
    path = work / f"paper_{file_sha256(checkpoint)[:SHOWN] if checkpoint else 'random'}.onnx"
    _make(path, "export", *weights)
    return path


def write_default(paper: Path, page: Path, steps: Steps, others: OtherWork, model: Path = Path(SIZE)) -> None:
    """Two tables: `model` as `videodeblur run` opens it against the naive script with `paper`, and its first windows.

    What was chosen on this machine before is not looked at: the way to run it is chosen anew.
    """
    height, width = steps.large or steps.small
    frames, rounds = (10, LEAST) if steps.quick else (20, 5)
    blurry, sharp = (quality.read_luma(clip)[: 2 * first_window.WINDOW if steps.quick else None] for clip in (BLURRY, SHARP))
    with first_window.empty_cache():
        ours, script = sizes.measure(VIDEO, [model], frames, rounds, (height, width), paper)
        _say("quality of both")
        with engine_named(model, ("auto", "auto", None, 0), (height, width)) as engine, Engine(paper, "onnxruntime") as naive:
            scores = [quality.clip_psnr(quality.deblur(each, blurry, each.contract.frames), sharp) for each in (engine, naive)]
    _say("first windows")
    found = default_run.DefaultRun(
        size=(height, width),
        frames=frames,
        ours=ours,
        script=script,
        chosen=f"{engine.file.name} on {engine.backend} in {engine.precision}",
        scripts=f"the paper's size, {_weights(naive.contract.checkpoint_sha256)}",
        judged=len(blurry),
        blurry=quality.clip_psnr(blurry, sharp),
        ours_sharp=scores[0],
        script_sharp=scores[1],
        first=tuple(
            first_window.measure(VIDEO, model, *shape, 1 if steps.quick else rounds)
            for shape in (steps.small, steps.large)
            if shape
        ),
    )
    _fill(page, "default", f"{_remark(steps, others.cores())}{default_run.markdown(found, cpu_class())}")


def write_bench(work: Path, page: Path, steps: Steps, others: OtherWork) -> BenchReport:
    """The table, the chart, and the report, which is also in `work`."""
    options = BenchOptions(
        subjects=tuple(expand([str(work / MODEL)], ()))
        + tuple(f"{work / INT8}@{how}" for how in ("openvino:bf16", "openvino:fp32", "onnxruntime")),
        peers=QUICK_PEERS if steps.quick else (*PEERS, NAIVE, TRTEXEC),
        sizes=(steps.small,),
        model=work / MODEL,
        checkpoint=_checkpoint(),
        effort=Effort(steps.iterations, 0 if steps.quick else 200, 0 if steps.quick else 3),
        windows=2 if steps.quick else 4,
        video_frames=10 if steps.quick else 20,
        video_rounds=LEAST if steps.quick else 5,
    )
    report, _ = rows.measure(options, _say)
    if steps.large:
        subjects = (*expand([str(work / MODEL)], ()), f"{work / INT8}@openvino:bf16")
        peers = tuple(name for name in options.peers if name not in SMALL_ONLY)
        few = replace(options, effort=Effort(LEAST, 0, 0), windows=2, video_frames=10, video_rounds=LEAST)
        larger = replace(few, sizes=(steps.large,), subjects=subjects, peers=peers)
        report = _joined(report, rows.measure(larger, _say)[0])
    (work / "bench.json").write_text(report.to_json())
    text.save_chart(report, _chart(page, "bench"))
    _fill(page, "bench", f"{_remark(steps, others.cores())}{text.markdown(report)}", "frames a second and parity")
    return report


def write_roofline(work: Path, page: Path, steps: Steps, others: OtherWork) -> Roofline:
    """The table and the chart."""
    fastest = "bf16" if native_bf16() else "fp32"
    profiles = [f"{work / MODEL}@openvino:{fastest}", f"{work / INT8}@openvino:{fastest}", f"{work / MODEL}@onnxruntime"]
    height, width = steps.large or steps.small
    found = roofline.measure(profiles, height, width, steps.runs, say=_say)
    roofline.save_chart(found, _chart(page, "roofline"))
    _fill(
        page,
        "roofline",
        f"{_remark(steps, others.cores())}{roofline.markdown(found)}",
        "attained rate against arithmetic intensity",
    )
    return found


def write_goals(page: Path, report: BenchReport | None, found: Roofline | None) -> None:
    """Judged by the tables of one run; where one of the two is missing, the page says that they are not."""
    _fill(page, "goals", goals.markdown(goals.goals(report, found, MODEL, INT8)) if report and found else NOT_JUDGED)


def write_scaling(work: Path, page: Path, steps: Steps, others: OtherWork) -> None:
    """The table and the chart."""
    sizes = tuple(size(each)[::-1] for each in steps.sizes)
    effort = Effort(max(LEAST, steps.iterations // 2), 0, 0, LONGEST)
    found = scaling.measure(scaling.ScalingOptions(str(work / MODEL), sizes, steps.small, effort=effort), _say)
    scaling.save_chart(found, _chart(page, "scaling"))
    _fill(page, "scaling", f"{_remark(steps, others.cores())}{scaling.markdown(found)}", "the cost of a pixel")


def write_ideas(work: Path, page: Path, steps: Steps, others: OtherWork) -> None:
    """Two tables, in bf16 and with INT8, and one of the upsampling layers' forms."""
    from benchmarks.studies import ideas, up_and_convolve  # here alone, so that the room may go as one

    height, width = (-(-side // 16) * 16 for side in steps.small)
    tables = []
    for model, graphs in ((MODEL, (SPLIT, JOINED)), (INT8, (quantised(SPLIT), quantised(JOINED)))):
        _say(f"ways to run {model}")
        found = ideas.measure(work / model, [work / graph for graph in graphs], height, width, steps.iterations)
        tables.append(f"{_remark(steps, others.cores())}{ideas.markdown(found)}")
    _fill(page, "ideas", "\n\n".join(tables))
    found_forms = {}
    for layer in up_and_convolve.LAYERS:
        _say(f"forms of upsampling and convolving, {layer}")
        found_forms[layer] = up_and_convolve.measure(layer, rounds=2 * steps.iterations)
    _fill(page, "up_and_convolve", up_and_convolve.markdown(found_forms), of="layers in the paper's size")


def _fill(page: Path, part: str, words: str, chart: str | None = None, of: str | None = None) -> None:
    """The block of this class of CPU: a heading, what it is `of` (the shipped network if None), the words, the chart."""
    here = cpu_class()
    of = of or f"`{_checkpoint().stem}`, {_weights(file_sha256(_checkpoint()))}"
    picture = f"\n\n![{chart}]({_chart(page, part).name})" if chart else ""
    fill(page, part, here, f"#### {CLASSES[here]}: {of}\n{words.strip()}{picture}")


def _weights(sha256: str) -> str:
    if sha256.startswith(NO_WEIGHTS):
        return f"{sha256.removeprefix(NO_WEIGHTS)}, which sharpen nothing"
    return f"sha256 {sha256[:SHOWN]}..."


def _chart(page: Path, part: str) -> Path:
    return page.with_name(f"performance_{part}_{cpu_class()}.svg")


def _checkpoint() -> Path:
    return next((ROOT / "model" / "weights").glob("*.safetensors"))


def _joined(first: BenchReport, second: BenchReport) -> BenchReport:
    return replace(
        first, load=(first.load[0], second.load[1]), rows=first.rows + second.rows, skipped=first.skipped + second.skipped
    )


def _remark(steps: Steps, others: float | None) -> str:
    """What a reader must know of a run that is not the full one on a quiet machine."""
    words = ["A quick run: few calls, small pictures."] if steps.quick else []
    if others is not None and others > QUIET:
        words.append(f"OTHER WORK kept {others:.1f} cores busy meanwhile: only ratios within a round mean something.")
    return f"**{' '.join(words)}**\n\n" if words else ""


def _make(path: Path, name: str, *arguments: str) -> None:
    if path.is_file():
        return
    _say(f"making {path.name}")
    program = [sys.executable, str(ROOT / "videodeblur"), name, *arguments, "--output", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"videodeblur {name} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")


def _say(line: str) -> None:
    """A line for every step, with the minutes since the start."""
    print(f"{(time.monotonic() - BEGUN) / 60:5.1f} min  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
