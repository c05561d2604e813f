"""Rounding of weights to the nearest code.

Legend: O output channels, I inputs, G groups of inputs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from seit.models import PackedWeight, WeightGrid


def fit_grid(weight: Tensor, *, bits: int, group: int = 0) -> tuple[WeightGrid, Tensor, Tensor]:
    """Fit an asymmetric grid to the range of each group of inputs; 0 is always a code.

    Args:
        weight: float (O, …).
        bits: bits of a code.
        group: inputs that share a scale; 0 for all of an output channel.

    Returns:
        The layout; scales float16 (O, G), above 0; zeros uint8 (O, G).
    """
    grid = WeightGrid(bits=bits, group=group, shape=tuple(weight.shape))
    rows = weight.detach().float().reshape(grid.rows, grid.columns)
    size = group or grid.columns
    padded = F.pad(rows, (0, grid.num_groups * size - grid.columns))
    grouped = padded.reshape(grid.rows, grid.num_groups, size)
    low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
    top = (1 << bits) - 1
    tiny = torch.finfo(torch.float16).tiny
    scales = ((high - low) / top).clamp(min=tiny).half()
    zeros = (-low / scales.float()).round().clamp(0, top).to(torch.uint8)
    return grid, scales, zeros


def round_nearest(weight: Tensor, *, bits: int, group: int = 0) -> PackedWeight:
    """Round each value of a weight (O, …) to the nearest code of its group's grid."""
    grid, scales, zeros = fit_grid(weight, bits=bits, group=group)
    size = group or grid.columns
    index = torch.arange(grid.columns) // size
    rows = weight.detach().float().reshape(grid.rows, grid.columns)
    codes = (rows / scales.float()[:, index]).round() + zeros.float()[:, index]
    return PackedWeight(grid, codes.clamp(0, (1 << bits) - 1).to(torch.uint8), scales, zeros)
