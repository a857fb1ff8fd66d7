"""The project's goals on a CPU, each with what was measured: sentences for docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.roofline import ALL, Roofline
from benchmarks.table.report import FEWEST, BenchReport, Ratio, Row
from runtime.files.contract import MIN_PARITY

END_TO_END = {"bf16": 5.5, "int8": 7.0}  # times as fast as the naive script, on a CPU with AMX
INT8_OVER_BF16 = 1.6
DEFAULT_RUN = {"avx2": 8.0, "avx512": 10.0}  # times as fast as the naive script with the paper's network, by class of CPU


@dataclass(frozen=True)
class Goal:
    """One goal."""

    text: str
    found: str  # the figure, with its spread where it has one
    met: bool


def goals(report: BenchReport, roofline: Roofline, model: str, int8: str) -> list[Goal]:
    """What the largest size of the report and the roofline say of `model` in bf16 and of `int8`, file names both.

    Goals whose rows were not measured are left out.
    """
    most = max((row.height * row.width for row in report.rows), default=0)
    rows = [row for row in report.rows if row.height * row.width == most]
    named = {"bf16": _row(rows, f"{model}@openvino:bf16"), "int8": _row(rows, f"{int8}@openvino:bf16")}
    found = [goal for word, row in named.items() if row for goal in (_end_to_end(word, row), _parity(word, row)) if goal]
    found += _ahead(rows)
    bf16, quantised = named["bf16"], named["int8"]
    if bf16 and quantised and (times := quantised.over(bf16)):
        text = f"INT8 at least {INT8_OVER_BF16} times as fast as bf16"
        found.append(Goal(text, str(times), times.median >= INT8_OVER_BF16))
    whole = next((row for row in roofline.rows if row.group == ALL and row.profile == f"{model}@openvino:bf16"), None)
    if whole and "bf16" in roofline.peak_tflops:
        peak = roofline.peak_tflops["bf16"]
        words = f"{whole.tflops:.2f} of {peak:.2f} TFLOP/s"
        found.append(Goal("the whole network in bf16 at the rate of the best matrix product", words, whole.tflops >= peak))
    return found


def default_run(cpu_class: str, width: int, height: int, times: Ratio) -> list[Goal]:
    """How much faster the default should be than a script with the paper's network; nothing for a class without a goal."""
    if cpu_class not in DEFAULT_RUN:
        return []
    least = DEFAULT_RUN[cpu_class]
    text = (
        f"the default, a video of {width}x{height} end to end: {least:g} times as fast as the naive script with the paper's network"
    )
    return [Goal(text, str(times), times.median >= least)]


def markdown(found: Sequence[Goal]) -> str:
    """The goals as a table."""
    lines = ["| goal | measured | |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {goal.text} | {goal.found} | {'met' if goal.met else 'not met'} |" for goal in found)])


def _row(rows: Sequence[Row], name: str) -> Row | None:
    return next((row for row in rows if row.name == name), None)


def _end_to_end(word: str, row: Row) -> Goal | None:
    ratio = row.times_as_fast_end_to_end
    if ratio is None:
        return None
    text = f"{word}, a video of {row.width}x{row.height} end to end: {END_TO_END[word]} times as fast as the naive script"
    return Goal(text, str(ratio), ratio.median >= END_TO_END[word])


def _parity(word: str, row: Row) -> Goal | None:
    if row.parity_db is None:
        return None
    return Goal(
        f"{word}: parity of at least {MIN_PARITY[word]:.0f} dB", f"{row.parity_db:.1f} dB", row.parity_db >= MIN_PARITY[word]
    )


def _ahead(rows: Sequence[Row]) -> list[Goal]:
    """In each class of parity, the fastest file against the peer that does best beside it in the same rounds; a tie is met: a
    spread of the rounds' ratios that reaches 1."""
    found = []
    for word in ("fp32", "bf16", "int8"):
        fit = [row for row in rows if row.latency_ms and row.parity_db is not None and row.parity_db >= MIN_PARITY[word]]
        ours, peers = ([row for row in fit if row.kind == kind] for kind in ("engine", "peer"))
        first = min(ours, key=lambda row: row.latency_ms.median if row.latency_ms else 0, default=None)
        beside = [(times, peer.name) for peer in peers if first and (times := first.over(peer))]
        if first and beside:
            times, name = min(beside, key=lambda pair: pair[0].median)
            text = f"no peer ahead beyond the rounds' spread at {MIN_PARITY[word]:.0f} dB of parity or more"
            most = times.p90 if times.rounds >= FEWEST["p90"] else times.median
            found.append(Goal(text, f"{first.name} {times} times as fast as {name}", most >= 1))
    return found
