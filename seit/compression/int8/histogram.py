"""Histogram of a stream of values in one pass and bounded memory."""

import math

import numpy as np
import numpy.typing as npt

from seit.errors import SeitError

NUM_BINS = 4096
"""Bins, half of them on each side of 0."""
_HALF = NUM_BINS // 2
_SMALLEST = -100
"""Exponent of the smallest width of a bin."""


class StreamingHistogram:
    """Histogram whose bins double in width when a value lies outside.

    The width is a power of two, 0 is an edge, and growth merges pairs of bins. So the counts are
    those of `numpy.histogram` over all values with the final edges, however the stream is split.
    Takes 32 kB.

    Attributes:
        counts: int64 (4096,), values in each bin; a bin holds its lower edge.
        low: least value and 0.
        high: greatest value and 0.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(NUM_BINS, dtype=np.int64)
        self.low = 0.0
        self.high = 0.0
        self._exponent = _SMALLEST

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Edges of the bins, float64 (4097,)."""
        return np.arange(-_HALF, _HALF + 1, dtype=np.float64) * self.width

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """Centers of the bins, float64 (4096,)."""
        return (np.arange(-_HALF, _HALF, dtype=np.float64) + 0.5) * self.width

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count values of any shape.

        Raises:
            SeitError: one is not finite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise SeitError(
                "an activation of the network is not finite on the calibration samples; the run "
                "cannot be quantized: train it again"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        # Exact: the width is a power of two.
        index = np.floor(values.ravel() * np.float64(1 / self.width)).astype(np.int64) + _HALF
        self.counts += np.bincount(index, minlength=NUM_BINS)

    def _widen(self, reach: float) -> None:
        """Double the width of bins until values below ``reach`` in magnitude, and it, fit in."""
        while reach >= _HALF * self.width:
            pairs = np.zeros_like(self.counts)
            start = NUM_BINS // 4
            pairs[start : 3 * start] = self.counts.reshape(-1, 2).sum(1)
            self.counts = pairs
            self._exponent += 1
