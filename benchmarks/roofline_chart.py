"""A `Roofline` as the usual chart: attained rate against arithmetic intensity, under the machine's measured roofs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.roofline import Roofline
from benchmarks.shared.chart_file import save

MARKERS = "osD^v*"
INTENSITIES = np.logspace(0, 4, 100)  # operations a byte


def save_chart(roofline: Roofline, path: Path) -> None:
    """Writes it; the suffix chooses the format."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for kind, rate in roofline.best_tflops.items():
        roof = np.minimum(rate, INTENSITIES * roofline.copy_gb_s / 1000)
        axes.loglog(INTENSITIES, roof, color="black", linewidth=0.8)
        axes.annotate(f"{kind} {rate:.2f}", (INTENSITIES[-1], rate), ha="right", va="bottom", fontsize=8)
    groups = list(dict.fromkeys(row.group for row in roofline.rows))
    profiles = list(dict.fromkeys(row.profile for row in roofline.rows))
    for row in roofline.rows:
        if not row.megabytes:
            continue
        axes.plot(
            1000 * row.gflop / row.megabytes,
            row.tflops,
            MARKERS[profiles.index(row.profile) % len(MARKERS)],
            color=f"C{groups.index(row.group)}",
            markersize=3 + 9 * (row.milliseconds / max(each.milliseconds for each in roofline.rows)) ** 0.5,
        )
    for number, group in enumerate(groups):
        axes.plot([], [], "o", color=f"C{number}", label=group)
    for number, profile in enumerate(profiles):
        axes.plot([], [], MARKERS[number % len(MARKERS)], color="grey", label=profile)
    axes.legend(fontsize=8)
    axes.set_xlabel("operations for each byte moved (area: time)")
    axes.set_ylabel("10^12 operations a second")
    axes.set_title(f"one window of {roofline.width}x{roofline.height}, {roofline.cpu}", fontsize=9)
    save(figure, path)
