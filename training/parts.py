"""Cuts a file into parts of at most 16 MB and joins them, for places that refuse larger files.

python -m training.parts split network.safetensors
python -m training.parts join network.safetensors.part00
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import command
from runtime.errors import InputError
from runtime.files.on_disk import partial_file

PART = 16_000_000  # bytes
SUM_SUFFIX = ".sha256"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, splits or joins, prints the files."""
    parser = argparse.ArgumentParser(prog="training.parts", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("split", "join"), help="cut the file, or join its parts")
    parser.add_argument("file", type=Path, help="whole file, or its first part")
    arguments = parser.parse_args(argv)
    made = split(arguments.file) if arguments.action == "split" else [join(arguments.file)]
    print("\n".join(map(str, made)))
    return 0


def split(file: Path, size: int = PART) -> list[Path]:
    """Writes <file>.part00, .part01, ... and <file>.sha256 beside the file, and returns them."""
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    content = file.read_bytes()
    made = []
    for number, start in enumerate(range(0, len(content), size)):
        made.append(file.with_name(f"{file.name}.part{number:02d}"))
        made[-1].write_bytes(content[start : start + size])
    checksum = file.with_name(file.name + SUM_SUFFIX)
    checksum.write_text(f"{hashlib.sha256(content).hexdigest()}  {file.name}\n")
    return [*made, checksum]


def join(first: Path) -> Path:
    """Writes the whole file beside its parts. Raises InputError, and writes nothing, when its checksum is another."""
    whole = first.with_name(first.name.rpartition(".part")[0])
    checksum = whole.with_name(whole.name + SUM_SUFFIX)
    if not first.name.endswith(".part00") or not first.is_file() or not checksum.is_file():
        raise InputError(f"{first}: expected the first part, <file>.part00, with {SUM_SUFFIX[1:]} and the other parts beside it")
    content = b"".join(part.read_bytes() for part in sorted(first.parent.glob(f"{whole.name}.part[0-9][0-9]")))
    if hashlib.sha256(content).hexdigest() != checksum.read_text().split()[0]:
        raise InputError(f"the parts of {whole} do not make the file that {checksum.name} describes: copy them all again")
    with partial_file(whole) as partial:
        partial.write_bytes(content)
    return whole


if __name__ == "__main__":
    raise SystemExit(main())
