"""`videodeblur fp16`: an fp32 ONNX file -> one in FP16, where tensors that came near FP16's limit on real clips stay fp32."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.collect_ranges import CollectOptions, collect
from calibration.ranges import Ranges
from export.compare.typed_file import TypedFile, load_fp32, report, write_typed
from export.graph.fp16_range import SAFE_SHARE, fp32_nodes, subnormal_weights
from export.graph.typed_graph import retype
from export.shipped_clips import DEFAULT_CLIP
from runtime.command_line import command, quoted
from runtime.files.on_disk import check_not_input
from runtime.progress import ProgressBar

SCANNED_WINDOWS = 4  # of the clip, where no ranges were measured beforehand


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, scans, writes, prints."""
    parser = argparse.ArgumentParser(prog="videodeblur fp16", description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="fp32 file of videodeblur export")
    parser.add_argument("--output", type=Path, required=True, help="FP16 file to write")
    parser.add_argument(
        "--ranges", type=Path, help="ranges.json of this file, made by videodeblur calibrate (default: scan the clip now)"
    )
    parser.add_argument("--clip", type=Path, default=DEFAULT_CLIP, help="video to scan and compare on (default: the shipped clip)")
    options = parser.parse_args(argv)
    if not options.ranges:
        advice = "; your own clips tell more: name them with --clip" if options.clip == DEFAULT_CLIP else ""
        print(f"no --ranges: scanning {SCANNED_WINDOWS} windows of {options.clip.name}{advice}", file=sys.stderr)
    found, kept = to_fp16(options.onnx, options.output, options.ranges, options.clip)
    print(report(found))
    for node, reason in kept.items():
        print(f"fp32: {node}: {reason}")
    build, run = quoted("videodeblur", "build", "--onnx", found.path), quoted("--model", found.path)
    print(f"next: {build}, or videodeblur run IN.mp4 OUT.mp4 {run}")
    return 0


def to_fp16(
    source: Path, output: Path, ranges: Path | None, clip: Path = DEFAULT_CLIP, maker: str = "videodeblur fp16"
) -> tuple[TypedFile, dict[str, str]]:
    """Writes the FP16 file; returns it and the nodes that stay fp32, each with its reason.

    Without `ranges` the tensors are measured on `clip` first. A tensor that reached SAFE_SHARE of FP16's largest number is made
    and read in fp32, and so is a weight beyond it. Inputs and outputs stay fp32, or codes. Raises ModelError when the ranges are
    of another file, and what `write_typed` raises.
    """
    check_not_input(output, source, ranges, clip)
    model, _ = load_fp32(source)
    measured = _scanned(source, clip) if ranges is None else Ranges.load(ranges)
    measured.check(model)
    kept = fp32_nodes(model, measured)
    typed = retype(model, "fp16", dict.fromkeys(kept, "fp32"))
    notes = {"fp32": kept, "safe_share": SAFE_SHARE, "subnormal_weights": subnormal_weights(typed)}
    notes |= {"maker": maker, "default": "fp16"}
    return write_typed(typed, source, output, "fp16", clip, notes), kept


def _scanned(source: Path, clip: Path) -> Ranges:
    with ProgressBar() as bar:
        return collect(CollectOptions(data=clip, onnx=source, windows=SCANNED_WINDOWS), bar)


if __name__ == "__main__":
    raise SystemExit(main())
