"""`TiledEngine`: large pictures in tiles without seams.

An output sample depends on input samples at most `Contract.receptive_field` pixels away. Tiles overlap by that halo and only what
is further from a tile's cut edges is kept, so the tiled result is the whole one, to the rounding of floats. Tiles start at
multiples of `Contract.multiple`, so that poolings see the same groups of pixels, and are all of one size, so that a backend
compiles for one shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.backends import CPU_BACKENDS
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.files.contract import Contract
from runtime.machine.memory import memory_at_hand
from runtime.pixels import padding
from runtime.run import network_memory
from runtime.run.options import DeblurOptions

if TYPE_CHECKING:  # so that those who only import this need no PyAV
    from runtime.video import VideoInfo

GB = 1_000_000_000  # bytes


@dataclass(frozen=True)
class Grid:
    """How a picture is cut into overlapping tiles of one size."""

    picture: tuple[int, int]  # height and width in pixels, padded to the model's multiple
    tile: tuple[int, int]  # the same of a tile, halos included
    halo: int  # pixels that a tile has beyond what is kept of it, at each cut edge

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return _count(self.picture[0], self.tile[0], self.halo)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return _count(self.picture[1], self.tile[1], self.halo)

    @property
    def count(self) -> int:
        """Tiles of a picture."""
        return self.rows * self.columns

    @property
    def pixels(self) -> int:
        """Pixels that are computed for a picture, halos included."""
        return self.count * self.tile[0] * self.tile[1]

    def __str__(self) -> str:
        if self.count == 1:
            return "whole"
        return f"{self.columns} x {self.rows} tiles of {self.tile[1]}x{self.tile[0]}"


class TiledEngine:
    """Runs an `Engine` tile by tile, with the same `run` and `contract`; it does not own the engine."""

    def __init__(self, engine: Engine, grid: Grid) -> None:
        self.contract, self.grid = engine.contract, grid
        self._engine = engine

    def run(self, window: npt.NDArray[Any], bits: int | None = None, color_range: str | None = None) -> npt.NDArray[Any]:
        """See `Engine.run`. Raises InputError too when the picture is not of the grid's size."""
        height, width = window.shape[-2:]
        if padding.padded_size(height, width, self.contract.multiple) != self.grid.picture:
            raise InputError(
                f"got {width}x{height} pixels, expected {self.grid.picture[1]}x{self.grid.picture[0]}: make another grid"
            )
        if self.grid.count == 1:
            return self._engine.run(window, bits, color_range)
        padded = padding.pad(window, self.contract.multiple)
        sharp = np.empty_like(padded)
        for read, kept in self._tiles():
            tile = self._engine.run(np.ascontiguousarray(padded[..., read[0], read[1]]), bits, color_range)
            rows, columns = (slice(keep.start - whole.start, keep.stop - whole.start) for keep, whole in zip(kept, read))
            sharp[..., kept[0], kept[1]] = tile[..., rows, columns]
        return np.ascontiguousarray(padding.crop(sharp, height, width))

    def submit(self, window: npt.NDArray[Any], bits: int | None = None, color_range: str | None = None) -> Future[npt.NDArray[Any]]:
        """See `Engine.submit`; a picture in several tiles is done when this returns, since its tiles fill the memory at hand."""
        if self.grid.count == 1:
            return self._engine.submit(window, bits, color_range)
        done: Future[npt.NDArray[Any]] = Future()
        done.set_result(self.run(window, bits, color_range))
        return done

    def _tiles(self) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
        """(what is read, what is kept) of every tile, rows and columns of the picture."""
        vertical, horizontal = (list(_cuts(*sizes, self.grid.halo)) for sizes in zip(self.grid.picture, self.grid.tile))
        for read_rows, kept_rows in vertical:
            for read_columns, kept_columns in horizontal:
                yield (read_rows, read_columns), (kept_rows, kept_columns)


def grid_for(options: DeblurOptions, info: VideoInfo, engine: Engine) -> Grid:
    """The tiles of the video's frames, as the options or the memory at hand say."""
    return chosen_grid(info.height, info.width, engine, options.tile, options.memory)


def chosen_grid(height: int, width: int, engine: Engine, tile: int | None, memory: float | None = None) -> Grid:
    """Tiles that keep `tile` x `tile` pixels, 0 = the whole picture, None = what fits into `memory` GB or what is at hand."""
    if tile is None:
        return fitting_grid(height, width, engine, None if memory is None else int(memory * GB))
    if tile == 0:
        return whole_grid(height, width, engine.contract)
    return square_grid(height, width, engine.contract, tile)


def whole_grid(height: int, width: int, contract: Contract) -> Grid:
    """The picture in one piece; in tiles of the model's size where that is fixed and smaller."""
    picture = padding.padded_size(height, width, contract.multiple)
    rows, columns = (
        padded if fixed in (None, length) else fixed  # a model of codes pads by itself
        for padded, fixed, length in zip(picture, (contract.height, contract.width), (height, width))
    )
    return _grid(picture, (rows, columns), contract)


def square_grid(height: int, width: int, contract: Contract, tile: int) -> Grid:
    """Tiles of which `tile` x `tile` pixels are kept, and up to a halo more at the edges of the picture.

    Raises InputError when the model is fixed at another size.
    """
    if tile < contract.multiple:
        raise InputError(f"the tile is {tile} pixels, expected {contract.multiple} or more, or 0 for none")
    side = tile // contract.multiple * contract.multiple + 2 * halo_of(contract)
    grid = _grid(padding.padded_size(height, width, contract.multiple), (side, side), contract)
    if (contract.height or contract.width) and grid != whole_grid(height, width, contract):
        fixed = f"{contract.width or 'any'}x{contract.height or 'any'}"
        raise InputError(f"the tiles would be {grid.tile[1]}x{grid.tile[0]}, this model is fixed at {fixed}: leave out the tile")
    return grid


def largest_grid(height: int, width: int, contract: Contract, pixels: int) -> Grid:
    """The grid with the least work whose tiles have at most so many pixels, halos included, for a model that takes any size.

    Raises InputError when even the smallest tile has more.
    """
    whole, halo = whole_grid(height, width, contract), halo_of(contract)
    rows, columns = (_sides(length, halo, contract.multiple) for length in whole.picture)
    grids = [_grid(whole.picture, (row, column), contract) for row in rows for column in columns if row * column <= pixels]
    if not grids:
        raise InputError(
            f"there is memory for {pixels} pixels at once, expected {rows[-1] * columns[-1]}, the smallest tile: end other"
            " programs, raise the limit of the container, or say a larger --memory"
        )
    return min(grids, key=lambda grid: (grid.pixels, grid.count))


def fitting_grid(height: int, width: int, engine: Engine, memory: int | None = None) -> Grid:
    """The least work within `memory` bytes for the network; None = half of what is at hand, or what the smallest tile takes.

    On a GPU, and where the system does not say what is at hand, the picture stays whole. A model that is fixed at a size has tiles
    of that size, whatever memory they take.
    """
    if engine.backend not in CPU_BACKENDS or engine.contract.height or engine.contract.width:
        return whole_grid(height, width, engine.contract)
    if memory is None:
        at_hand = memory_at_hand()
        if at_hand is None:
            return whole_grid(height, width, engine.contract)
        least = network_memory.bytes_for(_least_pixels(height, width, engine.contract), engine.contract, engine.precision)
        memory = max(least, int(at_hand * network_memory.SHARE))
    return largest_grid(height, width, engine.contract, network_memory.pixels_within(memory, engine.contract, engine.precision))


def _least_pixels(height: int, width: int, contract: Contract) -> int:
    """Of the smallest tile."""
    lengths = whole_grid(height, width, contract).picture
    rows, columns = (_sides(length, halo_of(contract), contract.multiple) for length in lengths)
    return rows[-1] * columns[-1]


def halo_of(contract: Contract) -> int:
    """The receptive field's radius, as the next multiple at which tiles may start."""
    return -(-contract.receptive_field // contract.multiple) * contract.multiple


def _grid(picture: tuple[int, int], tile: tuple[int, int], contract: Contract) -> Grid:
    halo = halo_of(contract)
    height, width = (min(side, length) for side, length in zip(tile, picture))
    for side, length in zip((height, width), picture):
        if side < length and side <= 2 * halo:
            raise InputError(
                f"a tile of {width}x{height} is all halo ({halo} pixels at each edge): export a model for a larger size"
            )
    return Grid(picture, (height, width), halo)


def _sides(length: int, halo: int, multiple: int) -> list[int]:
    """The sides of a tile worth looking at: the least for each number of tiles, from one tile to as many as there can be."""
    sides = [length]
    for count in range(2, max(2, (length - 2 * halo) // multiple + 1)):
        kept = -(-(length - 2 * halo) // count)
        sides.append(-(-kept // multiple) * multiple + 2 * halo)
    return sorted(set(sides), reverse=True)


def _count(length: int, tile: int, halo: int) -> int:
    return 1 if tile >= length else -(-(length - 2 * halo) // (tile - 2 * halo))


def _cuts(length: int, tile: int, halo: int) -> Iterator[tuple[slice, slice]]:
    """(what is read, what is kept) of every tile along one axis; the last is moved back to end where the picture does."""
    count, done = _count(length, tile, halo), 0
    for number in range(count):
        last = number == count - 1
        start = length - tile if last else number * (tile - 2 * halo)
        end = length if last else start + tile - halo
        yield slice(start, start + tile), slice(done, end)
        done = end
