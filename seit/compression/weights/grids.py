"""Grids of packed weights: a float16 scale and a zero point for each group of inputs.

Legend: O output channels, I inputs of one (for convolutions times the kernel), G groups of inputs.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from seit.compression.weights.affine import Affine, CodeRange, asymmetric
from seit.compression.weights.clip import Clip
from seit.packed_weights import PackedWeight, WeightGrid


@dataclass(frozen=True)
class GroupedGrid:
    """Grid of one weight.

    Attributes:
        layout: bits, groups and shape.
        affine: scales and zero points (O, G); the scales are float16 numbers.
    """

    layout: WeightGrid
    affine: Affine

    @cached_property
    def columns(self) -> Affine:
        """The same grid with scales and zero points (O, I), one for each value."""
        index = torch.arange(self.layout.columns, device=self.affine.scale.device)
        index = index // _size(self.layout)
        return Affine(self.affine.scale[:, index], self.affine.zero[:, index], self.affine.codes)

    def pack(self, codes: Tensor) -> PackedWeight:
        """Return the weight of integer codes (O, I), on the host."""
        scale, zero = self.affine.scale, self.affine.zero
        return PackedWeight(
            self.layout,
            codes.to(torch.uint8).cpu(),
            scale.half().cpu(),
            zero.to(torch.uint8).cpu(),
        )


def fit_grid(
    weight: Tensor, *, bits: int, group: int, clip: Clip, importance: Tensor | None = None
) -> GroupedGrid:
    """Fit an asymmetric grid to each group of a weight's inputs.

    Args:
        weight: float (O, …).
        bits: bits of a code, 1–8.
        group: inputs that share a scale; 0 for all of an output channel.
        clip: choice of the ranges.
        importance: weights (O, I) of the squared errors of the values; None for equal ones.
    """
    layout = WeightGrid(bits=bits, group=group, shape=tuple(weight.shape))
    rows = weight.detach().float().reshape(layout.rows, layout.columns)
    fit = partial(asymmetric, codes=CodeRange.unsigned(bits), half=True)
    weighted = None if importance is None else _grouped(importance, layout)
    found = clip.fit(_grouped(rows, layout), 2, fit, importance=weighted)
    return GroupedGrid(layout, Affine(found.scale[..., 0], found.zero[..., 0], found.codes))


def _grouped(rows: Tensor, layout: WeightGrid) -> Tensor:
    """Return (O, I) as (O, G, inputs of a group), the last group filled up with zeros."""
    missing = layout.num_groups * _size(layout) - layout.columns
    return F.pad(rows, (0, missing)).reshape(layout.rows, layout.num_groups, _size(layout))


def _size(layout: WeightGrid) -> int:
    return layout.group or layout.columns
