"""Semantic losses: small heads on the quantized latents, so that codes carry more than pixels.

Legend: B batch, P planes, C latent dim, Y X height and width, H W grid, O orientations.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

ORIENTATIONS = 9
_HIDDEN = 128
_FLAT = 1e-2
"""Gradients of a cell weaker than this, with values 0–1, are not normalized to length 1."""


def hog(planes: Tensor, cell: tuple[int, int]) -> Tensor:
    """Return histograms of oriented gradients of planes (B, P, Y, X) with values 0–1.

    As in the targets of Wei et al., "Masked Feature Prediction for Self-Supervised Visual
    Pre-Training" (2022), section 3.2: central differences, nine bins of unsigned orientation
    weighted by magnitude, summed over cells, with the bins of each plane and cell normalized to
    length 1.

    Returns:
        (B, P·O, H, W), one column per cell of (height, width) pixels.
    """
    padded = functional.pad(planes, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    turn = torch.atan2(down, across) / math.pi * ORIENTATIONS
    bins = turn.floor().long() % ORIENTATIONS
    votes = functional.one_hot(bins, ORIENTATIONS) * across.hypot(down)[..., None]
    batch, count, height, width = planes.shape
    votes = votes.permute(0, 1, 4, 2, 3).reshape(batch, count * ORIENTATIONS, height, width)
    sums = functional.avg_pool2d(votes, cell, divisor_override=1).unflatten(1, (count, -1))
    unit: Tensor = sums / sums.norm(dim=2, keepdim=True).clamp(min=_FLAT)
    return unit.flatten(1, 2)


class ClassHead(nn.Module):
    """Quantized latents (B, C, H, W) → logits (B, classes) of the crop's class."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(dim, _HIDDEN, 3, padding=1)
        self.logits = nn.Linear(_HIDDEN, num_classes)

    @override
    def forward(self, latents: Tensor) -> Tensor:
        logits: Tensor = self.logits(functional.gelu(self.features(latents)).mean((2, 3)))
        return logits

    def loss(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, ignoring labels below 0; 0 if all are."""
        sums = functional.cross_entropy(self(latents), labels, ignore_index=-1, reduction="sum")
        return sums / (labels >= 0).sum().clamp(min=1)


class HogHead(nn.Module):
    """Quantized latents (B, C, H, W) → :func:`hog` (B, P·O, H, W) of the patches."""

    def __init__(self, dim: int, planes: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(dim, _HIDDEN, 1)
        self.bins = nn.Conv2d(_HIDDEN, planes * ORIENTATIONS, 1)

    @override
    def forward(self, latents: Tensor) -> Tensor:
        bins: Tensor = self.bins(functional.gelu(self.features(latents)))
        return bins

    def loss(self, latents: Tensor, planes: Tensor, cell: tuple[int, int]) -> Tensor:
        """Return the mean squared error, for planes with values 0–1."""
        return functional.mse_loss(self(latents), hog(planes, cell))
