"""Random erasing, of pixels or of embedded tokens.

Legend: B batch, C channels, h w image.
"""

import torch
from torch import Tensor

from seit.augment.crop import aspect_ratios
from seit.augment.philox import Op
from seit.augment.random import SampleRandom

ERASED_AREA = (0.02, 1 / 3)
"""Least and largest share of the image that a box covers."""
ERASED_RATIO = (0.3, 1 / 0.3)
"""Least and largest ratio of its rows to its columns."""


def erase_boxes(random: SampleRandom, size: tuple[int, int], *, prob: float) -> Tensor:
    """Draw a box per sample, of 2–33 % of the area and a side ratio of 0.3–3.3.

    Its area is uniform, the logarithm of its ratio (rows per column) too, and its place uniform
    where it fits. Sides longer than the image are clipped; the authors draw again instead.

    Args:
        random: the samples' draws.
        size: (h, w).
        prob: a sample's probability of having a box, 0–1.

    Returns:
        (B, 4) int64: top, left, bottom, right, the ends excluded; zeros without a box.
    """
    h, w = size
    gate, area, ratio, top, left = random.uniform(Op.ERASE, (5,)).unbind(1)
    least, largest = ERASED_AREA
    cells = h * w * (least + (largest - least) * area)
    ratio = aspect_ratios(ratio, ERASED_RATIO)
    rows = (cells * ratio).sqrt().round().long().clamp(1, h)
    columns = (cells / ratio).sqrt().round().long().clamp(1, w)
    top = (top * (h - rows + 1)).long()
    left = (left * (w - columns + 1)).long()
    boxes = torch.stack((top, left, top + rows, left + columns), dim=1)
    return boxes * (gate < prob)[:, None]


def random_erase(x: Tensor, random: SampleRandom, *, prob: float, fill: Tensor) -> Tensor:
    """Fill a box of each sample with ``fill``, with probability ``prob``.

    "Random Erasing Data Augmentation" (Zhong et al., arXiv 1708.04896), which fills with random
    values; ``fill`` should be the mean: 0 for normalized pixels.

    Args:
        x: (B, C, h, w).
        random: the samples' draws.
        prob: 0–1.
        fill: (C,), or a scalar.

    Returns:
        (B, C, h, w), of the same dtype.
    """
    if prob == 0:
        return x
    h, w = x.shape[2:]
    top, left, bottom, right = erase_boxes(random, (h, w), prob=prob)[:, :, None].unbind(1)
    row, column = (torch.arange(length, device=x.device) for length in (h, w))
    rows = (row >= top) & (row < bottom)
    columns = (column >= left) & (column < right)
    covered = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(covered, fill.to(x).view(-1, 1, 1), x)
