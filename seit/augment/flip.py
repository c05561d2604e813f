"""Horizontal flip.

Legend: B batch, W width.
"""

import torch
from torch import Tensor

from seit.augment.philox import Op
from seit.augment.random import SampleRandom


def random_flip(x: Tensor, random: SampleRandom, *, prob: float) -> Tensor:
    """Mirror the last axis of each sample with probability ``prob``.

    For pixels. Off by default for token grids: VQ tokenizers are not flip-equivariant, so a
    mirrored grid decodes to a distorted image (SeiT++, arXiv 2312.10105, which learns TokenAdapt
    for this reason).

    Args:
        x: (B, …, W), any dtype.
        random: the samples' draws.
        prob: 0–1.

    Returns:
        (B, …, W), of the same dtype.
    """
    if prob == 0:
        return x
    flipped = random.uniform(Op.FLIP) < prob
    return torch.where(flipped.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
