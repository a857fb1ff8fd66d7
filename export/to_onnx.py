"""`videodeblur export`: a checkpoint -> an ONNX file, compared with the PyTorch network on a real clip."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.compare.parity import Parity
from export.export_options import (
    CODE_BITS,
    DEFAULT_MATRIX,
    DEFAULT_REWRITES,
    IO_KINDS,
    MATRICES,
    OPSETS,
    PROGRAMS,
    REWRITES,
    ExportOptions,
)
from export.shipped_clips import DEFAULT_CLIP
from runtime.command_line import clean_up_when_stopped, command, quoted
from runtime.errors import InputError, MissingPackageError
from runtime.files.contract import MIN_PARITY
from runtime.machine.requirements import requirement
from runtime.pixels.sample_codes import RANGES

if TYPE_CHECKING:
    from export.network.exporter import ExportResult
    from export.network.nvencc import NvenccResult

PACKAGES = ("torch", "safetensors", "onnx", "onnxscript", "onnxruntime", "av")  # that exporting needs, each a module of that name

EPILOG = """
The network is variant I5T3 unless a checkpoint says otherwise. Without sizes, the file takes any number of windows, and any
height and width in multiples of 8; with --io u8 or u16, any height and width from 5 on, padded and cropped inside the graph.
u16 codes travel as byte pairs (N, F, H, W, 2), the low byte first, since TensorRT takes no uint16.
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = _parser().parse_args(argv)
    if arguments.checkpoint and arguments.checkpoint_option:
        raise InputError(f"got the checkpoints {arguments.checkpoint} and {arguments.checkpoint_option}, expected one")
    options = ExportOptions(
        checkpoint=arguments.checkpoint or arguments.checkpoint_option,
        variant=arguments.variant,
        random_weights=arguments.random_weights,
        output=arguments.output,
        opset=arguments.opset,
        batch=arguments.batch,
        height=arguments.height,
        width=arguments.width,
        io=arguments.io,
        bits=arguments.bits,
        color_range=arguments.range,
        rewrites=arguments.rewrites,
        clip=arguments.clip,
        program=arguments.program,
        matrix=arguments.matrix,
    )
    clean_up_when_stopped()
    _need_packages()
    if options.program:
        from export.network.nvencc import export_for_nvencc  # here, so that options and help need none of PACKAGES

        _report_nvencc(export_for_nvencc(options, _say))
        return 0
    from export.network.exporter import export_onnx  # here, so that options and help need none of PACKAGES

    _report(export_onnx(options, _say))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="videodeblur export", description=__doc__.splitlines()[0], epilog=EPILOG)
    add = parser.add_argument
    add(
        "checkpoint",
        nargs="?",
        type=Path,
        help="checkpoint: .safetensors of this project, or a .pth state dictionary; default: the shipped one",
    )
    add("--checkpoint", dest="checkpoint_option", type=Path, metavar="CHECKPOINT", help="checkpoint, by a flag")
    add("--variant", help="network of the paper's tables, such as I3T1; the checkpoint must hold it")
    add(
        "--random-weights",
        action="store_true",
        help="take no checkpoint, to study a variant's structure and speed; it sharpens nothing",
    )
    add("-o", "--output", type=Path, help="ONNX file to write; default: the checkpoint's name in this folder")
    add("--opset", type=int, default=OPSETS[0], help=f"opset of the file: {OPSETS[0]}, or 17 for TensorRT 8.6; default {OPSETS[0]}")
    add("--batch", type=int, metavar="N", help="fix the number of windows")
    add("--height", type=int, metavar="PIXELS", help="fix the height, together with --width")
    add("--width", type=int, metavar="PIXELS", help="fix the width, together with --height")
    add(
        "--io",
        choices=IO_KINDS,
        default=IO_KINDS[0],
        help="input and output: float luma in [0, 1], or 8- or 16-bit sample codes; default f32",
    )
    add("--bits", type=int, help=f"depth of the codes; default {CODE_BITS['u8']} for u8, {CODE_BITS['u16']} for u16, at most 16")
    add("--range", choices=RANGES, help="range of the codes; default limited")
    add(
        "--rewrites",
        type=_rewrites,
        default=DEFAULT_REWRITES,
        metavar="NAMES",
        help=f"exact rewrites of the network: none, all, or some of {','.join(REWRITES)}; default {','.join(DEFAULT_REWRITES)}",
    )
    add(
        "--for",
        dest="program",
        choices=PROGRAMS,
        help="program that takes another form: NVEncC's --vpp-onnx gets RGB of all frames in, RGB of the middle one out",
    )
    add("--matrix", choices=MATRICES, help=f"luma of the RGB that NVEncC gives, its colormatrix; default {DEFAULT_MATRIX}")
    add("--clip", type=Path, default=DEFAULT_CLIP, help="video to compare on; default: a shipped one")
    return parser


def _rewrites(text: str) -> tuple[str, ...]:
    return {"none": (), "all": REWRITES}.get(text, tuple(text.split(",")))


def _need_packages() -> None:
    missing = [requirement(name) for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingPackageError("' '".join(missing), "exporting to ONNX")


def _report(result: ExportResult) -> None:
    contract = result.contract
    size = f"{contract.height}x{contract.width}" if contract.height else "any size"
    print(
        f"{result.path}: {result.path.stat().st_size / 1e6:.1f} MB, opset {result.opset}, {contract.io}, {contract.frames} frames,"
        f" {size}, receptive field {contract.receptive_field} pixels, {result.seconds:.0f} s"
    )
    if result.note:
        print(f"note: {result.note}")
    if contract.checkpoint_sha256.startswith("none"):
        print(f"weights: {contract.checkpoint_sha256}; its output is not a sharp video")
    count, _, height, width = result.windows
    print(f"parity with the PyTorch network in fp32, on {count} windows of {height}x{width}:")
    for parity in result.parities:
        print(_parity_line(parity, contract.bits is not None))
    if not any(parity.backend == "openvino" for parity in result.parities):
        print(f"  openvino: not installed, not measured; often faster on a CPU: pip install '{requirement('openvino')}'")
    print(f"next: {quoted('videodeblur', 'run', 'blurry.mp4', 'sharp.mp4', '--model', result.path)}")


def _report_nvencc(result: NvenccResult) -> None:
    contract, agreement = result.inside.contract, result.agreement
    count, _, _, height, width = agreement.windows
    size = f"{height}x{width}" if contract.height else "any size"
    megabytes = result.path.stat().st_size / 1e6
    print(
        f"{result.path}: {megabytes:.1f} MB, opset {result.inside.opset}, {result.matrix} RGB of {contract.frames} frames in, 1"
        f" out, {size}, {result.seconds:.0f} s"
    )
    print(
        f"the middle frame on {count} windows of {height}x{width}: {agreement.differing} of {agreement.samples} codes of 8 bits"
        f" differ from the luma path, by at most {agreement.most}"
    )
    print(f"listed as {result.name} in {result.path.with_name('models.json')}")
    folder, model = result.path.absolute().parent, f"model={result.name},colormatrix={result.matrix}"
    print(f"next: {quoted('NVEncC', '-i', 'in.mp4', '--vpp-onnx-model-dir', folder, '--vpp-onnx', model, '-o', 'sharp.mp4')}")


def _say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


def _parity_line(parity: Parity, codes: bool) -> str:
    line = f"  {parity.backend} {parity.precision}: {parity.decibels:.1f} dB"
    if codes:
        return f"{line}, {parity.differing} of {parity.samples} codes differ"
    required = MIN_PARITY.get(parity.precision, 0.0)
    return f"{line} ({'at least' if parity.decibels >= required else 'UNDER'} {required:.0f})"


if __name__ == "__main__":
    raise SystemExit(main())
