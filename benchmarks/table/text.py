"""A `BenchReport` as text for a terminal, as Markdown, and as a chart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.table.report import FEWEST, BenchReport, Ratio, Row, Spread

NOTE = "latency: numpy in, numpy out, with all copies; compute: without them"
COLOURS = {"engine": "tab:blue", "peer": "tab:grey"}
ROW_HEIGHT = 0.32  # inches


class Column(NamedTuple):
    """One figure of a row."""

    title: str
    text: Callable[[Row], str]


def table(report: BenchReport) -> str:
    """The report as aligned text."""
    columns = columns_of(report)
    cells = [[column.title for column in columns], *([column.text(row) for column in columns] for row in report.rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    lines = [f"{report.cpu}; load {report.load[0]:.1f} to {report.load[1]:.1f}; parity with {report.reference}"]
    for line in cells:
        first, *rest = (text.ljust(width) if at == 0 else text.rjust(width) for at, (text, width) in enumerate(zip(line, widths)))
        lines.append("  ".join([first, *rest]))
    if report.baseline:
        lines.append(f"{NOTE}; x: times as fast as {report.baseline} (p10 to p90), end to end as the naive script")
    return "\n".join([*lines, *skipped(report)])


def markdown(report: BenchReport) -> str:
    """The report as a Markdown table, with a line above that names the machine."""
    columns = columns_of(report)
    lines = [
        f"{report.cpu}; load average {report.load[0]:.1f} before, {report.load[1]:.1f} after; "
        + ", ".join(f"{name} {version}" for name, version in report.libraries.items())
        + f". Parity is with {report.reference}"
        + (f", x how many times as fast as {report.baseline}." if report.baseline else "."),
        "",
        "| " + " | ".join(column.title for column in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(column.text(row) for column in columns) + " |" for row in report.rows]
    missing = skipped(report)
    return "\n".join([*lines, *(["", "Not measured here:", *(f"- {text}" for text in missing)] if missing else [])])


def save_chart(report: BenchReport, path: Path) -> None:
    """Writes bars of the engine's frames a second, named with their parity; the suffix chooses the format."""
    from benchmarks.shared.chart_file import Figure, save  # matplotlib, where a chart is wanted

    sizes = list(dict.fromkeys((row.width, row.height) for row in report.rows if row.fps_engine))
    tallest = max((sum((row.width, row.height) == size for row in report.rows) for size in sizes), default=1)
    figure = Figure(figsize=(9, 1.2 + ROW_HEIGHT * tallest * max(1, len(sizes))), layout="constrained")
    panels = figure.subplots(max(1, len(sizes)), 1, squeeze=False)[:, 0]
    for axes, size in zip(panels, sizes):
        rows = [row for row in report.rows if (row.width, row.height) == size and row.fps_engine][::-1]
        bars = axes.barh([row.name for row in rows], [row.fps_engine for row in rows], color=[COLOURS[row.kind] for row in rows])
        words = [f"{row.fps_engine:.1f}" + ("" if row.parity_db is None else f", {row.parity_db:.0f} dB") for row in rows]
        axes.bar_label(bars, words, padding=3, fontsize=8)
        axes.margins(x=0.2)
        axes.tick_params(labelsize=8)
        axes.set_xlabel(f"frames a second at {size[0]}x{size[1]}, and parity with {report.reference}", fontsize=8)
    figure.suptitle(report.cpu, fontsize=9)
    save(figure, path)


def skipped(report: BenchReport) -> list[str]:
    """What was not measured, and why; what is the same at several sizes is said once."""
    return list(dict.fromkeys(f"skipped: {each.name.rpartition('/')[2]}: {each.reason}" for each in report.skipped))


def columns_of(report: BenchReport) -> list[Column]:
    """The columns that a row of this report fills."""
    many = len({(row.width, row.height, row.batch) for row in report.rows}) > 1
    all_columns = [
        Column("", lambda row: row.name),
        *([Column("size", lambda row: f"{row.batch}x{row.width}x{row.height}")] if many else []),
        Column("parity dB", lambda row: _number(row.parity_db, 1)),
        Column("loss dB", lambda row: _number(row.loss_db, 3)),
        Column("latency ms", lambda row: _spread(row.latency_ms, "median")),
        Column("p90", lambda row: _spread(row.latency_ms, "p90")),
        Column("p99", lambda row: _spread(row.latency_ms, "p99")),
        Column("calls", lambda row: str(row.latency_ms.calls) if row.latency_ms else "-"),
        Column("compute ms", lambda row: _spread(row.compute_ms, "median")),
        Column("x", lambda row: _ratio(row.times_as_fast)),
        Column("fps engine", lambda row: _number(row.fps_engine, 1)),
        Column("fps end to end", lambda row: _number(row.fps_end_to_end, 1)),
        Column("x end to end", lambda row: _ratio(row.times_as_fast_end_to_end)),
        Column("peak MB", lambda row: _number(row.peak_memory_mb, 0)),
        Column("cold start s", lambda row: _number(row.cold_start_s, 1)),
        Column("file MB", lambda row: _number(row.file_mb, 1)),
    ]
    return [column for column in all_columns if not report.rows or any(column.text(row) != "-" for row in report.rows)]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # the sum turns -0.0 into 0.0


def _spread(spread: Spread | None, field: str) -> str:
    enough = spread is not None and spread.calls >= FEWEST.get(field, 1)
    return _number(getattr(spread, field) if enough else None, 1)


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)
