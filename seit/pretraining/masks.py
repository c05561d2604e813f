"""Masks of masked token modeling: how many patches, and which.

The ratio is that of MAGE (Li et al., arXiv 2211.09117) and SeiT++ (arXiv 2312.10105): a truncated
normal, drawn once per batch, so that all its samples keep equally many patches. The choice of
patches is drawn per sample.

Legend: B batch, L patches.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from seit.augment import Op, SampleRandom
from seit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Share of masked patches, from a truncated normal; raises UsageError for invalid values."""

    mean: float = 0.45
    """Mean of the normal distribution before truncation."""
    std: float = 0.25
    """Standard deviation before truncation; 0 always masks a share of `mean`."""
    min: float = 0.4
    """Minimum share of masked patches, 0 to below 1. This share never enters the encoder; other
    masked patches enter as mask tokens."""
    max: float = 1.0
    """Maximum share, at most 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.min < 1 or not self.min <= self.max <= 1 or not self.max > 0:
            raise UsageError(
                f"shares of masked patches are {self.min} to {self.max}; expected 0 ≤ min ≤ max ≤ "
                "1, min below 1 and max above 0"
            )
        if not 0 <= self.std < math.inf or not 0 <= self.mean <= 1:
            raise UsageError(
                f"the share of masked patches has mean {self.mean} and deviation {self.std}; "
                "expected a mean in 0…1 and a finite deviation of at least 0"
            )

    @property
    def expected(self) -> float:
        """Expected share, 0–1."""
        if not self.std:
            return min(max(self.mean, self.min), self.max)
        unit = NormalDist()
        low, high = ((end - self.mean) / self.std for end in (self.min, self.max))
        mass = unit.cdf(high) - unit.cdf(low)
        if mass < 1e-12:
            return self.min if self.mean < self.min else self.max
        return self.mean + self.std * (unit.pdf(low) - unit.pdf(high)) / mass

    def draw(self, uniform: float) -> float:
        """Map a uniform number in [0, 1) to a share by the inverse distribution."""
        if not self.std:
            return self.expected
        normal = NormalDist(self.mean, self.std)
        low, high = normal.cdf(self.min), normal.cdf(self.max)
        # The inverse is infinite at 0 and 1; the result is clamped in any case.
        place = min(max(low + uniform * (high - low), 1e-16), 1 - 1e-16)
        return min(max(normal.inv_cdf(place), self.min), self.max)

    def num_dropped(self, num_patches: int) -> int:
        """Return the number of L patches that never enter the encoder."""
        return math.ceil(self.min * num_patches - 1e-9)

    def num_masked(self, num_patches: int, share: float) -> int:
        """Return the number of L patches in a share; at least one, and all dropped ones."""
        return max(1, self.num_dropped(num_patches), math.ceil(share * num_patches - 1e-9))


def draw_share(config: MaskConfig, *, seed: int, epoch: int, step: int) -> float:
    """Draw the share of masked patches in the batch of a step, equal on all ranks."""
    random = SampleRandom(seed, epoch, torch.tensor([step]))
    return config.draw(float(random.uniform(Op.MASK_SHARE)))


def draw_order(random: SampleRandom, num_patches: int) -> Tensor:
    """Draw a random order of the patches, int64 (B, L); the first ones are masked."""
    return random.uniform(Op.MASK_ORDER, (num_patches,)).argsort(dim=1)
