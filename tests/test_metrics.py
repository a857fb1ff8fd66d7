import math

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.pixels.metrics import mean_squared_error, psnr


def test_psnr_of_a_known_difference():
    a = np.full((4, 5), 100, np.uint8)
    assert psnr(a, a - 10, 255) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr(a / 255, (a - 10) / 255, 1.0) == pytest.approx(20 * math.log10(255 / 10))


def test_equal_arrays_are_infinitely_alike():
    assert psnr(np.zeros(3), np.zeros(3), 1.0) == math.inf


def test_unsigned_codes_do_not_wrap_around():
    assert mean_squared_error(np.array([0], np.uint8), np.array([255], np.uint8)) == 255**2
    assert mean_squared_error(np.array([0], np.uint16), np.array([65535], np.uint16)) == 65535**2


@pytest.mark.parametrize(
    ("a", "b", "peak", "match"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), 1.0, r"\(2, 3\) and \(3, 2\)"),
        (np.zeros(0), np.zeros(0), 1.0, "nothing to compare"),
        (np.zeros(3), np.ones(3), 0.0, "expected above 0"),
        (np.zeros(3), np.ones(3), math.nan, "expected above 0"),
    ],
)
def test_bad_input_is_named(a, b, peak, match):
    with pytest.raises(InputError, match=match):
        psnr(a, b, peak)
