"""Side, wipe and diff, plane by plane, and through a real encoder."""

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.run.comparison import DIFF_GAIN, KINDS, WIPE_PERIOD, Comparison

LAYOUTS = [  # (bits, chroma step, chroma shape, other planes) of a 48 x 64 picture
    pytest.param(8, 2, (24, 32), 2, id="yuv420p"),
    pytest.param(8, 2, (48, 32), 2, id="yuv422p"),
    pytest.param(10, 1, (48, 64), 2, id="yuv444p10le"),
    pytest.param(16, 1, None, 0, id="gray16le"),
]


def planes(bits, chroma_shape, others, shape=(48, 64)):
    """Blurry and sharp luma, and the other planes, of random codes."""
    random, dtype = np.random.default_rng(0), np.uint8 if bits == 8 else np.uint16
    codes = [random.integers(0, 1 << bits, size, dtype) for size in (shape, shape, *[chroma_shape] * others)]
    return codes[0], codes[1], codes[2:]


@pytest.mark.parametrize(("bits", "step", "chroma_shape", "others"), LAYOUTS)
def test_side_shows_both_pictures_whole(bits, step, chroma_shape, others):
    blurry, sharp, chroma = planes(bits, chroma_shape, others)
    comparison = Comparison("side", bits, step)
    luma, *rest = comparison.compose(blurry, sharp, chroma, seconds=1.0)
    assert comparison.width(64) == luma.shape[1] == 128
    np.testing.assert_array_equal(luma, np.hstack([blurry, sharp]))
    for plane, source in zip(rest, chroma, strict=True):
        np.testing.assert_array_equal(plane, np.hstack([source, source]))


@pytest.mark.parametrize(("step", "chroma_width"), [(1, 65), (2, 33), (4, 17)])
def test_side_of_an_odd_width_keeps_chroma_under_its_luma(step, chroma_width):
    blurry, sharp, chroma = planes(8, (49, chroma_width), 2, (49, 65))
    comparison = Comparison("side", 8, step)
    luma, u, _ = comparison.compose(blurry, sharp, chroma, seconds=0.0)
    half = luma.shape[1] // 2
    assert comparison.width(65) == luma.shape[1]
    assert u.shape[1] == luma.shape[1] // step  # what a frame of that width has
    assert half // step == chroma_width
    np.testing.assert_array_equal(luma[:, half : half + 65], sharp)
    np.testing.assert_array_equal(u[:, half // step : half // step + chroma_width], chroma[0])


@pytest.mark.parametrize(("bits", "step", "chroma_shape", "others"), LAYOUTS)
def test_wipe_is_blurry_left_and_sharp_right_of_a_thin_line(bits, step, chroma_shape, others):
    blurry, sharp, chroma = planes(bits, chroma_shape, others)
    luma, *rest = Comparison("wipe", bits, step).compose(blurry, sharp, chroma, seconds=WIPE_PERIOD / 4)
    np.testing.assert_array_equal(luma[:, :32], blurry[:, :32])
    np.testing.assert_array_equal(luma[:, 34:], sharp[:, 34:])
    assert np.unique(luma[:, 32:34]).tolist() == [235 << (bits - 8)]
    for plane, source in zip(rest, chroma, strict=True):
        changed = (plane != source).any(axis=0).nonzero()[0]
        assert set(changed) <= set(range(32 // step, 34 // step))


def test_wipe_moves_from_edge_to_edge_and_back():
    blurry, sharp = np.zeros((4, 1000), np.uint8), np.full((4, 1000), 255, np.uint8)
    comparison = Comparison("wipe", 8)
    dividers = [
        int((comparison.compose(blurry, sharp, (), seconds)[0][0] == 0).sum()) for seconds in np.linspace(0, WIPE_PERIOD, 13)
    ]
    assert dividers[0] == dividers[-1] == 50
    assert dividers[6] == 950
    assert dividers[:7] == sorted(dividers[:7])
    assert dividers[6:] == sorted(dividers[6:], reverse=True)


@pytest.mark.parametrize(("bits", "step", "chroma_shape", "others"), LAYOUTS)
def test_diff_is_grey_where_nothing_changed(bits, step, chroma_shape, others):
    blurry, _, chroma = planes(bits, chroma_shape, others)
    sharp = blurry.copy()
    sharp[0, 0], blurry[0, 0] = 13, 10
    sharp[0, 1], blurry[0, 1] = 10, 13
    sharp[0, 2], blurry[0, 2] = 0, (1 << bits) - 1
    sharp[0, 3], blurry[0, 3] = (1 << bits) - 1, 0
    luma, *rest = Comparison("diff", bits, step).compose(blurry, sharp, chroma, seconds=0.0)
    middle = 1 << (bits - 1)
    assert luma[0, :4].tolist() == [middle + 3 * DIFF_GAIN, middle - 3 * DIFF_GAIN, 0, (1 << bits) - 1]
    assert (luma[1:] == middle).all()
    assert all((plane == middle).all() for plane in rest)
    assert len(rest) == others


@pytest.mark.parametrize("kind", KINDS)
def test_the_given_arrays_are_not_changed(kind):
    blurry, sharp, chroma = planes(8, (24, 32), 2)
    for plane in (blurry, sharp, *chroma):
        plane.flags.writeable = False
    out = Comparison(kind, 8, 2).compose(blurry, sharp, chroma, seconds=2.0)
    assert [plane.dtype for plane in out] == [np.uint8] * 3


def test_an_alpha_plane_is_kept():
    blurry, sharp, chroma = planes(8, (24, 32), 2)
    alpha = np.random.default_rng(1).integers(0, 256, (48, 64), np.uint8)
    for kind in ("wipe", "diff"):
        np.testing.assert_array_equal(Comparison(kind, 8, 2).compose(blurry, sharp, (*chroma, alpha), 1.0)[3], alpha)
    np.testing.assert_array_equal(Comparison("side", 8, 2).compose(blurry, sharp, (*chroma, alpha), 1.0)[3], np.hstack([alpha] * 2))


def test_another_kind_is_refused():
    with pytest.raises(InputError, match="comparison is 'top', expected one of side, wipe, diff"):
        Comparison("top", 8)
