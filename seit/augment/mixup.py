"""Mixup: a sample and another are blended, and so are their labels.

Legend: B batch, C channels, h w grid.
"""

import torch
from torch import Tensor

from seit.augment.beta import beta_weights
from seit.augment.philox import Op
from seit.augment.random import SampleRandom


def mixup(
    x: Tensor,
    random: SampleRandom,
    *,
    alpha: float,
    selected: Tensor,
    partner: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend each selected sample with its partner: λ · x + (1 − λ) · partner.

    "mixup: Beyond Empirical Risk Minimization" (Zhang et al., arXiv 1710.09412), λ being drawn from
    Beta(alpha, alpha) for each sample instead of once per batch.

    Args:
        x: (B, C, h, w) floating point.
        random: the samples' draws.
        alpha: see :func:`beta_weights`.
        selected: (B,) bool, the samples to blend.
        partner: (B,) int64, 0 to B − 1: what each sample is blended with; the mirrored batch
            (B − 1 − i) when None.

    Returns:
        The blended inputs (B, C, h, w), and (B,) float32 λ: the weight of the sample's own label,
        the partner's being the rest; 1 where nothing was blended.
    """
    weight = torch.where(selected, beta_weights(random, alpha=alpha, op=Op.MIXUP_WEIGHT), 1.0)
    other = x.flip(0) if partner is None else x.index_select(0, partner)
    return torch.lerp(other, x, weight.to(x.dtype)[:, None, None, None]), weight
