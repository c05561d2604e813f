"""Streaming histogram and the ranges that calibrators take from it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from seit.compression.int8.calibrators import (
    LEVELS,
    Entropy,
    MeanSquaredError,
    Percentile,
    divergence,
    fake_quantized,
    make_calibrator,
)
from seit.compression.int8.histogram import NUM_BINS, StreamingHistogram
from seit.errors import SeitError

VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-1e6, 1e6, width=32) | st.floats(-1, 1, width=32),
)


def histogram_of(*parts):
    histogram = StreamingHistogram()
    for part in parts:
        histogram.add(np.asarray(part, dtype=np.float32))
    return histogram


@settings(max_examples=60, deadline=None)
@given(VALUES, st.lists(st.integers(0, 60), max_size=4))
def test_counts_are_numpys_for_any_split(values, cuts):
    histogram = histogram_of(*np.split(values, sorted(cuts)))
    counts, _ = np.histogram(values.astype(np.float64), bins=histogram.edges)
    assert np.array_equal(histogram.counts, counts)
    assert histogram.total == len(values)
    assert histogram.low == min(0, values.min())
    assert histogram.high == max(0, values.max())
    assert histogram.counts.size == NUM_BINS


def test_bins_are_as_narrow_as_the_values_allow():
    for reach in (1e-3, 0.7, 1.0, 5.0):
        histogram = histogram_of([reach / 3], [reach])
        used = reach / histogram.width
        assert NUM_BINS / 4 <= used < NUM_BINS / 2
        assert math.log2(histogram.width) == int(math.log2(histogram.width))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(SeitError, match="not finite"):
        histogram_of([0.0, math.nan])
    with pytest.raises(SeitError, match="not finite"):
        histogram_of([math.inf])


def test_a_stream_of_nothing_or_of_zeros():
    for histogram in (StreamingHistogram(), histogram_of([]), histogram_of([0.0, 0.0])):
        for name in ("minmax", "percentile", "mse", "entropy"):
            assert make_calibrator(name, 99.9).range_of(histogram) == (0, 0), name


@pytest.fixture(scope="module")
def gauss():
    return np.random.default_rng(0).normal(size=100_000).astype(np.float32)


def test_percentiles_are_numpys_within_a_bin(gauss):
    histogram = histogram_of(gauss)
    for percent in (90, 99, 99.9, 99.99):
        low, high = Percentile(percent).range_of(histogram)
        assert low == pytest.approx(np.quantile(gauss, 1 - percent / 100), abs=2 * histogram.width)
        assert high == pytest.approx(np.quantile(gauss, percent / 100), abs=2 * histogram.width)
    assert Percentile(100).range_of(histogram) == (histogram.low, histogram.high)
    positive = histogram_of(np.abs(gauss))
    assert Percentile(99).range_of(positive)[0] == 0


def test_least_squares_range_is_the_best_of_all_on_the_values_themselves(gauss):
    outliers = np.append(gauss, [40.0, -30.0]).astype(np.float32)
    histogram = histogram_of(outliers)
    low, high = MeanSquaredError().range_of(histogram)

    def error(bounds):
        return float(((outliers - fake_quantized(outliers.astype(np.float64), bounds)) ** 2).sum())

    errors = {r: error((r * histogram.low, r * histogram.high)) for r in MeanSquaredError.shares}
    assert error((low, high)) <= 1.02 * min(errors.values())
    assert high < histogram.high


def test_rounding_to_codes_is_torchs(gauss):
    import torch

    low, high = float(gauss.min()), float(gauss.max())
    scale = (high - low) / LEVELS
    expected = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(gauss).double(), scale, round(-low / scale), 0, LEVELS
    )
    assert np.allclose(fake_quantized(gauss.astype(np.float64), (low, high)), expected, atol=1e-6)


def brute_divergence(counts, clip, levels):
    p = [float(c) for c in counts[:clip]]
    q = [0.0] * clip
    for level in range(levels):
        own = [i for i in range(clip) if i * levels // clip == level]
        used = [i for i in own if p[i]]
        for i in used:
            q[i] = sum(p[j] for j in own) / len(used)
    p[-1] += sum(counts[clip:])
    total_p, total_q = sum(p), sum(q)
    if not total_q or any(a and not b for a, b in zip(p, q, strict=True)):
        return math.inf
    return sum(
        a / total_p * math.log((a / total_p) / (b / total_q))
        for a, b in zip(p, q, strict=True)
        if a
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=8, max_size=40), st.data())
def test_divergence_is_that_of_brute_force(counts, data):
    clip = data.draw(st.integers(4, len(counts)))
    found = divergence(np.array(counts, dtype=np.float64), clip, 4)
    assert found == pytest.approx(brute_divergence(counts, clip, 4), abs=1e-9)


def test_entropy_clips_a_single_outlier(gauss):
    histogram = histogram_of(np.append(gauss, 30.0))
    low, high = Entropy().range_of(histogram)
    assert 2.5 < high < 12
    assert low == pytest.approx(max(histogram.low, -high))
