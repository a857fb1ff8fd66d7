"""A `BenchReport` as a chart: frames a second against parity, a panel for each size."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.shared.chart_file import save
from benchmarks.table.report import BenchReport

COLOURS = {"engine": "tab:blue", "peer": "tab:grey"}
ROW_HEIGHT = 0.32  # inches


def save_chart(report: BenchReport, path: Path) -> None:
    """Writes bars of the engine's frames a second, named with their parity; the suffix chooses the format."""
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
