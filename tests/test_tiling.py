"""Tiled equals whole: the grid's arithmetic exhaustively, and a real network whose receptive field is the shipped one's."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from signed import save_signed
from video_clips import Clip, read, same

from runtime import Engine, InputError
from runtime.deblur_video import main
from runtime.pixels import padding
from runtime.run.tiling import TiledEngine, fitting_grid, halo_of, largest_grid, square_grid, whole_grid

CONTRACT = SimpleNamespace(frames=5, multiple=8, receptive_field=158, height=None, width=None, batch=None)


class Blur:
    """A box filter of a given radius after a pooling of 2 x 2, at the picture's edges as convolutions do it: a small network."""

    def __init__(self, radius, contract):
        self.radius, self.contract, self.shapes = radius, contract, set()

    def run(self, window, bits=None, color_range=None):
        self.shapes.add(window.shape)
        shown, window = window.shape[-2:], padding.pad(window, self.contract.multiple)
        height, width = window.shape[-2:]
        pooled = window.reshape(5, height // 2, 2, width // 2, 2).max((2, 4)).repeat(2, 1).repeat(2, 2)
        reach = self.radius - 1  # a pooled pixel is up to one further away
        for axis in (1, 2):
            sums = np.cumsum(np.pad(pooled, [(0, 0)] + [(reach + 1, reach) if n == axis else (0, 0) for n in (1, 2)]), axis)
            length = 2 * reach + 1
            pooled = np.take(sums, range(length, sums.shape[axis]), axis) - np.take(sums, range(sums.shape[axis] - length), axis)
        return padding.crop(pooled[None], *shown)


@pytest.mark.parametrize("size", [(8, 8), (40, 64), (47, 63), (120, 33)])
@pytest.mark.parametrize("tile", [8, 16, 24, 40])
def test_every_grid_gives_the_whole(size, tile):
    contract = SimpleNamespace(**{**vars(CONTRACT), "receptive_field": 6})
    window = np.random.default_rng(0).integers(0, 255, (1, 5, *size)).astype(np.int64)
    engine = Blur(6, contract)
    whole = TiledEngine(engine, whole_grid(*size, contract)).run(window)
    engine.shapes.clear()
    grid = square_grid(*size, contract, tile)
    tiled = TiledEngine(engine, grid).run(window)
    assert (tiled == whole).all()
    assert tiled.shape == window.shape
    assert engine.shapes == {(1, 5, *grid.tile)}


def test_a_smaller_halo_would_not_do():
    """The test above can fail: with a halo that is a little too small, seams are seen."""
    contract, window = SimpleNamespace(**{**vars(CONTRACT), "receptive_field": 8}), np.zeros((1, 5, 64, 64), np.int64)
    window[..., 31, 31] = 1000
    engine = Blur(14, contract)
    whole, tiled = engine.run(window), TiledEngine(engine, square_grid(64, 64, contract, 8)).run(window)
    assert (tiled != whole).any()


@pytest.mark.parametrize(
    ("dtype", "bits", "size"),
    [(np.float32, None, (416, 448)), (np.float32, None, (403, 445)), (np.uint8, 8, (403, 445)), (np.uint16, 10, (403, 445))],
)
def test_the_network_tiled_equals_the_network_whole(size, dtype, bits, tiny_model):
    noise = np.random.default_rng(1).random((1, 5, *size), dtype=np.float32)
    window = noise if bits is None else (noise * (2**bits - 1)).astype(dtype)
    with Engine(tiny_model, precision="fp32") as engine:
        assert engine.contract.receptive_field == 158
        grid = square_grid(*size, engine.contract, 64)
        assert (grid.rows, grid.columns) == (2, 2)
        tiled, whole = TiledEngine(engine, grid).run(window, bits), engine.run(window, bits)
    assert (tiled.dtype, tiled.shape) == (window.dtype, window.shape)
    difference = np.abs(tiled.astype(np.float64) - whole)
    assert not (whole == window).all()
    assert difference.max() <= (1e-5 if bits is None else 1)  # a code may be rounded the other way
    assert bits is None or (difference > 0).mean() < 1e-3


def test_a_halo_of_half_is_seen_in_the_network(tiny_model):
    """The receptive field is not much larger than it must be: cut in half it shows."""
    window = np.random.default_rng(1).random((1, 5, 248, 248), dtype=np.float32)
    with Engine(tiny_model, precision="fp32") as engine:
        whole = engine.run(window)
        engine.contract = replace(engine.contract, receptive_field=32)
        tiled = TiledEngine(engine, square_grid(248, 248, engine.contract, 64)).run(window)
    assert np.abs(tiled - whole).max() > 1e-5


def test_halo_is_the_receptive_field_at_the_next_start_of_a_tile():
    assert halo_of(CONTRACT) == 160


@pytest.mark.parametrize(("height", "width"), [(2160, 3840), (1080, 1920), (720, 1280), (4320, 7680)])
@pytest.mark.parametrize("pixels", [200_000, 500_000, 1_000_000, 4_000_000])
def test_the_largest_grid_keeps_the_limit_with_the_least_work(height, width, pixels):
    grid = largest_grid(height, width, CONTRACT, pixels)
    assert grid.tile[0] * grid.tile[1] <= pixels
    assert grid.tile[0] % 8 == grid.tile[1] % 8 == 0
    for tile in (200, 400, 600, 800, 1000):
        other = square_grid(height, width, CONTRACT, tile)
        assert other.tile[0] * other.tile[1] > pixels or other.pixels >= grid.pixels


def test_what_fits_is_not_cut():
    assert str(largest_grid(720, 1280, CONTRACT, 720 * 1280)) == "whole"
    assert str(whole_grid(99, 55, CONTRACT)) == "whole"
    assert str(largest_grid(2160, 3840, CONTRACT, 4_000_000)).endswith("x2160")


def test_a_model_of_one_size_serves_larger_pictures():
    contract = SimpleNamespace(**{**vars(CONTRACT), "height": 720, "width": 1280})
    grid = whole_grid(2160, 3840, contract)
    assert (grid.tile, grid.rows, grid.columns) == ((720, 1280), 5, 4)
    assert str(grid) == "4 x 5 tiles of 1280x720"


def test_a_model_of_codes_for_the_pictures_own_size_gets_it_whole():
    """It pads by itself, so its size need not be a multiple."""
    contract = SimpleNamespace(**{**vars(CONTRACT), "height": 1082, "width": 1922})
    assert str(whole_grid(1082, 1922, contract)) == "whole"


def test_a_tile_that_makes_the_models_size_is_taken():
    contract = SimpleNamespace(**{**vars(CONTRACT), "height": 736, "width": 736})
    assert square_grid(1080, 1920, contract, 416) == whole_grid(1080, 1920, contract)


FIXED = (336, 344)  # height and width in pixels


@pytest.fixture
def fixed_model(tiny_model, tmp_path):
    """The tiny network for one size alone, as its graph and its contract say."""
    model = onnx.load(tiny_model)
    for side, length in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], FIXED):
        side.dim_value = length
    return save_signed(model, tmp_path / "fixed.onnx", height=FIXED[0], width=FIXED[1])


@pytest.mark.parametrize("memory", [None, 2_000_000_000])
def test_tiles_that_fit_are_of_the_models_size(memory, tiny_model, fixed_model):
    window = np.random.default_rng(1).random((1, 5, 344, 360), dtype=np.float32)
    with Engine(tiny_model, precision="fp32") as any_size, Engine(fixed_model, precision="fp32") as one_size:
        grid = fitting_grid(344, 360, one_size, memory)
        assert (grid.tile, grid.count) == (FIXED, 4)
        np.testing.assert_allclose(TiledEngine(one_size, grid).run(window), any_size.run(window), atol=1e-5)


def test_a_larger_video_runs_on_a_model_of_one_size(tiny_model, fixed_model, tmp_path, capsys):
    source = Clip("ffv1", "gray", (360, 344), times=[0, 1000, 2000]).write(tmp_path / "in.mkv")
    for model, name in ((tiny_model, "any"), (fixed_model, "one")):
        arguments = [source, tmp_path / f"{name}.mkv", "--model", model, "-c", "ffv1", "--precision", "fp32", "--no-progress"]
        assert main([*map(str, arguments), "--scene-thresh", "0"]) == 0
    assert "360x344 pixels in 2 x 2 tiles of 344x336" in capsys.readouterr().err
    left, right = (np.array(read(tmp_path / f"{name}.mkv").luma).astype(int) for name in ("any", "one"))
    assert np.abs(left - right).max() <= 1  # a code may be rounded the other way
    assert not same(list(right), read(source).luma)
    assert main([*map(str, [source, tmp_path / "no.mkv", "--model", fixed_model, "--tile", "8"])]) == 1
    assert "the tiles would be 328x328, this model is fixed at 344x336: leave out the tile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: square_grid(720, 1280, CONTRACT, 7), "the tile is 7 pixels, expected 8 or more, or 0 for none"),
        (lambda: largest_grid(720, 1280, CONTRACT, 50_000), r"memory for 50000 pixels at once, expected \d+, the smallest tile"),
        (
            lambda: whole_grid(720, 1280, SimpleNamespace(**{**vars(CONTRACT), "height": 256, "width": 256})),
            r"a tile of 256x256 is all halo \(160 pixels at each edge\)",
        ),
        (lambda: TiledEngine(Blur(1, CONTRACT), whole_grid(64, 64, CONTRACT)).run(np.zeros((1, 5, 72, 64))), "expected 64x64"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(("size", "whole"), [((352, 496), False), ((9, 999), False), ((64, 48), True)])
def test_little_memory_means_small_tiles_not_a_refusal(size, whole, tiny_model, tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 9000 kB\n")
    monkeypatch.setattr("runtime.machine.memory.MEMINFO", tmp_path / "meminfo")
    with Engine(tiny_model, precision="fp32") as engine:
        grid = fitting_grid(*size, engine)
        assert (str(grid) == "whole") == whole
        assert max(grid.tile) <= 328
        with pytest.raises(InputError, match=r"there are 100 MB of memory for the network"):
            fitting_grid(*size, engine, 100_000_000)
