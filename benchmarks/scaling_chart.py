"""A `Scaling` as four panels: the cost of a pixel by resolution, batch, stride and threads."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.scaling import AXES, Scaling
from benchmarks.shared.chart_file import save

LABELS = {"resolution": "resolution", "batch": "windows in a call", "stride": "frames between windows", "threads": "threads"}


def save_chart(found: Scaling, path: Path) -> None:
    """Writes it; the suffix chooses the format."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(AXES)), AXES):
        points = [point for point in found.points if point.axis == axis]
        places = range(len(points))
        shown = [(point.cost - point.low, point.high - point.cost) if point.has_spread else (0.0, 0.0) for point in points]
        axes.errorbar(places, [point.cost for point in points], yerr=[*zip(*shown)], marker="o", capsize=3)
        axes.set_xticks(places, [point.setting for point in points], rotation=45 if axis == "resolution" else 0, fontsize=7)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(LABELS[axis], fontsize=8)
        axes.set_title("us for a pixel of a " + ("frame" if axis == "stride" else "window"), fontsize=8)
        axes.tick_params(axis="y", labelsize=7)
    figure.suptitle(f"{found.cpu}; {found.engine.partition(':')[0]}", fontsize=8)
    save(figure, path)
