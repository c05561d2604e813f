"""GPTQ: rounding of one input after another, each error made up for by the inputs that follow.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323, algorithm 1. Differences: the groups of a convolution are rounded
together; scales are those of the original weight ("static groups"), so that groups of inputs and
``act_order`` combine; an output whose error is smaller with the nearest codes keeps these.

Legend: O output channels, I inputs of one, g groups of a convolution, r outputs of a group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from seit.compression.weights.grids import GroupedGrid
from seit.compression.weights.rounding import Rounding, better_rows

_BLOCK = 128
"""Columns whose errors are passed on within the block at once, and to later blocks together."""
_LARGER = 10.0
_TRIES = 12


@dataclass(frozen=True, kw_only=True)
class GPTQ(Rounding):
    """GPTQ.

    Attributes:
        damping: share of the mean diagonal of the Hessian that is added to the diagonal.
        act_order: round inputs of large second moments first.
    """

    damping: float = 0.01
    act_order: bool = True

    needs_inputs = True

    @override
    def codes(self, weight: Tensor, grid: GroupedGrid, gram: Tensor | None) -> Tensor:
        nearest = grid.columns.encode(weight)
        if gram is None:
            return nearest
        order = self._order(gram)
        back = order.argsort(1)
        groups = order.shape[0]

        def ordered(rows: Tensor, by: Tensor) -> Tensor:
            parts = rows.reshape(groups, -1, rows.shape[1])
            return parts.gather(2, by[:, None].expand_as(parts))

        hessian = gram.gather(1, order[:, :, None].expand_as(gram))
        hessian = hessian.gather(2, order[:, None].expand_as(gram))
        sweep = _Sweep(
            ordered(weight, order).clone(),
            ordered(grid.columns.scale.double(), order),
            ordered(grid.columns.zero.double(), order),
            inverse_factor(hessian, damping=self.damping),
            top=grid.affine.codes.high,
        )
        found = ordered(sweep.run().flatten(0, 1), back).flatten(0, 1)
        return better_rows(found.to(torch.int32), nearest, weight, grid, gram)

    def _order(self, gram: Tensor) -> Tensor:
        """Return the order (g, I) of the inputs."""
        diagonal = gram.diagonal(dim1=1, dim2=2)
        if self.act_order:
            return diagonal.argsort(dim=1, descending=True, stable=True)
        return torch.arange(diagonal.shape[1], device=gram.device).expand_as(diagonal)


@dataclass(frozen=True)
class _Sweep:
    """Rounding of all columns in turn.

    Attributes:
        weight: float64 (g, r, I), with the errors of earlier columns made up for; changes.
        scale: float64 (g, r, I).
        zero: float64 (g, r, I).
        factor: float64 (g, I, I), see :func:`inverse_factor`.
        top: the greatest code.
    """

    weight: Tensor
    scale: Tensor
    zero: Tensor
    factor: Tensor
    top: int

    def run(self) -> Tensor:
        """Return codes (g, r, I), float64."""
        codes = torch.empty_like(self.weight)
        for start in range(0, codes.shape[2], _BLOCK):
            end = min(start + _BLOCK, codes.shape[2])
            errors = torch.empty_like(self.weight[:, :, start:end])
            for column in range(start, end):
                errors[:, :, column - start] = self._round(column, end, codes)
            self.weight[:, :, end:] -= errors @ self.factor[:, start:end, end:]
        return codes

    def _round(self, column: int, end: int, codes: Tensor) -> Tensor:
        """Round a column, change the rest of its block, and return its scaled errors (g, r)."""
        scale, zero = self.scale[:, :, column], self.zero[:, :, column]
        wanted = self.weight[:, :, column]
        chosen = ((wanted / scale).round() + zero).clamp(0, self.top)
        codes[:, :, column] = chosen
        errors = (wanted - (chosen - zero) * scale) / self.factor[:, None, column, column]
        later = self.factor[:, None, column, column + 1 : end]
        self.weight[:, :, column + 1 : end] -= errors[:, :, None] * later
        return errors


def inverse_factor(hessian: Tensor, *, damping: float) -> Tensor:
    """Return the upper triangular U (g, I, I) with H⁻¹ = Uᵀ U, of a damped Hessian.

    Args:
        hessian: float64 (g, I, I), positive semidefinite. Where it is singular in spite of the
            damping, the latter grows tenfold until it is not.
        damping: share of the mean diagonal that is added to the diagonal.
    """
    mean = hessian.diagonal(dim1=1, dim2=2).mean(1)
    mean = torch.where(mean > 0, mean, 1.0)
    identity = torch.eye(hessian.shape[1], dtype=hessian.dtype, device=hessian.device)
    share = damping
    for _ in range(_TRIES):
        damped = hessian + (share * mean)[:, None, None] * identity
        lower, fault = torch.linalg.cholesky_ex(damped)
        if not fault.any():
            upper, fault = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not fault.any():
                found: Tensor = upper
                return found
        share = max(share, 1e-10) * _LARGER
    raise AssertionError("a positive semidefinite matrix, damped, has a Cholesky factor")
