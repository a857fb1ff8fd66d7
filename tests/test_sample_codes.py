"""Sample codes: the corner values of the standards, and nothing lost on the way there and back."""

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.pixels.sample_codes import from_unit, to_unit


@pytest.mark.parametrize(
    ("bits", "color_range", "black", "white"),
    [(8, "full", 0, 255), (8, "limited", 16, 235), (10, "limited", 64, 940), (10, "full", 0, 1023), (16, "limited", 4096, 60160)],
)
def test_black_and_white(bits, color_range, black, white):
    codes = np.array([black, white], np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_allclose(to_unit(codes, bits, color_range), [0, 1], atol=1e-6)
    np.testing.assert_array_equal(from_unit(np.array([0, 1], np.float32), bits, color_range), codes)


@pytest.mark.parametrize("color_range", ["full", "limited"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_every_code_survives(bits, color_range):
    codes = np.arange(2**bits).astype(np.uint8 if bits == 8 else np.uint16)
    back = from_unit(to_unit(codes, bits, color_range), bits, color_range)
    assert back.dtype == codes.dtype
    np.testing.assert_array_equal(back, codes)


def test_values_outside_are_clipped_to_the_codes_not_wrapped():
    np.testing.assert_array_equal(from_unit(np.array([-1, 2], np.float32), 8, "limited"), [0, 255])
    np.testing.assert_array_equal(from_unit(np.array([-1, 2], np.float32), 10, "full"), [0, 1023])


@pytest.mark.parametrize(("bits", "color_range"), [(7, "full"), (17, "full"), (8, "video")])
def test_unknown_meaning(bits, color_range):
    with pytest.raises(InputError, match="expected"):
        to_unit(np.zeros(1, np.uint8), bits, color_range)
