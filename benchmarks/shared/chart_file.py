"""Writes matplotlib's figures as files: no display is needed, and the same figures give the same small SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("agg")
matplotlib.rcParams.update({"svg.hashsalt": "videodeblur", "svg.fonttype": "none"})


def save(figure: Figure, path: Path) -> None:
    """The suffix chooses the format."""
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
