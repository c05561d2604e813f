"""Mixup: blending two samples and their labels.

Legend: B batch, C channels, h w grid.
"""

import torch
from torch import Tensor

from seit.augment.beta import beta_weights
from seit.augment.philox import Op
from seit.augment.random import SampleRandom


def apply_mixup(
    x: Tensor,
    random: SampleRandom,
    *,
    alpha: float,
    selected: Tensor,
    partner: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend each selected sample with its partner: λ · x + (1 − λ) · partner.

    "mixup: Beyond Empirical Risk Minimization" (Zhang et al., arXiv 1710.09412), with λ drawn from
    Beta(alpha, alpha) for each sample instead of once per batch.

    Args:
        x: (B, C, h, w) floating point.
        random: the samples' draws.
        alpha: see :func:`beta_weights`.
        selected: (B,) bool, the samples to blend.
        partner: (B,) int64, 0 to B − 1, the samples to blend in; None for the mirrored batch
            (B − 1 − i).

    Returns:
        The blended inputs (B, C, h, w), and (B,) float32 λ: the weight of the sample's own label,
        1 without blending; the partner has the rest.
    """
    weight = torch.where(selected, beta_weights(random, alpha=alpha, op=Op.MIXUP_WEIGHT), 1.0)
    other = x.flip(0) if partner is None else x.index_select(0, partner)
    return torch.lerp(other, x, weight.to(x.dtype)[:, None, None, None]), weight
