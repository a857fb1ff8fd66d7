"""Padding is by reflection, to the next multiple, and cropping undoes it."""

import numpy as np
import pytest

from runtime.pixels.padding import crop, pad, padded_size


@pytest.mark.parametrize(
    ("size", "expected"), [((8, 16), (8, 16)), ((1, 17), (8, 24)), ((1080, 1920), (1080, 1920)), ((102, 68), (104, 72))]
)
def test_padded_size(size, expected):
    assert padded_size(*size, 8) == expected


def test_pad_reflects_and_crop_undoes():
    planes = np.random.default_rng(0).random((2, 5, 10, 13)).astype(np.float32)
    padded = pad(planes, 8)
    assert padded.shape == (2, 5, 16, 16)
    np.testing.assert_array_equal(padded[..., 10, :13], planes[..., 8, :])
    np.testing.assert_array_equal(padded[..., :10, 13], planes[..., 11])
    np.testing.assert_array_equal(crop(padded, 10, 13), planes)


def test_what_fits_is_not_copied():
    planes = np.zeros((1, 5, 8, 8))
    assert pad(planes, 8) is planes


def test_one_pixel():
    assert (pad(np.full((1, 5, 1, 1), 7), 8) == 7).all()
