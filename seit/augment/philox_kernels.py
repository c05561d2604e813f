"""Philox on a CPU, compiled; numba infers all types. See :mod:`seit.augment.philox`.

Legend: B samples, n counter blocks per sample.
"""

import math

import numpy as np
from numba import float32, int32, int64, njit, uint32, uint64

from seit.augment.philox import KEY_STEPS, LOW32, MULTIPLIERS, NUM_ROUNDS, UNIT_24
from seit.shards import compiled

_LOW32 = uint64(LOW32)
_FIRST, _SECOND = uint64(MULTIPLIERS[0]), uint64(MULTIPLIERS[1])
_STEP_A, _STEP_B = uint64(KEY_STEPS[0]), uint64(KEY_STEPS[1])
_HALF, _BYTE = uint64(32), uint64(8)
_UNIT = float32(UNIT_24)
_ANGLE = float32(2 * math.pi * UNIT_24)


@njit(inline="always")
def _block(number, op, position, key_a, key_b):
    a, b = uint64(number), uint64(op)
    c, d = uint64(position) & _LOW32, uint64(position) >> _HALF
    for _ in range(NUM_ROUNDS):
        p, q = a * _FIRST, c * _SECOND
        a, c = (q >> _HALF) ^ b ^ key_a, (p >> _HALF) ^ d ^ key_b
        b, d = q & _LOW32, p & _LOW32
        key_a, key_b = (key_a + _STEP_A) & _LOW32, (key_b + _STEP_B) & _LOW32
    return a, b, c, d


@njit(inline="always")
def _plane(position, op, key_a, key_b, words):
    for number in range(words.shape[1]):  # vectorizes, which interleaved stores do not
        a, b, c, d = _block(number, op, position, uint64(key_a), uint64(key_b))
        words[0, number], words[1, number] = uint32(a), uint32(b)
        words[2, number], words[3, number] = uint32(c), uint32(d)


@compiled
def fill_words(positions, op, key_a, key_b, words):
    """Fill ``words`` int64 (B, n, 4) with the words of an operation."""
    plane = np.empty((4, words.shape[1]), np.uint32)
    for sample in range(words.shape[0]):
        _plane(positions[sample], op, key_a, key_b, plane)
        row = words[sample]
        for number in range(words.shape[1]):
            for lane in range(4):
                row[number, lane] = int64(plane[lane, number])


@compiled
def fill_uniforms(positions, op, key_a, key_b, uniforms):
    """Fill ``uniforms`` float32 (B, n, 4) with the upper 24 bits of each word, times 2⁻²⁴."""
    plane = np.empty((4, uniforms.shape[1]), np.uint32)
    for sample in range(uniforms.shape[0]):
        _plane(positions[sample], op, key_a, key_b, plane)
        row = uniforms[sample]
        for number in range(uniforms.shape[1]):
            for lane in range(4):
                row[number, lane] = float32(int32(plane[lane, number] >> uint32(8))) * _UNIT


@compiled
def fill_polar(positions, op, key_a, key_b, shares, angles):
    """Fill ``shares`` in (0, 1] and ``angles`` in [0, 2π), float32 (2, B, n).

    A pair of normals comes from each: of words 0 and 1 at 0, and of words 2 and 3 at 1.
    """
    for sample in range(shares.shape[1]):
        position = positions[sample]
        for number in range(shares.shape[2]):
            a, b, c, d = _block(number, op, position, uint64(key_a), uint64(key_b))
            shares[0, sample, number] = float32(int64(a >> _BYTE) + 1) * _UNIT
            angles[0, sample, number] = float32(int64(b >> _BYTE)) * _ANGLE
            shares[1, sample, number] = float32(int64(c >> _BYTE) + 1) * _UNIT
            angles[1, sample, number] = float32(int64(d >> _BYTE)) * _ANGLE
