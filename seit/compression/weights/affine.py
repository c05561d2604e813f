"""Affine quantization: reals ↔ integer codes, with a scale and a zero point.

A value x has the code q = clamp(round(x / s) + z, low, high), rounded half to even, and a code
stands for s · (q − z). The real 0 always has a code of its own, z (Jacob et al., arXiv 1712.05877;
Gholami et al., arXiv 2103.13630, section III).

Scales and zero points have any shape that broadcasts against the values, so that a tensor, each of
its channels or each group of inputs may have its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CodeRange:
    """Codes of a grid: the integers from ``low`` to ``high``, both included."""

    low: int
    high: int

    @classmethod
    def unsigned(cls, bits: int) -> "CodeRange":
        """Return 0 … 2ᵇ − 1, for asymmetric grids."""
        return cls(low=0, high=(1 << bits) - 1)

    @classmethod
    def restricted(cls, bits: int) -> "CodeRange":
        """Return ±(2ᵇ⁻¹ − 1), for symmetric grids of two or more bits."""
        top = (1 << (bits - 1)) - 1
        return cls(low=-top, high=top)


@dataclass(frozen=True)
class Affine:
    """Grid of quantized values.

    Attributes:
        scale: float32, above 0: the distance of two neighboring values.
        zero: int32, the code of the real 0.
        codes: range of the codes, which includes ``zero``.
    """

    scale: Tensor
    zero: Tensor
    codes: CodeRange

    def encode(self, values: Tensor) -> Tensor:
        """Return the nearest codes, int32; infinities get an end of the range, NaN the zero."""
        steps = (values / self.scale).round().nan_to_num(nan=0.0)
        # As floats, since steps may exceed every integer; `codes` fit float32 exactly.
        moved = (steps + self.zero).clamp(self.codes.low, self.codes.high)
        return moved.to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values of codes, float32."""
        return (codes - self.zero) * self.scale

    def nearest(self, values: Tensor) -> Tensor:
        """Return the nearest values of the grid, float32 ("fake quantization")."""
        return self.decode(self.encode(values))


def limits(values: Tensor, dims: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest finite value over some dimensions, 0 among them.

    Args:
        values: float, of any shape, possibly empty.
        dims: the dimensions, kept with size 1; all by default.

    Returns:
        Two tensors, float32.
    """
    dims = tuple(range(values.ndim)) if dims is None else dims
    known = torch.where(values.isfinite(), values, 0).float()
    if values.numel() == 0:
        known = known.new_zeros([max(1, size) for size in values.shape])
    return known.amin(dims, keepdim=True).clamp(max=0), known.amax(dims, keepdim=True).clamp(min=0)


def asymmetric(low: Tensor, high: Tensor, codes: CodeRange, *, half: bool = False) -> Affine:
    """Fit a grid to ranges from ``low`` ≤ 0 to ``high`` ≥ 0, both float.

    Args:
        low: the least values.
        high: the greatest values.
        codes: range of the codes.
        half: round scales to float16, as they are stored; codes and zero points then fit these.
    """
    span = high.double() - low.double()
    scale = _positive(span / (codes.high - codes.low), half=half)
    zero = (codes.low - low.double() / scale.double()).round().clamp(codes.low, codes.high)
    return Affine(scale, zero.to(torch.int32), codes)


def symmetric(low: Tensor, high: Tensor, codes: CodeRange, *, half: bool = False) -> Affine:
    """Fit a grid around 0 whose code is 0; arguments as in :func:`asymmetric`."""
    magnitude = torch.maximum(-low, high).double()
    scale = _positive(magnitude / codes.high, half=half)
    return Affine(scale, torch.zeros_like(scale, dtype=torch.int32), codes)


def _positive(scale: Tensor, *, half: bool) -> Tensor:
    """Return scales as float32; those of ranges that hold 0 alone are 1."""
    kind = torch.float16 if half else torch.float32
    facts = torch.finfo(kind)
    known = torch.where(scale > 0, scale.clamp(facts.smallest_normal * facts.eps, facts.max), 1.0)
    return known.to(kind).float()
