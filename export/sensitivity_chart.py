"""A chart of how much each layer loses when it alone is quantised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import MissingPackageError
from runtime.machine.requirements import requirement

try:
    from matplotlib.figure import Figure
except ImportError as missing:
    raise MissingPackageError(requirement("matplotlib"), "drawing a chart") from missing

if TYPE_CHECKING:
    from export.search_precision import Sensitivity

COLOURS = {"chosen": "#1b7f5c", "candidate": "#d08a1d", "excluded": "#9aa0a6"}
MEANINGS = {"chosen": "quantised", "candidate": "left high by the budget", "excluded": "kept high by rule"}


def save_chart(path: Path, rows: Sequence[Sensitivity], min_psnr: float) -> None:
    """Writes horizontal bars, most sensitive layer on top; the suffix of `path` chooses SVG or PNG."""
    rows = sorted((row for row in rows if math.isfinite(row.parity)), key=lambda row: row.parity, reverse=True)
    figure = Figure(figsize=(9, 1.2 + 0.19 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh([row.layer for row in rows], [row.parity for row in rows], color=[COLOURS[_kind(row)] for row in rows])
    axes.axvline(min_psnr, color="#b3261e", linewidth=1)
    axes.set_xlim(left=min([min_psnr, *(row.parity for row in rows)]) - 5)
    axes.set_xlabel("parity with the fp32 graph when this layer alone is quantised, dB (the line: least parity of the whole)")
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    handles = [axes.barh([0], [0], color=colour, label=MEANINGS[kind]) for kind, colour in COLOURS.items()]
    axes.legend(handles=handles, loc="upper right", fontsize=8)
    figure.savefig(path)


def _kind(row: Sensitivity) -> str:
    return "chosen" if row.chosen else "excluded" if row.excluded else "candidate"
