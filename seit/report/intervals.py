"""Confidence intervals of shares."""

import math
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
"""Default confidence of intervals."""
FEW_SAMPLES = 10
"""Shares of fewer samples mean little and are shown as counts."""
MANY_CLASSES = 5
"""Up to this many classes, top-5 accuracy is trivially 1."""


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``."""

    low: float
    high: float


def wilson_interval(hits: int, total: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a share of ``total`` ≥ 1 (1927, JASA 22, 209–212)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, extra = hits / total, z * z / total
    middle = share + extra / 2
    half = math.sqrt(share * (1 - share) * extra + (extra / 2) ** 2)
    low, high = (middle - half) / (1 + extra), (middle + half) / (1 + extra)
    return Interval(max(0.0, min(low, share)), min(1.0, max(high, share)))


def say_share(share: float, total: int | None) -> tuple[str, str]:
    """Format a share of ``total`` samples and its uncertainty; as counts if there are few.

    Args:
        share: 0–1.
        total: number of samples; None if unknown.

    Returns:
        E.g. ``("25.0%", "17.5% to 34.3% at 95 % confidence, of 100 samples")``, or ``("1 of 1",
        "too few samples for a share")``.
    """
    if total is None:
        return f"{share:.1%}", ""
    hits = round(share * total)
    if total < FEW_SAMPLES:
        return f"{hits:,} of {total:,}", "too few samples for a share"
    interval = wilson_interval(hits, total)
    note = f"{interval.low:.1%} to {interval.high:.1%} at {CONFIDENCE:.0%} confidence"
    return f"{share:.1%}", f"{note}, of {total:,} samples"
