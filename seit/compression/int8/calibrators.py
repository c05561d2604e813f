"""Range of an activation from its histogram: what 8 bits cover, and what they clip.

Legend: b bins.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.compression.config import CalibratorName
from seit.compression.int8.histogram import NUM_BINS, StreamingHistogram

Range = tuple[float, float]
"""Least and greatest value that codes cover, ≤ 0 ≤."""
LEVELS = 255
"""Steps between the codes of 8 bits."""
_Counts = npt.NDArray[np.float64]


class Calibrator(ABC):
    """Choice of a range."""

    @abstractmethod
    def range_of(self, histogram: StreamingHistogram) -> Range:
        """Return the range that codes are to cover."""


class MinMax(Calibrator):
    """Whole range of the calibration samples."""

    @override
    def range_of(self, histogram: StreamingHistogram) -> Range:
        return histogram.low, histogram.high


@dataclass(frozen=True)
class Percentile(Calibrator):
    """Range with a share of the values below it and as many above.

    Attributes:
        percent: values within the range, in percent of those above its lower end.
    """

    percent: float

    @override
    def range_of(self, histogram: StreamingHistogram) -> Range:
        below = np.cumsum(histogram.counts)
        rank = self.percent / 100 * histogram.total
        first = int(np.searchsorted(below, histogram.total - rank, side="right"))
        low = float(histogram.edges[:-1][min(first, NUM_BINS - 1)])
        high = float(histogram.edges[1:][int(np.searchsorted(below, rank))])
        return max(histogram.low, min(low, 0.0)), min(histogram.high, max(high, 0.0))


class MeanSquaredError(Calibrator):
    """Share of the whole range whose rounding and clipping errors have the least mean square."""

    shares = tuple(np.linspace(0.3, 1.0, 71).tolist())

    @override
    def range_of(self, histogram: StreamingHistogram) -> Range:
        used = histogram.counts > 0
        counts, values = histogram.counts[used], histogram.centers[used]
        ranges = [(share * histogram.low, share * histogram.high) for share in self.shares]
        errors = [
            float((counts * (values - fake_quantized(values, one)) ** 2).sum()) for one in ranges
        ]
        return ranges[int(np.argmin(errors))]


class Entropy(Calibrator):
    """Clip whose 128 levels of magnitude lose the least information about the distribution.

    As in TensorRT: "8-bit Inference with TensorRT" (Migacz, GTC 2017). Magnitudes below the clip,
    with all larger ones counted in its last bin, are compared with the same bins averaged over 128
    levels by the Kullback–Leibler divergence.
    """

    levels = 128
    stride = 8
    """Bins between the clips that are tried."""

    @override
    def range_of(self, histogram: StreamingHistogram) -> Range:
        half = NUM_BINS // 2
        counts = histogram.counts.astype(np.float64)
        magnitudes = counts[half:] + counts[:half][::-1]
        last = int(np.flatnonzero(magnitudes).max(initial=0)) + 1
        if last <= self.levels:
            return histogram.low, histogram.high
        clips = [*range(self.levels, last, self.stride), last]
        losses = [divergence(magnitudes, clip, self.levels) for clip in clips]
        clip = clips[int(np.argmin(losses))] * histogram.width
        return max(histogram.low, -clip), min(histogram.high, clip)


def divergence(counts: _Counts, clip: int, levels: int) -> float:
    """Return the Kullback–Leibler divergence, in nats, of a clipped histogram from its levels.

    Args:
        counts: values in bins (b,) of magnitude.
        clip: bins kept; the larger values count in the last of them.
        levels: levels that the kept bins are averaged over.
    """
    kept = counts[:clip]
    target = kept.copy()
    target[-1] += counts[clip:].sum()
    level = np.arange(clip) * levels // clip
    sums = np.bincount(level, weights=kept, minlength=levels)
    used = np.bincount(level, weights=kept > 0, minlength=levels)
    coarse = np.where(kept > 0, (sums / np.maximum(used, 1))[level], 0.0)
    if not coarse.sum() or ((target > 0) & (coarse == 0)).any():
        return float("inf")
    p, q = target / target.sum(), coarse / coarse.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def fake_quantized(values: _Counts, bounds: Range) -> _Counts:
    """Return values rounded to the nearest of 256 codes of a range, which includes 0."""
    low, high = bounds
    scale = max(high - low, 1e-30) / LEVELS
    zero = np.round(-low / scale)
    codes = np.clip(np.round(values / scale) + zero, 0, LEVELS)
    return np.asarray((codes - zero) * scale)


def make_calibrator(name: CalibratorName, percent: float) -> Calibrator:
    """Return the calibrator of a name."""
    known: Mapping[CalibratorName, Calibrator] = {
        "minmax": MinMax(),
        "percentile": Percentile(percent),
        "mse": MeanSquaredError(),
        "entropy": Entropy(),
    }
    return known[name]
