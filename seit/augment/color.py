"""ColorAdapt: transfer of channel statistics between samples.

Legend: B batch, C codebook dim, h w cropped grid.
"""

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-5
"""Term added to every variance, in squared units of the codebook."""


def color_adapt_(
    x: Tensor, *, selected: Tensor, unit: float, partner: Tensor | None = None
) -> Tensor:
    """Give the selected samples, in place, the mean and deviation of their partners' channels.

    ColorAdapt of SeiT++ (arXiv 2312.10105), which is adaptive instance normalization (Huang and
    Belongie, arXiv 1703.06868) of embedded tokens: with μ and σ over a channel's cells,
    y = (x − μ(x)) / σ(x) · σ(partner) + μ(partner). It changes color and contrast, not layout.

    1e-5 · ``unit``² is added to each variance. The official code adds nothing and divides by 0 for
    a constant channel; here such a channel becomes the partner's mean.

    Args:
        x: (B, C, h, w) floating point; **overwritten**.
        selected: (B,) bool, the samples to adapt.
        unit: scale of the codebook, usually :func:`codebook_unit`.
        partner: (B,) int64, 0 to B − 1, the samples that provide the statistics, taken before any
            adaptation; None for the mirrored batch (B − 1 − i).

    Returns:
        ``x``.
    """
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    std = variance.add_(VARIANCE_FLOOR * (unit**2 or 1.0)).sqrt_()
    if partner is None:
        other_mean, other_std = mean.flip(0), std.flip(0)
    else:
        other_mean, other_std = mean.index_select(0, partner), std.index_select(0, partner)
    chosen = selected[:, None, None, None]
    x.sub_(torch.where(chosen, mean, 0.0))
    x.mul_(torch.where(chosen, other_std / std, 1.0))
    return x.add_(torch.where(chosen, other_mean, 0.0))
