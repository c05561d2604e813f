"""Choice of the codes of a weight.

Legend: O output channels, I inputs of one, g groups of a convolution (1 for linear layers).
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from seit.compression.weights.grids import GroupedGrid


class Rounding(ABC):
    """Choice of the codes of a weight on a given grid.

    Attributes:
        needs_inputs: whether it needs the second moments of the layer's inputs.
    """

    needs_inputs: bool

    @abstractmethod
    def codes(self, weight: Tensor, grid: GroupedGrid, gram: Tensor | None) -> Tensor:
        """Return codes (O, I), int32.

        Args:
            weight: float64 (O, I).
            grid: grid of the weight.
            gram: float64 (g, I, I), the mean of x xᵀ over the inputs x of the layer; None where
                they are unknown, as for a layer that is never called.
        """


class Nearest(Rounding):
    """Round each value to the nearest code."""

    needs_inputs = False

    @override
    def codes(self, weight: Tensor, grid: GroupedGrid, gram: Tensor | None) -> Tensor:
        return grid.columns.encode(weight)


def output_error(change: Tensor, gram: Tensor) -> Tensor:
    """Return the mean squared error (O,) of each output for a change (O, I) of the weight.

    Both arguments are float64; ``gram`` is the one of :meth:`Rounding.codes`.
    """
    parts = change.reshape(len(gram), -1, change.shape[1])
    return ((parts @ gram) * parts).sum(-1).flatten()


def better_rows(
    first: Tensor, second: Tensor, weight: Tensor, grid: GroupedGrid, gram: Tensor
) -> Tensor:
    """Return, for each output, those of two choices of codes (O, I) with the smaller error."""
    errors = [
        output_error(grid.columns.decode(codes).double() - weight, gram)
        for codes in (first, second)
    ]
    return torch.where((errors[0] <= errors[1])[:, None], first, second)
