"""Histograms: the counts of numpy.histogram, whatever the order and the size of the batches."""

import numpy as np
import pytest

from calibration.histograms import BINS, BLOCK, LEAST_EXPONENT, Extent, Histogram


def random(count=5000, scale=1.0, seed=0):
    return (np.random.default_rng(seed).normal(size=count) * scale).astype(np.float32)


def histogram_of(*arrays):
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    return histogram


def facts(histogram):
    return (histogram.extent, histogram.exponent, histogram.counts.tolist(), histogram.zeros)


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1.0, 300.0, 1e30])
def test_counts_are_those_of_numpy(scale):
    values = random(scale=scale)
    histogram = histogram_of(values[None])
    assert 2.0 ** (histogram.exponent - 1) <= np.abs(values).max() < 2.0**histogram.exponent
    expected, _ = np.histogram(np.abs(values), bins=BINS, range=(0, 2.0**histogram.exponent))
    np.testing.assert_array_equal(histogram.counts, expected)


def test_batch_of_one_equals_batch_of_eight():
    windows = np.stack([random(3000, scale, seed) for seed, scale in enumerate([1, 8, 0.1, 3, 200, 1e-3, 0.5, 2])])
    one_by_one = histogram_of(*(window[None] for window in windows))
    assert facts(one_by_one) == facts(histogram_of(windows))
    assert facts(one_by_one) == facts(histogram_of(windows[:3], windows[3:]))


def test_order_does_not_matter():
    arrays = [random(2 * BLOCK + 7, scale, seed)[None] for seed, scale in enumerate([5, 0.01, 70])]
    assert facts(histogram_of(*arrays)) == facts(histogram_of(*arrays[::-1]))


def test_merging_equals_counting_both():
    a, b = random(scale=40.0)[None], random(scale=0.3, seed=1)[None]
    together = facts(histogram_of(a, b))
    assert facts(histogram_of(a).merged(histogram_of(b))) == together
    assert facts(histogram_of(b).merged(histogram_of(a))) == together


def test_merging_leaves_both_as_they_were():
    a, b = histogram_of(random()[None]), histogram_of(random(scale=100.0)[None])
    before = facts(a), facts(b)
    a.merged(b).add(random(scale=1e4)[None])
    assert (facts(a), facts(b)) == before


def test_an_empty_histogram_is_neutral():
    histogram = histogram_of(random()[None])
    assert facts(histogram.merged(Histogram())) == facts(histogram)
    assert Histogram().extent.absmax == 0.0


def test_extent_and_zeros():
    values = random(BLOCK + 100, 3.0)
    values[:10] = 0
    histogram = histogram_of(values[None])
    extent = histogram.extent
    assert (extent.count, extent.low, extent.high) == (values.size, values.min(), values.max())
    assert extent.absmax == np.abs(values).max()
    assert histogram.zeros == 10


def test_what_is_no_number_is_counted_apart():
    values = random(100)
    values[[3, 50]] = np.nan
    values[[4, 5, 6]] = np.inf, -np.inf, np.inf
    histogram = histogram_of(values[None])
    assert (histogram.extent.nan, histogram.extent.infinite, histogram.extent.bad) == (2, 3, 5)
    assert histogram.counts.sum() == 95
    assert histogram.extent.high == values[np.isfinite(values)].max()


def test_nothing_but_nan():
    extent = Extent()
    extent.add(np.full(3, np.nan, np.float32))
    assert (extent.count, extent.nan, extent.absmax) == (3, 3, 0.0)


def test_all_zero():
    histogram = histogram_of(np.zeros((2, 50), np.float32))
    assert (histogram.extent.absmax, histogram.zeros, histogram.exponent) == (0.0, 100, LEAST_EXPONENT)
    assert histogram.counts[0] == 100


def test_powers_of_two_fall_into_the_range_above():
    histogram = histogram_of(np.array([[1.0, 0.5]], np.float32))
    assert histogram.exponent == 1
    assert histogram.counts[[BINS // 2, BINS // 4]].tolist() == [1, 1]


def test_memory_does_not_grow_with_the_values():
    small, large = histogram_of(random(10)[None]), histogram_of(*(random(BLOCK, 9.0, seed)[None] for seed in range(5)))
    assert large.counts.nbytes == small.counts.nbytes
