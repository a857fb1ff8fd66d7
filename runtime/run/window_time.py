"""`seconds_of_a_tile`: how long the network takes, measured."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engine import Engine
from runtime.run.tiling import Grid, TiledEngine

PROBES = 2  # timed runs of one tile, of which the faster counts; one more before them prepares the backend


def seconds_of_a_tile(engine: Engine, grid: Grid, window: npt.NDArray[Any], bits: int, color_range: str) -> float:
    """Seconds for one of the grid's tiles, from a window (1, F, H, W) of the video; a picture takes `grid.count` times as long."""
    height, width = grid.tile
    one = TiledEngine(engine, Grid(grid.tile, grid.tile, grid.halo))
    tile = np.ascontiguousarray(np.pad(window, [(0, 0)] * 2 + [(0, height), (0, width)], mode="edge")[..., :height, :width])
    times = []
    for _ in range(1 + PROBES):
        started = time.perf_counter()
        one.run(tile, bits, color_range)
        times.append(time.perf_counter() - started)
    return min(times[1:])
