"""Scales: every method against a plain reference on the raw values."""

import ml_dtypes
import numpy as np
import pytest

from calibration.histograms import BINS, Histogram
from calibration.scales import (
    LARGEST_CODE,
    METHODS,
    ZERO_ABSMAX,
    _to_fp8,
    activation_scale,
    known_scale,
    weight_scales,
)
from runtime.errors import InputError

RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=40_000).astype(np.float32)
HEAVY = (RNG.standard_t(3, size=40_000) * 0.2).astype(np.float32)  # a few values far outside the rest
RELU = np.maximum(NORMAL, 0) * 5
DISTRIBUTIONS = {"normal": NORMAL, "heavy tails": HEAVY, "relu": RELU}

each_distribution = pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
each_precision = pytest.mark.parametrize("precision", LARGEST_CODE)


def histogram_of(values):
    histogram = Histogram()
    histogram.add(values[None])
    return histogram


def error(values, scale, precision="int8"):
    """The squared error of quantising and back."""
    units = np.clip(values.astype(np.float64) / scale, -LARGEST_CODE[precision], LARGEST_CODE[precision])
    codes = np.rint(units) if precision == "int8" else units.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    return np.square(codes * scale - values).sum()


@each_distribution
@each_precision
def test_max(values, precision):
    assert activation_scale(histogram_of(values), "max", precision) == np.abs(values).max() / LARGEST_CODE[precision]


@each_distribution
@pytest.mark.parametrize("percentile", [50, 99, 99.99, 100])
def test_percentile(values, percentile):
    histogram = histogram_of(values)
    clipping = activation_scale(histogram, "percentile", percentile=percentile) * 127
    expected = np.percentile(np.abs(values), percentile, method="inverted_cdf")
    assert expected <= clipping * (1 + 1e-12)
    assert clipping <= expected + histogram.bin_width


@each_distribution
@each_precision
def test_mse(values, precision):
    absmax = np.abs(values).max()
    clippings = absmax * np.arange(4, 129) / 128
    errors = [error(values, clipping / LARGEST_CODE[precision], precision) for clipping in clippings]
    scale = activation_scale(histogram_of(values), "mse", precision)
    assert error(values, scale, precision) <= min(errors) * 1.01


@each_distribution
def test_entropy(values):
    """TensorRT's algorithm in plain loops, on the same bins."""
    histogram = histogram_of(values)
    counts = histogram.counts.astype(float)
    counts[0] -= np.sum(values == 0)
    used = int(np.max(np.nonzero(counts))) + 1
    divergences = {}
    for bins in range(used, 127, -max(1, (used - 128) // 128)):
        p, q = counts[:bins].copy(), np.zeros(bins)
        p[-1] += counts[bins:].sum()
        for level in range(128):
            part = slice(level * bins // 128, (level + 1) * bins // 128)
            occupied = counts[part] > 0
            if occupied.any():
                q[part][occupied] = counts[part].sum() / occupied.sum()
        p, q = p / p.sum(), q / q.sum()
        with np.errstate(divide="ignore"):
            divergences[bins] = sum(p[i] * np.log(p[i] / q[i]) for i in np.nonzero(p)[0])
    best = min(divergences, key=divergences.get)
    expected = min(best * histogram.bin_width, np.abs(values).max()) / 127
    assert activation_scale(histogram, "entropy") == pytest.approx(expected, rel=1e-12)


def test_entropy_clips_lonely_outliers():
    values = np.append(NORMAL, np.float32(60))
    assert activation_scale(histogram_of(values), "entropy") < 0.25 * activation_scale(histogram_of(values), "max")


@each_precision
@pytest.mark.parametrize("values", [np.zeros(100, np.float32), np.full(100, 1e-30, np.float32)], ids=["zero", "as good as zero"])
def test_zero_range_has_the_stated_scale(values, precision):
    for method in METHODS[:2] + METHODS[3:]:
        assert activation_scale(histogram_of(values), method, precision) == ZERO_ABSMAX / LARGEST_CODE[precision]


@pytest.mark.parametrize("values", [[5.0], [0.0] * 9999 + [1e-3], [-7.0, 7.0]], ids=["one", "nearly all zero", "two"])
@pytest.mark.parametrize("method", METHODS)
def test_few_values(values, method):
    values = np.array(values, np.float32)
    scale = activation_scale(histogram_of(values), method)
    assert 0 < scale <= np.abs(values).max() / 127


def test_scales_do_not_depend_on_batches():
    whole = histogram_of(HEAVY)
    parts = Histogram()
    for part in np.split(HEAVY, 8)[::-1]:
        parts = parts.merged(histogram_of(part))
    for method in METHODS:
        assert activation_scale(parts, method) == activation_scale(whole, method)


def test_known_ranges():
    assert known_scale(1.0) == 1 / 127
    assert known_scale(1.0, "fp8") == 1 / 448


@each_precision
def test_weights_per_channel_and_per_tensor(precision):
    weights = RNG.normal(size=(6, 4, 3, 3)).astype(np.float32)
    weights[2] *= 100
    largest = LARGEST_CODE[precision]
    per_output = weight_scales(weights, "max", precision)
    np.testing.assert_allclose(per_output, np.abs(weights).max(axis=(1, 2, 3)) / largest, rtol=1e-6)
    np.testing.assert_allclose(
        weight_scales(weights, "max", precision, axis=1), np.abs(weights).max(axis=(0, 2, 3)) / largest, rtol=1e-6
    )
    per_tensor = weight_scales(weights, "max", precision, axis=None)
    assert per_tensor.shape == ()
    assert per_tensor == pytest.approx(np.abs(weights).max() / largest, rel=1e-6)
    assert per_output.dtype == per_tensor.dtype == np.float32


def test_weights_by_percentile_and_mse():
    weights = HEAVY[:9000].reshape(10, 900)
    np.testing.assert_allclose(
        weight_scales(weights, "percentile", percentile=99), np.percentile(np.abs(weights), 99, axis=1) / 127, rtol=1e-6
    )
    for row, scale in zip(weights, weight_scales(weights, "mse")):
        candidates = np.abs(row).max() * np.arange(4, 129) / 128 / 127
        assert error(row, scale) <= min(error(row, candidate) for candidate in candidates) * (1 + 1e-5)


def test_a_channel_of_zeros_has_the_stated_scale():
    weights = np.stack([np.zeros(9), np.ones(9)]).astype(np.float32)
    assert weight_scales(weights).tolist() == pytest.approx([1 / 127, 1 / 127])
    assert weight_scales(weights * 2).tolist() == pytest.approx([1 / 127, 2 / 127])


def test_fp8_is_e4m3():
    values = np.concatenate([NORMAL, NORMAL * 100, NORMAL * 1e-3, [448, 0, 2.0**-9, 2.0**-10, 17, 19, -447, 1.0625, 1.1875]])
    values = np.clip(values, -448, 448)
    np.testing.assert_array_equal(_to_fp8(values), values.astype(ml_dtypes.float8_e4m3fn).astype(np.float64))
    assert _to_fp8(np.array([1e6, -1e6])).tolist() == [448, -448]


@pytest.mark.parametrize(
    ("method", "precision", "percentile", "says"),
    [
        ("minmax", "int8", 99, "method is 'minmax', expected one of max"),
        ("max", "int4", 99, "precision is 'int4', expected int8 or fp8"),
        ("percentile", "int8", 0, "percentile is 0"),
        ("entropy", "fp8", 99, "entropy is for int8"),
    ],
)
def test_refused(method, precision, percentile, says):
    with pytest.raises(InputError, match=says):
        activation_scale(histogram_of(NORMAL), method, precision, percentile)


def test_weights_refused():
    with pytest.raises(InputError, match="entropy is for activations"):
        weight_scales(np.ones((2, 2), np.float32), "entropy")
    with pytest.raises(InputError, match="NaN or infinite"):
        weight_scales(np.array([[1, np.nan]], np.float32))


def test_bins_leave_int8_no_doubt():
    assert BINS // 2 >= 8 * 128  # several bins to each of INT8's magnitudes, even when half the range is unused
