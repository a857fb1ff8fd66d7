"""Speed, parity and quality in one table: models, engines and bundles, and their peers, interleaved in one run.

videodeblur bench                                             the shipped model on every backend here, and its peers
videodeblur bench model.onnx int8.onnx@openvino --size 320x184 1280x720 --json bench.json
videodeblur bench m.engine --peers none --iterations=100 --warmUp=500 --exportTimes=times.json

Copies in and out are part of "latency" and not part of "compute", always, whichever flags are given; trtexec 11 leaves them out
unless told otherwise, trtexec 10 has them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.peers import PEERS
from benchmarks.shared.arguments import size
from benchmarks.shared.timing import Effort
from benchmarks.shared.windows import BLURRY, SHARP
from benchmarks.table.options import NAIVE, PARTS, TRTEXEC, BenchOptions
from benchmarks.table.rows import measure
from benchmarks.table.subjects import expand
from benchmarks.table.text import markdown, save_chart, table
from runtime.command_line import USER_ERROR, command
from runtime.default_model import ROOT, default_onnx
from runtime.errors import DeployError, InputError
from runtime.files.contract import Contract, read_contract
from runtime.files.engine_record import SUFFIXES, load_record
from runtime.files.manifest import load_manifest
from runtime.files.model_spec import parse
from runtime.files.on_disk import file_sha256

QUICK_PEERS = (*(name for name, peer in PEERS.items() if peer.quick), NAIVE)
QUICK_SIZE = "256x144"
QUICK_ROUNDS, QUICK_DEADLINE = 45.0, 120.0  # seconds, that a busy machine reaches and a quiet one does not
ALL_PEERS = (*PEERS, NAIVE, TRTEXEC)
SHAPES = re.compile(r"\w+:(\d+)x\d+x(\d+)x(\d+)")  # the frames are the model's


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints and writes. Status 1 when nothing could be measured."""
    given = _parser().parse_args(argv)
    options = _options(given)
    report, times = measure(options, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(report))
    if given.json:
        given.json.write_text(report.to_json())
    if given.markdown:
        given.markdown.write_text(markdown(report) + "\n")
    if given.exportTimes:
        only = next(iter(times.values()), [])
        given.exportTimes.write_text(json.dumps(only if len(times) == 1 else times, indent=1) + "\n")
    if given.chart:
        save_chart(report, given.chart)
    return 0 if report.rows else USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodeblur bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE[@BACKEND[:PRECISION]]", help="model, engine or bundle (default: shipped)")
    parser.add_argument(
        "--onnx", "--loadEngine", dest="more", action="append", default=[], help="model or engine, as trtexec spells it"
    )
    parser.add_argument(
        "--on",
        nargs="+",
        default=[],
        metavar="BACKEND:PRECISION",
        help="backends of models that name none, such as openvino:bf16 onnxruntime (default: all)",
    )
    parser.add_argument("--size", nargs="+", default=None, metavar="WxH", help=f"pixels (default 320x184, --quick {QUICK_SIZE})")
    parser.add_argument("--shapes", metavar="blurry:Nx5xHxW", help="batch and size, as trtexec spells them")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="windows in a call")
    parser.add_argument(
        "--peers",
        nargs="+",
        default=None,
        metavar="NAME",
        help=f"peers to measure: all (default), none, or some of: {', '.join(ALL_PEERS)}",
    )
    parser.add_argument("--quick", action="store_true", help="take three minutes on two cores: few calls, few peers")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU cores for the files' backends (default: all)")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="parts to measure (default: all)")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="checkpoint of the models, for parity and PyTorch (default: shipped)"
    )
    parser.add_argument("--clip", type=Path, metavar="FILE", help="blurry clip (default: the shipped one)")
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="clip without blur, the truth (default: that of the shipped one)"
    )
    timing = parser.add_argument_group("trtexec's flags")
    timing.add_argument("--iterations", type=int, metavar="N", help="calls of each, at least (default 10; --quick 3)")
    timing.add_argument("--warmUp", type=float, metavar="MS", help="warm-up of each in milliseconds (default 200; --quick a call)")
    timing.add_argument("--duration", type=float, metavar="S", help="seconds to measure each, at least (default 3; --quick 0)")
    timing.add_argument(
        "--exportTimes",
        type=Path,
        metavar="FILE",
        help="write every call: latencyMs with copies, computeMs without where that is measured",
    )
    for word in ("includeDataTransfers", "noDataTransfers"):
        timing.add_argument(f"--{word}", action="store_true", help="changes nothing: both figures are always there")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the report; docs/performance.md lists its fields")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write the table in Markdown")
    output.add_argument("--chart", type=Path, metavar="FILE", help="draw speed against parity, .svg or .png")
    return parser


def _options(given: argparse.Namespace) -> BenchOptions:
    quick, batch = given.quick, given.batch
    sizes = [size(text)[::-1] for text in given.size or [QUICK_SIZE if quick else "320x184"]]
    if given.shapes:
        found = SHAPES.fullmatch(given.shapes)
        if not found or given.size:
            raise InputError(f"--shapes is {given.shapes!r}, expected blurry:Nx5xHxW such as blurry:1x5x720x1280, and no --size")
        batch, *one = (int(number) for number in found.groups())
        sizes = [(one[0], one[1])]
    named = [*given.files, *given.more]
    specs = expand(named, given.on)
    files = [Path(parse(text).file) for text in named]
    model = next(filter(_runs_in_peers, files), None)
    peers = _peers(given.peers, quick)
    contract = read_contract(model) if model else _first_contract(files)
    if model is None and (peers or not specs) and (contract is None or _checkpoint(None, contract)):
        model = default_onnx()
        specs = specs or expand([str(model)], given.on)
        contract = read_contract(model)
    own_clip = given.clip or BLURRY
    return BenchOptions(
        subjects=tuple(specs),
        peers=peers,
        sizes=tuple(sizes),
        model=model,
        checkpoint=_checkpoint(given.checkpoint, contract),
        batch=batch,
        frames=contract.frames if contract else BenchOptions.frames,
        effort=Effort(
            given.iterations if given.iterations is not None else (3 if quick else 10),
            given.warmUp if given.warmUp is not None else (0 if quick else 200),
            given.duration if given.duration is not None else (0 if quick else 3),
            QUICK_ROUNDS if quick else math.inf,
        ),
        threads=given.threads,
        clip=own_clip,
        truth=given.truth or (None if given.clip else SHARP),
        windows=1 if quick else 4,
        video_frames=5 if quick else 20,
        video_rounds=1 if quick else 3,
        parts=tuple(given.parts),
        deadline=QUICK_DEADLINE if quick else math.inf,
    )


def _runs_in_peers(path: Path) -> bool:
    """An fp32 graph with float I/O, which every peer reads."""
    if path.suffix != ".onnx":
        return False
    contract = read_contract(path)
    return contract.io == "f32" and contract.precision == "fp32"


def _peers(named: Sequence[str] | None, quick: bool) -> tuple[str, ...]:
    if named == ["none"]:
        return ()
    if named is None or named == ["all"]:
        return QUICK_PEERS if quick and named is None else ALL_PEERS
    return tuple(named)


def _first_contract(files: Sequence[Path]) -> Contract | None:
    """Of the first of these models, engines and bundles that is in order; what is wrong with the others is told by their rows."""
    for path in files:
        with suppress(DeployError):
            members = [path / member.file for member in load_manifest(path).members] if path.is_dir() else [path]
            file = next(filter(Path.is_file, members), path)
            return load_record(file).contract if file.suffix in SUFFIXES else read_contract(file)
    return None


def _checkpoint(named: Path | None, contract: Contract | None) -> Path | None:
    """The checkpoint that the files came from; None when it is not the shipped one and none was named."""
    shipped = sorted((ROOT / "model" / "weights").glob("*.safetensors"))
    for path in [named] if named else shipped:
        if not path.is_file():
            raise InputError(f"{path}: no such checkpoint")
        if contract and file_sha256(path) == contract.checkpoint_sha256:
            return path
    if named and contract:
        raise InputError(f"the model was exported from another checkpoint than {named}: name that one")
    return None


if __name__ == "__main__":
    raise SystemExit(main())
