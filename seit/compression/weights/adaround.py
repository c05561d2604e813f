"""AdaRound: gradient descent on rounding up or down.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv 2004.10568.
Differences: the reconstruction error and its gradient are those of all calibration samples,
computed from the second moments of the inputs, instead of a batch of samples; the error is divided
by the mean error per weight of nearest rounding, so that λ has one meaning for all layers.

Legend: O output channels, I inputs of one, g groups of a convolution.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from seit.compression.weights.grids import GroupedGrid
from seit.compression.weights.rounding import Rounding, better_rows, output_error

_ZETA, _GAMMA = 1.1, -0.1
"""Stretch of the sigmoid."""
_BETAS = (20.0, 2.0)
"""Exponent of the regularizer, annealed from the first to the second."""
_WARM_UP = 0.2
"""Share of the steps without the regularizer."""


@dataclass(frozen=True, kw_only=True)
class AdaRound(Rounding):
    """AdaRound.

    Attributes:
        steps: steps of Adam.
        lr: learning rate.
        weight: λ, the weight of the regularizer.
    """

    steps: int = 1000
    lr: float = 2e-2
    weight: float = 10.0

    needs_inputs = True

    @override
    def codes(self, weight: Tensor, grid: GroupedGrid, gram: Tensor | None) -> Tensor:
        nearest = grid.columns.encode(weight)
        if gram is None:
            return nearest
        share = self.shares(weight, grid, gram)
        found = (_floor(weight, grid) + (share >= 0.5)).clamp(0, grid.affine.codes.high)
        return better_rows(found.to(torch.int32), nearest, weight, grid, gram)

    def shares(self, weight: Tensor, grid: GroupedGrid, gram: Tensor) -> Tensor:
        """Return h(V) (O, I), how far each value is rounded up after the last step, 0–1.

        Arguments as in :meth:`codes`.
        """
        floor, scale = _floor(weight, grid).float(), grid.columns.scale
        zero, target = grid.columns.zero, weight.float()
        unit_error = output_error(grid.columns.nearest(weight) - weight, gram).mean()
        gram32 = (gram / unit_error.clamp(min=1e-30) * weight.shape[1]).float()
        rest = (weight / scale).float() - (floor - zero)
        unit = ((rest.clamp(0, 1) - _GAMMA) / (_ZETA - _GAMMA)).clamp(1e-4, 1 - 1e-4)
        logits = unit.logit().requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=self.lr)
        for step in range(self.steps):
            share = _stretched(logits)
            codes = (floor + share).clamp(0, grid.affine.codes.high)
            change = (codes - zero) * scale - target
            parts = change.reshape(len(gram), -1, change.shape[1])
            loss = ((parts @ gram32) * parts).sum()
            if step >= _WARM_UP * self.steps:
                loss = loss + self.weight * _undecided(share, _beta(step / self.steps)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return _stretched(logits.detach())


def _floor(weight: Tensor, grid: GroupedGrid) -> Tensor:
    """Return the code below each value (O, I), float64; it may lie outside the range of codes."""
    return (weight / grid.columns.scale.double()).floor() + grid.columns.zero


def _stretched(logits: Tensor) -> Tensor:
    """Return h(V), the stretched sigmoid, 0–1."""
    return (logits.sigmoid() * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)


def _undecided(share: Tensor, beta: float) -> Tensor:
    """Return 1 − |2h − 1|^β: 0 for shares of 0 and 1."""
    return 1 - (2 * share - 1).abs().pow(beta)


def _beta(done: float) -> float:
    """Return β after a share of all steps."""
    first, last = _BETAS
    return first + (last - first) * (done - _WARM_UP) / (1 - _WARM_UP)
