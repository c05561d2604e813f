"""The permutation of :mod:`seit.stream.order`, compiled; numba infers the types."""

import numpy as np
from numba import njit, uint64

from seit.shards import compiled

_GOLDEN = uint64(0x9E3779B97F4A7C15)
_FIRST = uint64(0xBF58476D1CE4E5B9)
_SECOND = uint64(0x94D049BB133111EB)


@njit(inline="always")
def _mix(value, key):
    value = ((value + uint64(1)) * _GOLDEN) ^ key
    value = (value ^ (value >> uint64(30))) * _FIRST
    value = (value ^ (value >> uint64(27))) * _SECOND
    return value ^ (value >> uint64(31))


@compiled
def permute(positions, num_samples, width, height, keys):
    """Return the image of each of ``positions`` uint64 (B,): int64 (B,)."""
    columns, rows, count = uint64(width), uint64(height), uint64(num_samples)
    out = np.empty(len(positions), np.int64)
    for index in range(len(positions)):
        value = positions[index]
        while True:
            high, low = value // columns, value % columns
            for number in range(0, len(keys), 2):
                high = (high + _mix(low, keys[number]) % rows) % rows
                low = (low + _mix(high, keys[number + 1]) % columns) % columns
            value = high * columns + low
            if value < count:
                break
        out[index] = value
    return out
