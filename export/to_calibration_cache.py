"""ranges.json -> a calibration cache in TensorRT's own text form, for those who build with --calib on TensorRT 8.6 to 10.

TensorRT 11 reads none, and this project's own builds put the scales into the graph. Reading one gives TensorRT implicit
quantisation: it then chooses by itself which layers run in INT8.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.ranges import Ranges
from calibration.scales import METHODS, ZERO_ABSMAX, known_scale
from runtime.command_line import command, quoted
from runtime.errors import InputError
from runtime.files.on_disk import partial_file

ALGORITHM = "EntropyCalibration2"  # trtexec's calibrator, and the usual one: TensorRT refuses the cache of another
LAST = 10  # TensorRT's major version that reads one


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, writes, prints how to use it."""
    parser = argparse.ArgumentParser(prog="videodeblur calibration-cache", description=__doc__)
    parser.add_argument("--ranges", type=Path, required=True, help="ranges.json, made by videodeblur calibrate")
    parser.add_argument("--output", type=Path, required=True, help="cache to write")
    parser.add_argument(
        "--version", default="8.6.0", help="version of the TensorRT that will read it, and no other (default %(default)s)"
    )
    parser.add_argument("--method", choices=METHODS, help="method of the scales (default: the one in the ranges)")
    given = parser.parse_args(argv)
    text = calibration_cache(Ranges.load(given.ranges), given.version, given.method)
    with partial_file(given.output) as partial:
        partial.write_text(text)
    build = quoted("trtexec", "--onnx=MODEL", "--int8", f"--calib={given.output}")
    print(f"wrote {given.output}, {len(text.splitlines()) - 1} tensors; next: {build}")
    return 0


def calibration_cache(ranges: Ranges, version: str, method: str | None = None) -> str:
    """The cache as text: a line that names version and algorithm, then a line for each tensor with its scale.

    The algorithm is the same whatever the method: the scales are ours. A scale is the float32 absmax / 127 as eight hexadecimal
    digits, the most significant first. Raises InputError on a version that reads no cache.
    """
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not found or int(found[1]) > LAST:
        raise InputError(f"the version is {version!r}, expected one of TensorRT 8 to {LAST}: 11 reads types from the graph only")
    major, minor, patch = (int(part) for part in found.groups())
    number = f"{major}{minor:02}{patch:02}" if major >= LAST else f"{major}{minor}{patch:02}"
    lines = [f"{name}: {struct.pack('>f', _scale(ranges, name, method)).hex()}" for name in ranges.tensors]
    return "\n".join([f"TRT-{number}-{ALGORITHM}", *lines]) + "\n"


def _scale(ranges: Ranges, name: str, method: str | None) -> float:
    tensor = ranges.tensors[name]
    if tensor.histogram is not None:
        return ranges.scale(name, "int8", method)
    return known_scale(max(tensor.extent.absmax, ZERO_ABSMAX))


if __name__ == "__main__":
    raise SystemExit(main())
