"""Significance of differences: intervals and an exact test, in plain Python."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

from seit.report import CONFIDENCE, Interval

_MAX_FRACTIONS = 100_000
_PRECISION = 1e-15


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value of McNemar's test for paired yes-or-no results.

    ``first_only`` and ``second_only`` count the pairs in which only that one is a yes; if neither
    is better, either count is binomial with probability ½.
    """
    fewer, more = sorted((first_only, second_only))
    if fewer == more:
        return 1.0
    # P(X ≤ k) of a binomial of n with ½ is the incomplete beta function I½(n − k, k + 1).
    return min(1.0, 2 * incomplete_beta(more, fewer + 1, 0.5))


def welch_interval(
    first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE
) -> Interval:
    """Return Welch's interval of mean(second) − mean(first), each of at least two values.

    Unequal variances (Welch 1947, Biometrika 34, 28–35).
    """
    difference = fmean(second) - fmean(first)
    parts = [(variance(values) / len(values), len(values) - 1) for values in (first, second)]
    error = sum(part for part, _ in parts)
    if error == 0:
        return Interval(difference, difference)
    freedom = error**2 / sum(part**2 / df for part, df in parts)
    half = student_quantile((1 + confidence) / 2, freedom) * math.sqrt(error)
    return Interval(difference - half, difference + half)


def paired_interval(
    first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE
) -> Interval:
    """Return Student's interval of the mean of second − first, at least two pairs."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    error = math.sqrt(variance(differences) / len(differences))
    half = student_quantile((1 + confidence) / 2, len(differences) - 1) * error
    return Interval(fmean(differences) - half, fmean(differences) + half)


def student_quantile(probability: float, freedom: float) -> float:
    """Return the quantile of Student's t distribution, for a probability of ½ to below 1."""
    assert 0.5 <= probability < 1
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < probability:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _student_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _student_cdf(t: float, freedom: float) -> float:
    """Return P(T ≤ t) for t ≥ 0."""
    return 1 - 0.5 * incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function Iₓ(a, b), for a, b > 0 and x in 0…1.

    By its continued fraction (DLMF 8.17.22), evaluated with Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
        - math.log(a)
    )
    tiny = 1e-300
    numerator, denominator = 1.0, 0.0
    value = 1.0
    for index in range(_MAX_FRACTIONS):
        m = index // 2
        if index == 0:
            term = 1.0
        elif index % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        denominator = 1 / ((1 + term * denominator) or tiny)
        numerator = (1 + term / numerator) or tiny
        step = numerator * denominator
        value *= step
        if index and abs(step - 1) < _PRECISION:
            break
    return front * (value - 1)
