"""Orders of an epoch: permutations that are computed, never stored.

``sample_at(positions, n, seed, epoch)`` is a pure function of its arguments, so any position of any
epoch is known without the ones before it, as exact resume requires. It takes O(1) memory.

The permutation is a Feistel network over a × b ≥ n cells (Luby and Rackoff 1988; modular halves
after Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002) with rounds of a 64-bit
mixing function; cells beyond n are cycle-walked until one below n is met. Six rounds suffice for
large n; on a few dozen samples they would favor some pairs of neighbors by 10 %, so small n use
twelve.

Two orders use it. `global`: any permutation of the split; needs random access to it. `window`: the
blocks are permuted, and then the samples within groups of blocks; needs only one group at a time,
and reads each block once.

Shape letters: B positions, n samples, m blocks.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from operator import index
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError

Mode = Literal["auto", "resident", "streaming"]
OrderName = Literal["global", "window"]
Sampling = Literal["natural", "balanced"]
_ROUNDS = 6
_SMALL_ROUNDS = 12
_SMALL_SAMPLES = 1 << 16
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_BLOCK_STREAM = 0x626C6F636B73
"""Separates the permutation of blocks from those of samples."""
WINDOW_BLOCKS = 64
"""Default blocks per window: 65,536 samples, 84 MB of packed tokens at 1,280 bytes each."""


class Order(ABC):
    """Order of the samples of an epoch."""

    name: str
    num_samples: int
    shuffles: bool = True
    """True if epochs differ and drop the last incomplete batch."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return everything but the samples that determines the order, as JSON."""
        return {}

    @abstractmethod
    def indices(self, positions: npt.NDArray[np.integer], epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of the split at ``positions`` (B,), each in 0 … n−1: int64 (B,)."""


class StoredOrder(Order):
    """The stored order, in every epoch."""

    name = "stored"
    shuffles = False

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def indices(self, positions: npt.NDArray[np.integer], epoch: int) -> npt.NDArray[np.int64]:
        """Return the positions themselves."""
        del epoch
        return positions.astype(np.int64)


class GlobalOrder(Order):
    """`global`: a new permutation of all samples in each epoch."""

    name = "global"

    def __init__(self, num_samples: int, *, seed: int) -> None:
        self.num_samples = num_samples
        self._seed = index(seed)  # JSON has no integers of numpy

    @property
    def settings(self) -> dict[str, Any]:
        """Return the seed."""
        return {"seed": self._seed}

    def indices(self, positions: npt.NDArray[np.integer], epoch: int) -> npt.NDArray[np.int64]:
        """See :func:`sample_at`."""
        return sample_at(positions, self.num_samples, seed=self._seed, epoch=epoch)


class WindowOrder(Order):
    """`window`: blocks permuted, then the samples of ``window_blocks`` blocks at a time.

    A sample's neighbors in the epoch come from that many blocks. Takes O(m) memory.

    Args:
        block_sizes: int (m,), samples of each block of the split, in its order.
        seed: seed of the run.
        window_blocks: blocks per window; the last window may have fewer.
        shuffles: False for the stored order, window by window.

    Raises:
        UsageError: ``window_blocks`` is below 1.
    """

    def __init__(
        self,
        block_sizes: npt.NDArray[np.integer],
        *,
        seed: int,
        window_blocks: int = WINDOW_BLOCKS,
        shuffles: bool = True,
    ) -> None:
        if window_blocks < 1:
            raise UsageError(f"window_blocks is {window_blocks}; it must be at least 1")
        self._sizes = block_sizes.astype(np.int64)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._seed = index(seed)
        self.name = "window" if shuffles else "stored"
        self.shuffles = shuffles
        self.window_blocks = index(window_blocks)
        self.num_samples = int(self._sizes.sum())
        self._epoch: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Return the seed and the window."""
        if not self.shuffles:
            return {}
        return {"seed": self._seed, "window_blocks": self.window_blocks}

    @property
    def num_windows(self) -> int:
        """Windows per epoch."""
        return -(-len(self._sizes) // self.window_blocks)

    def indices(self, positions: npt.NDArray[np.integer], epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of the split at ``positions`` (B,): int64 (B,)."""
        windows, places = self.place(positions, epoch)
        blocks, starts = self._permuted(epoch)
        slots = windows * self.window_blocks
        inside = starts[slots] + places
        slots = np.searchsorted(starts, inside, side="right") - 1
        return self._firsts[blocks[slots]] + inside - starts[slots]

    def place(
        self, positions: npt.NDArray[np.integer], epoch: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the window of each of ``positions`` (B,), and its place in that window."""
        _, starts = self._permuted(epoch)
        bounds = np.append(starts[:: self.window_blocks][: self.num_windows], self.num_samples)
        windows = np.searchsorted(bounds, positions, side="right") - 1
        if not self.shuffles:
            return windows, positions - bounds[windows]
        places = np.empty(len(windows), dtype=np.int64)
        for window in np.unique(windows).tolist():
            chosen = windows == window
            places[chosen] = sample_at(
                positions[chosen] - bounds[window],
                int(bounds[window + 1] - bounds[window]),
                seed=_mix_int((self._seed & _MASK) ^ _mix_int(window + 1)),
                epoch=epoch,
            )
        return windows, places

    def blocks_of(self, window: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of a window's blocks, in the order of the places of their samples."""
        blocks, _ = self._permuted(epoch)
        return blocks[window * self.window_blocks : (window + 1) * self.window_blocks]

    def positions_of(self, window: int, epoch: int) -> range:
        """Return the positions of an epoch that lie in a window."""
        _, starts = self._permuted(epoch)
        bounds = np.append(starts[:: self.window_blocks][: self.num_windows], self.num_samples)
        return range(int(bounds[window]), int(bounds[window + 1]))

    def _permuted(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the blocks in the epoch's order (m,), and the position of each first sample."""
        if self._epoch is None or self._epoch[0] != epoch:
            seed = self._seed ^ _BLOCK_STREAM
            count = len(self._sizes)
            blocks = np.arange(count)
            if self.shuffles:
                blocks = sample_at(blocks, count, seed=seed, epoch=epoch)
            sizes = self._sizes[blocks]
            self._epoch = epoch, blocks, np.cumsum(sizes) - sizes
        return self._epoch[1], self._epoch[2]


class SubsetOrder(Order):
    """An order over some rows, int (n,), of a split of ``num_rows`` samples.

    Raises:
        UsageError: the rows are invalid.
    """

    def __init__(self, order: Order, rows: npt.NDArray[np.integer], num_rows: int) -> None:
        self.num_samples = len(rows)
        self.name = order.name
        self.shuffles = order.shuffles
        self._order = order
        self._rows = _checked(rows, num_rows)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the state of the order, and a checksum of the rows."""
        checksum = hashlib.sha256(self._rows.astype("<i8").tobytes()).hexdigest()
        return {**self._order.settings, "subset": checksum}

    def indices(self, positions: npt.NDArray[np.integer], epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of the split at ``positions`` (b,): int64 (b,)."""
        return self._rows[self._order.indices(positions, epoch)]


def sample_at(
    positions: npt.NDArray[np.integer], num_samples: int, *, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """Return the samples at ``positions`` (B,) of an epoch's order: int64 (B,), each in 0 … n−1.

    Args:
        positions: each in 0 … ``num_samples`` − 1.
        num_samples: n, the samples of the split.
        seed: seed of the run.
        epoch: counted from 0.
    """
    from seit.stream.permutation import permute

    assert num_samples > 0, "an empty split has no order"
    width, height, keys = _network(num_samples, seed, epoch)
    found: npt.NDArray[np.int64] = permute(
        positions.astype(np.uint64), num_samples, width, height, keys
    )
    return found


def sample_at_reference(
    positions: npt.NDArray[np.integer], num_samples: int, *, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """:func:`sample_at` in plain numpy."""
    width, height, keys = _network(num_samples, seed, epoch)
    out = positions.astype(np.uint64)
    pending = np.arange(len(out))
    while len(pending):
        out[pending] = _feistel(out[pending], width, height, keys.tolist())
        pending = pending[out[pending] >= np.uint64(num_samples)]
    return out.astype(np.int64)


def _checked(subset: npt.NDArray[np.integer], num_samples: int) -> npt.NDArray[np.int64]:
    rows = np.asarray(subset)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise UsageError(f"subset is {rows.dtype} {rows.shape}; it takes row numbers, int (n,)")
    if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < num_samples:
        raise UsageError(f"subset has a row outside of the {num_samples} of the split")
    return rows.astype(np.int64)


def _network(num_samples: int, seed: int, epoch: int) -> tuple[int, int, npt.NDArray[np.uint64]]:
    """Return width and height of the Feistel network's cells, and its round keys."""
    width = math.isqrt(num_samples - 1) + 1
    num_rounds = _SMALL_ROUNDS if num_samples < _SMALL_SAMPLES else _ROUNDS
    return width, -(-num_samples // width), _round_keys(seed, epoch, num_rounds)


def _feistel(
    values_B: npt.NDArray[np.uint64], width: int, height: int, keys: list[int]
) -> npt.NDArray[np.uint64]:
    columns, rows = np.uint64(width), np.uint64(height)
    high, low = np.divmod(values_B, columns)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            high = (high + _mix(low, key) % rows) % rows
        else:
            low = (low + _mix(high, key) % columns) % columns
    return high * columns + low


def _round_keys(seed: int, epoch: int, num_rounds: int) -> npt.NDArray[np.uint64]:
    state = _mix_int(_mix_int(seed & _MASK) ^ (epoch & _MASK))
    keys = []
    for _ in range(num_rounds):
        state = (state + _GOLDEN) & _MASK
        keys.append(_mix_int(state))
    return np.array(keys, dtype=np.uint64)


def _mix(values: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """Apply the finalizer of SplitMix64 (Steele et al. 2014) on keyed values."""
    values = (values + np.uint64(1)) * np.uint64(_GOLDEN) ^ np.uint64(key)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _mix_int(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
