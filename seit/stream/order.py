"""The order of an epoch: a permutation that is computed, never stored.

``sample_at(positions, n, seed, epoch)`` is a pure function of its arguments, so any position of
any epoch is known without those before it: that is what exact resume needs. It costs O(1) memory.

The permutation is a Feistel network over a × b ≥ n cells (Luby and Rackoff 1988; modular halves
after Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002) with rounds of a 64-bit
mixing function; cells beyond n are walked on until one below n is met. Six rounds do for large n;
on a few dozen samples they would favour some pairs of neighbours by 10 %, so small n have twelve.

Shape letters: B positions.
"""

import math

import numpy as np
import numpy.typing as npt

_ROUNDS = 6
_SMALL_ROUNDS = 12
_SMALL_SAMPLES = 1 << 16
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def sample_at(
    positions: npt.NDArray[np.integer], num_samples: int, *, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """The samples at ``positions`` (B,) of an epoch's order: int64 (B,), each in 0 … n−1.

    Args:
        positions: each in 0 … ``num_samples`` − 1.
        num_samples: n, the samples of the split.
        seed: of the run.
        epoch: from 0.
    """
    assert num_samples > 0, "an empty split has no order"
    width = math.isqrt(num_samples - 1) + 1
    height = -(-num_samples // width)
    num_rounds = _SMALL_ROUNDS if num_samples < _SMALL_SAMPLES else _ROUNDS
    keys = _round_keys(seed, epoch, num_rounds)
    out = positions.astype(np.uint64)
    pending = np.arange(len(out))
    while len(pending):
        out[pending] = _feistel(out[pending], width, height, keys)
        pending = pending[out[pending] >= np.uint64(num_samples)]
    return out.astype(np.int64)


def _feistel(
    values_B: npt.NDArray[np.uint64], width: int, height: int, keys: list[int]
) -> npt.NDArray[np.uint64]:
    columns, rows = np.uint64(width), np.uint64(height)
    high, low = np.divmod(values_B, columns)
    for index, key in enumerate(keys):
        if index % 2 == 0:
            high = (high + _mix(low, key) % rows) % rows
        else:
            low = (low + _mix(high, key) % columns) % columns
    return high * columns + low


def _round_keys(seed: int, epoch: int, num_rounds: int) -> list[int]:
    state = _mix_int(_mix_int(seed & _MASK) ^ (epoch & _MASK))
    keys = []
    for _ in range(num_rounds):
        state = (state + _GOLDEN) & _MASK
        keys.append(_mix_int(state))
    return keys


def _mix(values: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014) on keyed values."""
    values = (values + np.uint64(1)) * np.uint64(_GOLDEN) ^ np.uint64(key)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _mix_int(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
