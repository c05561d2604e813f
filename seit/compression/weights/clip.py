"""Ranges that a grid covers: the extremes of the values, or the clipped range of least error."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from seit.compression.weights.affine import Affine, limits

Fit = Callable[[Tensor, Tensor], Affine]
"""Fits a grid to the least and the greatest values."""
_LEAST_RATIO = 0.3
_NUM_RATIOS = 71


class Clip(ABC):
    """Choice of the range of a grid."""

    @abstractmethod
    def fit(
        self, values: Tensor, dim: int, fit: Fit, *, importance: Tensor | None = None
    ) -> Affine:
        """Fit a grid to values along a dimension.

        Args:
            values: float.
            dim: the dimension whose values share a scale.
            fit: fits a grid to a range.
            importance: weights of the squared errors, at least 0, broadcast to ``values``; None
                for equal ones.
        """


class MinMax(Clip):
    """Clip nothing."""

    @override
    def fit(
        self, values: Tensor, dim: int, fit: Fit, *, importance: Tensor | None = None
    ) -> Affine:
        return fit(*limits(values, (dim,)))


class LeastSquares(Clip):
    """Shrink both ends by the ratio, from 0.3 to 1, that gives the least squared error."""

    @override
    def fit(
        self, values: Tensor, dim: int, fit: Fit, *, importance: Tensor | None = None
    ) -> Affine:
        low, high = limits(values, (dim,))
        values = torch.where(values.isfinite(), values, 0)
        least = torch.full_like(low, torch.inf)
        best = torch.ones_like(low)
        for ratio in torch.linspace(1.0, _LEAST_RATIO, _NUM_RATIOS).tolist():
            wrong = (fit(low * ratio, high * ratio).nearest(values) - values).square()
            wrong = wrong if importance is None else wrong * importance
            error = wrong.sum(dim, keepdim=True)
            best = torch.where(error < least, ratio, best)
            least = torch.minimum(error, least)
        return fit(low * best, high * best)
