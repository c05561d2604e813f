"""CutMix: pasting a box of another sample and mixing the labels by area.

Legend: B batch, C channels, h w grid.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from seit.augment.beta import beta_weights
from seit.augment.philox import Op
from seit.augment.random import SampleRandom


class Mixed(NamedTuple):
    """Result of :func:`apply_cutmix`.

    Attributes:
        inputs: (B, C, h, w), of the inputs' dtype.
        weight: (B,) float32, 0–1: the weight of the sample's own label; the partner has the rest.
        boxes: (B, 4) int64: top, left, bottom, right of the box, ends excluded; may be empty.
    """

    inputs: Tensor
    weight: Tensor
    boxes: Tensor


def cutmix_boxes(
    random: SampleRandom, size: tuple[int, int], *, prob: float, alpha: float
) -> Tensor:
    """Draw a box per sample, with area fraction 1 − Beta(alpha, alpha) before clipping to the grid.

    Its sides are floor(h·√share) and floor(w·√share); its center is uniform over the grid. (The
    authors' code halves the sides first and so loses one row of odd boxes, which matters on a 7 × 7
    grid.)

    Args:
        random: the samples' draws.
        size: (h, w).
        prob: a sample's probability of having a box, 0–1.
        alpha: see :func:`beta_weights`.

    Returns:
        (B, 4) int64: top, left, bottom, right, the ends excluded; zeros without a box.
    """
    share = (1 - beta_weights(random, alpha=alpha)).sqrt_()
    centres = random.uniform(Op.CUTMIX_BOX, (2,)).unbind(1)
    ends = []
    for extent, u in zip(size, centres, strict=True):
        side = (share * extent).to(torch.int64)
        start = (u * extent).to(torch.int64) - side // 2
        ends.append((start.clamp(min=0), (start + side).clamp(max=extent)))
    (top, bottom), (left, right) = ends
    mixed = random.uniform(Op.CUTMIX_GATE) < prob
    return torch.stack((top, left, bottom, right), dim=1) * mixed[:, None]


def apply_cutmix(
    x: Tensor,
    random: SampleRandom,
    *,
    prob: float,
    alpha: float,
    partner: Tensor | None = None,
) -> Mixed:
    """Paste a box of its partner into each sample.

    "CutMix: Regularization Strategy to Train Strong Classifiers" (Yun et al., arXiv 1905.04899).
    Every sample has its own box; the official SeiT recipe draws one box per batch instead.
    ``weight`` corresponds to the area pasted after clipping and rounding.

    Args:
        x: (B, C, h, w).
        random: the samples' draws.
        prob: a sample's probability of being mixed, 0–1.
        alpha: see :func:`beta_weights`.
        partner: (B,) int64, 0 to B − 1, sources of the boxes; None for the mirrored batch,
            B − 1 − i.

    Returns:
        The mixed inputs, label weights and boxes.
    """
    B, _, h, w = x.shape
    if prob == 0:
        nothing = torch.zeros((B, 4), dtype=torch.int64, device=x.device)
        return Mixed(x, torch.ones(B, device=x.device), nothing)
    boxes = cutmix_boxes(random, (h, w), prob=prob, alpha=alpha)
    top, left, bottom, right = boxes.unbind(1)
    row = torch.arange(h, device=x.device)
    column = torch.arange(w, device=x.device)
    inside_row = (row >= top[:, None]) & (row < bottom[:, None])
    inside_column = (column >= left[:, None]) & (column < right[:, None])
    inside = (inside_row[:, :, None] & inside_column[:, None, :])[:, None]
    other = x.flip(0) if partner is None else x.index_select(0, partner)
    pasted = ((bottom - top) * (right - left)).to(torch.float32)
    return Mixed(torch.where(inside, other, x), 1 - pasted / (h * w), boxes)
