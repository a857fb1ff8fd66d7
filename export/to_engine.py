"""Builds TensorRT and TensorRT-RTX engines from ONNX files, with trtexec's flags and without trtexec."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.compare.engine_measurement import measured_into_record
from export.engine.flags import parse_flags
from export.engine.monitor import Progress
from export.make_engine import MadeEngine, make_engine
from export.shipped_clips import DEFAULT_CLIP
from runtime.command_line import command
from runtime.files.engine_record import read_header, record_path


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, builds, prints what became of the types and what to do next."""
    request = parse_flags(argv)
    if isinstance(request, Path):
        print("{} {}".format(*read_header(request)))
        return 0
    for note in request.notes:
        _say(f"note: {note}")
    with _progress_line(request.engine.name) as progress:
        made = make_engine(request, progress, _say)
    if request.verbose:
        _say(made.log.read_text())
    print(summary(made, measured_into_record(made.engine, made.source, DEFAULT_CLIP)))
    return 0


def summary(made: MadeEngine, measured: str) -> str:
    """What was built and what it did here, as text."""
    record = made.record
    targets = (
        ", ".join(f"{major}.{minor}" for major, minor in record.compute_capabilities) or "any that the library runs on, from 8.0"
    )
    shapes = " or ".join(
        dict.fromkeys(f"{_shape(p.min)} to {_shape(p.max)}" if p.min != p.max else _shape(p.opt) for p in record.profiles)
    )
    types = ", ".join(f"{share:.1%} {name}" for name, share in record.type_shares.items()) or "types that were not read"
    rounded = " (TF32: inputs of fp32 convolutions may be rounded)" if record.tf32 and "fp32" in record.type_shares else ""
    lines = [
        f"{made.engine}: {made.engine.stat().st_size / 1e6:.1f} MB in {record.build_seconds:.1f} s"
        f" by {record.library} {record.version}",
        f"  for compute capability {targets}; input {shapes}",
        f"  convolution FLOPs run in {types}{rounded}",
        f"  {measured}",
        *(f"  note: {note}" for note in made.notes),
        f"  its record {record_path(made.engine).name}, and the library's log {made.log.name}, are beside it",
        f"next: videodeblur bundle --engine {made.engine} --onnx {made.source} --output {made.engine.with_suffix('.bundle')}",
    ]
    return "\n".join(lines)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def _progress_line(name: str) -> Iterator[Progress | None]:
    """One line, redrawn, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return

    def draw(share: float, phase: str) -> None:
        sys.stderr.write(f"\r{name}: {100 * share:3.0f} % {phase[:60]:60}")
        sys.stderr.flush()

    try:
        yield draw
    finally:
        sys.stderr.write("\r" + " " * (len(name) + 70) + "\r")


if __name__ == "__main__":
    raise SystemExit(main())
