"""Formulas written from their papers, slow and independent of the package."""

import math

import numpy as np


def reference_philox(counter, key):
    """Philox-4x32-10 in unbounded integers, from the paper's definition of a round."""
    (l0, r0, l1, r1), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * l0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * l1, 2**32)
        l0, r0, l1, r1 = high1 ^ r0 ^ k0, low1, high0 ^ r1 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return l0, r0, l1, r1


def kolmogorov_smirnov(sample, cdf):
    """sqrt(n) times the largest distance of the two distribution functions; 1.95 is p = 0.001."""
    x = np.sort(np.asarray(sample, dtype=np.float64).ravel())
    n, F = len(x), cdf(x)
    distance = max(np.max(np.arange(1, n + 1) / n - F), np.max(F - np.arange(n) / n))
    return math.sqrt(n) * distance


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def nt_xent_in_loops(queries, keys, temperature):
    """The formula, element by element, in Python's floats."""
    total = 0.0
    for i, query in enumerate(queries):
        scores = [math.exp(cosine(query, key) / temperature) for key in keys]
        total -= math.log(scores[i] / math.fsum(scores))
    return 2 * temperature * total / len(queries)
