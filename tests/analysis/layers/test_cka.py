"""Unbiased CKA in one pass: against the n × n formula, and known values."""

import numpy as np
import pytest

from seit.analysis.layers.cka import Hsic, cka_of
from seit.errors import UsageError


def accumulated(x, y, size=37):
    """Return the CKA of samples that come in batches, shifted by the mean of the first."""
    x, y = x - x[:size].mean(0), y - y[:size].mean(0)
    views = (x, y), (x, x), (y, y)
    sums = [Hsic(one.shape[1], other.shape[1]) for one, other in views]
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        for part, (one, other) in zip(sums, views, strict=True):
            part.add(one[rows], other[rows])
    return cka_of(*sums)


def hsic(left, right):
    """Return HSIC₁ of two kernels (n, n) by its definition."""
    n = len(left)
    k, m = left - np.diag(np.diag(left)), right - np.diag(np.diag(right))
    ones = np.ones(n)
    middle = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + middle - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


def by_kernels(x, y):
    left, right = x @ x.T, y @ y.T
    return hsic(left, right) / np.sqrt(hsic(left, left) * hsic(right, right))


def test_one_pass_equals_the_kernels():
    generator = np.random.default_rng(0)
    x = generator.normal(3.0, 1.0, (150, 9))
    y = x[:, :4] + generator.normal(size=(150, 4))
    assert accumulated(x, y) == pytest.approx(by_kernels(x, y), abs=1e-10)


def test_known_values():
    generator = np.random.default_rng(1)
    x = generator.normal(5.0, 1.0, (500, 300))
    rotation = np.linalg.qr(generator.normal(size=(300, 300)))[0]
    assert accumulated(x, 2.0 * x @ rotation) == pytest.approx(1.0, abs=1e-9)
    assert accumulated(x, x[:, :150]) == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert abs(accumulated(x, generator.normal(size=(500, 300)))) < 0.01


def test_what_has_no_cka_is_refused():
    with pytest.raises(UsageError, match="at least 4"):
        accumulated(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(UsageError, match="constant"):
        accumulated(np.ones((6, 2)), np.ones((6, 2)))
