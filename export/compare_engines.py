"""Compares the records of two engines: what got slower, larger or less exact from the old one to the new one.

videodeblur compare old.engine new.engine --slower 10 --larger 20 --less-exact 1

Time, memory and exactness are in the records of engines that ran where they were built or adopted: `videodeblur adopt` measures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import USER_ERROR, command
from runtime.errors import InputError
from runtime.files.engine_record import EngineRecord, Measured, load_record

MIB = 1 << 20
LOW_TYPES = ("fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True)
class Limits:
    """How much worse is a regression."""

    slower: float = 5.0  # percent of the milliseconds
    larger: float = 10.0  # percent of the memory, and of the file
    less_exact: float = 0.5  # dB
    slower_build: float = 100.0  # percent of the seconds
    types: float = 1.0  # percent points of the convolutions' arithmetic in less than fp32

    def __post_init__(self) -> None:
        """Raises InputError below 0, and on NaN."""
        for name, limit in vars(self).items():
            if not limit >= 0:
                raise InputError(f"the limit {name.replace('_', ' ')} is {limit:g}, expected 0 or more")


@dataclass(frozen=True)
class Row:
    """One quantity of both engines."""

    what: str
    old: str
    new: str
    change: str
    verdict: str  # "" where it is no worse
    regression: bool = False


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, compares, prints; status 1 on a regression."""
    given = _parser().parse_args(argv)
    limits = Limits(given.slower, given.larger, given.less_exact, given.slower_build, given.types)
    rows = compare(given.old, given.new, limits)
    print(table(given.old, given.new, rows))
    return USER_ERROR if any(row.regression for row in rows) else 0


def compare(old: Path, new: Path, limits: Limits) -> tuple[Row, ...]:
    """A row for each quantity. Raises ModelError where a record is missing or damaged, InputError where the networks differ."""
    before, after = load_record(old), load_record(new)
    for name in ("checkpoint_sha256", "io", "frames"):
        if getattr(before.contract, name) != getattr(after.contract, name):
            raise InputError(f"{old} and {new} are of different networks (their {name} differs): compare engines of one")
    return tuple(_rows(before, after, old.stat().st_size, new.stat().st_size, limits))


def table(old: Path, new: Path, rows: Sequence[Row]) -> str:
    """The rows as text, and what they come to."""
    lines = [f"old: {old}", f"new: {new}", f"{'':16}{'old':>12}{'new':>12}{'change':>10}"]
    lines += [f"{row.what:16}{row.old:>12}{row.new:>12}{row.change:>10}  {row.verdict}".rstrip() for row in rows]
    worse = [row.what for row in rows if row.regression]
    left_out = [row.what for row in rows if not row.change]
    if left_out:
        lines.append(f"not compared: {', '.join(left_out)}; videodeblur adopt ENGINE --like ONNX measures an engine where it runs")
    lines.append(f"worse: {', '.join(worse)}" if worse else "nothing that was compared is worse by more than its limit")
    return "\n".join(lines)


def _rows(old: EngineRecord, new: EngineRecord, old_size: int, new_size: int, limits: Limits) -> Iterator[Row]:
    was, now = old.measured, new.measured
    alike = _unlike(was, now)
    times = [measured and measured.milliseconds for measured in (was, now)]
    yield _grown("time, ms", *times, limits.slower, "slower", alike)
    memory = [measured and measured.device_memory / MIB for measured in (was, now)]
    yield _grown("GPU memory, MiB", *memory, limits.larger, "larger", alike)
    yield _exactness(was, now, limits.less_exact)
    shapes = "" if old.profiles == new.profiles else "built for other shapes"
    yield _grown("file, MB", old_size / 1e6, new_size / 1e6, limits.larger, "larger", shapes)
    builds = [record.build_seconds or None for record in (old, new)]
    yield _grown("build, s", *builds, limits.slower_build, "slower", shapes)
    yield _lowered(old, new, limits.types)


def _unlike(was: Measured | None, now: Measured | None) -> str:
    """Why two measurements say nothing about the engines; empty where they do."""
    if was and now and was.gpu != now.gpu:
        return f"measured on {was.gpu} and {now.gpu}"
    return "measured on other shapes" if was and now and was.shape != now.shape else ""


def _grown(what: str, old: float | None, new: float | None, limit: float, word: str, unlike: str) -> Row:
    told = [_number(value) for value in (old, new)]
    if old is None or new is None:
        return Row(what, *told, "", "not measured")
    if unlike or not old:
        return Row(what, *told, "", unlike)
    percent = 100 * (new / old - 1)
    worse = percent > limit
    return Row(what, *told, f"{percent:+.1f} %", f"{word} by more than {limit:g} %" if worse else "", worse)


def _exactness(was: Measured | None, now: Measured | None, limit: float) -> Row:
    decibels = [measured.parity if measured else None for measured in (was, now)]
    told = [_number(value) for value in decibels]
    old, new = decibels
    if was is None or now is None or old is None or new is None:
        return Row("parity, dB", *told, "", "not measured")
    if was.reference_sha256 != now.reference_sha256:
        return Row("parity, dB", *told, "", "held to different ONNX files")
    worse = old - new > limit
    return Row("parity, dB", *told, f"{new - old:+.2f} dB", f"less exact by more than {limit:g} dB" if worse else "", worse)


def _lowered(old: EngineRecord, new: EngineRecord, limit: float) -> Row:
    """The share of the arithmetic in less than fp32: a builder that falls back is slower, and nothing else tells without a GPU."""
    before, after = (100 * sum(record.type_shares.get(word, 0.0) for word in LOW_TYPES) for record in (old, new))
    if not (old.type_shares and new.type_shares):
        return Row("below fp32, %", "-", "-", "", "types were not read")
    worse = before - after > limit
    verdict = f"less by more than {limit:g} points" if worse else ""
    return Row("below fp32, %", f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f}", verdict, worse)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodeblur compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="engine with its record, held to be right")
    parser.add_argument("new", type=Path, metavar="NEW", help="engine that is compared with it")
    for flag, unit, text in (
        ("slower", "PERCENT", "more time for a window"),
        ("larger", "PERCENT", "more memory of the GPU, or a larger file,"),
        ("less-exact", "DB", "lower parity on golden frames"),
        ("slower-build", "PERCENT", "more time to build"),
        ("types", "POINTS", "less of the convolutions' arithmetic below fp32"),
    ):
        default = getattr(Limits, flag.replace("-", "_"))
        parser.add_argument(
            f"--{flag}", type=float, default=default, metavar=unit, help=f"{text} than this is a regression (default %(default)g)"
        )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
