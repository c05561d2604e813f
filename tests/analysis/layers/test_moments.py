"""Sums over samples: exact for any division of the data, and with large means."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from seit.analysis.layers.moments import Moments
from seit.errors import UsageError


def summed(x, y, cuts=()):
    moments = Moments(x.shape[1], y.shape[1])
    for part in np.split(np.arange(len(x)), cuts):
        moments.add(x[part], y[part])
    return moments


def check(data, x, y):
    assert data.count == len(x)
    assert np.allclose(data.mean_x, x.mean(0), rtol=1e-12)
    assert np.allclose(data.mean_y, y.mean(0), rtol=1e-12)
    joint = np.cov(np.concatenate([x, y], axis=1).T, bias=True)
    dim = x.shape[1]
    for found, expected in (
        (data.xx, joint[:dim, :dim]),
        (data.xy, joint[:dim, dim:]),
        (data.yy, joint[dim:, dim:]),
    ):
        assert np.allclose(found, expected, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=4), st.floats(-1e4, 1e4), st.randoms())
def test_any_division_gives_the_same_sums(cuts, mean, random):
    generator = np.random.default_rng(random.randrange(1 << 30))
    x = generator.normal(mean, 1.0, (50, 3))
    y = x[:, :2] * 0.3 + generator.normal(size=(50, 2))
    check(summed(x, y, sorted(cuts)).covariances(), x, y)


def test_folds_are_subtracted_and_parts_are_added():
    generator = np.random.default_rng(0)
    x, y = generator.normal(1e4, 1.0, (60, 4)), generator.normal(-50.0, 3.0, (60, 2))
    folds = np.arange(60) % 3
    parts = [summed(x[folds == fold], y[folds == fold]) for fold in range(3)]
    total = parts[0] + parts[1] + parts[2]
    check(total.covariances(), x, y)
    for fold in range(3):
        check((total - parts[fold]).covariances(), x[folds != fold], y[folds != fold])


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(UsageError, match="target holds values that are not finite"):
        Moments(2, 1).add(np.zeros((3, 2)), np.array([[0.0], [np.nan], [1.0]]))
    with pytest.raises(UsageError, match="1 samples have no covariance"):
        summed(np.zeros((1, 2)), np.zeros((1, 1))).covariances()
    with pytest.raises(UsageError, match="a row for each sample"):
        Moments(2, 1).add(np.zeros((3, 2)), np.zeros((4, 1)))


def test_nulls_are_covariances_with_rearranged_targets():
    generator = np.random.default_rng(1)
    x, y = generator.normal(5.0, 1.0, (40, 3)), generator.normal(2.0, 1.0, (40, 2))
    nulls = np.stack([y[generator.permutation(40)] for _ in range(2)])
    moments = Moments(3, 2, num_nulls=2)
    for rows in (slice(0, 25), slice(25, 26), slice(26, 40)):
        moments.add(x[rows], y[rows], nulls=nulls[:, rows])
    check(moments.covariances(), x, y)
    for null, one in enumerate(nulls, start=1):
        check(moments.covariances(null), x, one)


def test_nulls_of_parts_are_around_the_means_of_each():
    generator = np.random.default_rng(2)
    parts, within = [], np.zeros((3, 2))
    for mean in (0.0, 7.0, -3.0):
        x, y = generator.normal(mean, 1.0, (20, 3)), generator.normal(mean, 1.0, (20, 2))
        nulls = y[None, generator.permutation(20)]
        parts.append(Moments(3, 2, num_nulls=1))
        parts[-1].add(x, y, nulls=nulls)
        within += (x - x.mean(0)).T @ (nulls[0] - nulls[0].mean(0))
    total = parts[0] + parts[1] + parts[2]
    assert np.allclose(total.covariances(1).xy, within / 60, atol=1e-12)
    rest = (total - parts[2]).covariances(1)
    both = 20 * (parts[0].covariances(1).xy + parts[1].covariances(1).xy) / 40
    assert np.allclose(rest.xy, both, atol=1e-12)
    assert total.covariances(0).xy.min() > 10, "means of parts count for the target itself"
