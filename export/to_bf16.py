"""`videodeblur bf16`: an fp32 ONNX file -> one in BF16, which has FP32's range and 8 bits of precision."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.compare.typed_file import TypedFile, load_fp32, report, write_typed
from export.graph.typed_graph import retype
from export.shipped_clips import DEFAULT_CLIP
from runtime.command_line import command, quoted
from runtime.files.on_disk import check_not_input


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, writes, prints."""
    parser = argparse.ArgumentParser(prog="videodeblur bf16", description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, help="fp32 file of videodeblur export")
    parser.add_argument("--output", type=Path, required=True, help="BF16 file to write")
    parser.add_argument("--clip", type=Path, default=DEFAULT_CLIP, help="video to compare on (default: the shipped clip)")
    options = parser.parse_args(argv)
    found = to_bf16(options.onnx, options.output, options.clip)
    print(report(found))
    build, run = quoted("videodeblur", "build", "--onnx", found.path), quoted("--model", found.path)
    print(f"next: {build}, or videodeblur run IN.mp4 OUT.mp4 {run}")
    return 0


def to_bf16(source: Path, output: Path, clip: Path = DEFAULT_CLIP, maker: str = "videodeblur bf16") -> TypedFile:
    """Writes the BF16 file. Inputs and outputs stay fp32, or codes. No range can overflow. Raises what `write_typed` raises."""
    check_not_input(output, source, clip)
    model, _ = load_fp32(source)
    return write_typed(retype(model, "bf16"), source, output, "bf16", clip, {"maker": maker, "default": "bf16"})


if __name__ == "__main__":
    raise SystemExit(main())
