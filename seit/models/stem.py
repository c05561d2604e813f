"""Stem from embedded tokens (B, C, h, w) to the patch features of a timm backbone.

SeiT (arXiv 2303.11114, section 3.3) replaces the patch embedding by one convolution over the token
grid. The paper's ViT uses kernel 4, stride 2, padding 1 on 28×28 tokens; SeiT++'s masked token
modeling uses kernel 2, stride 2, no padding. Both give 14×14 patches. Stride 4 gives 7×7 and a
network four times as fast; stride 1 serves small grids.

Legend: B batch, C codebook dim, h w cropped grid, D model dim.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from timm.layers import LayerNorm2d
from torch import nn

from seit.errors import UsageError

Convolution = TypeVar("Convolution", nn.Conv2d, nn.ConvTranspose2d)


_FEWEST_CHANNELS = 16
"""Channels of the narrowest early layer."""
_MAX_LAYERS = 8


@dataclass(frozen=True)
class Stem:
    """Convolution of ``kernel``, ``stride`` and ``padding``, written ``"4/2/1"``.

    Early layers may come before it, written ``"3/2/1+3/2/1+4/4/0"``: convolutions with LayerNorm
    and GELU, whose channels double up to half the model dim. Pixels need them ("Early Convolutions
    Help Transformers See Better", arXiv 2106.14881, which normalizes by batch instead).
    """

    kernel: int
    stride: int
    padding: int
    early: tuple["Stem", ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Stem":
        """Parse ``kernel/stride/padding``, or several joined by ``+``.

        Raises:
            UsageError: the form is invalid, or a convolution would skip tokens.
        """
        *early, last = (cls._parse_one(part, text) for part in text.split("+", _MAX_LAYERS))
        return replace(last, early=tuple(early))

    @property
    def side(self) -> int:
        """Side of a patch in cells of the input: the product of all strides."""
        return math.prod(layer.stride for layer in (*self.early, self))

    @classmethod
    def early_convolutions(cls, strides: tuple[int, int, int]) -> "Stem":
        """Return two convolutions of kernel 3 and one of disjoint squares, with these strides."""
        *first, last = strides
        return cls(last, last, 0, tuple(cls(3, stride, 1) for stride in first))

    @classmethod
    def _parse_one(cls, part: str, text: str) -> "Stem":
        match = re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{1,2})", part)
        kernel, stride, padding = map(int, match.groups()) if match else (0, 0, 0)
        stem = cls(kernel, stride, padding)
        if not 1 <= stem.stride <= stem.kernel or 2 * stem.padding >= stem.kernel:
            raise UsageError(
                f"stem is {text!r}; expected kernel/stride/padding with stride ≤ kernel and "
                "padding < kernel / 2, such as 4/2/1, 2/2/0 or 4/4/0, or up to "
                f"{_MAX_LAYERS} of them, such as 3/2/1+4/4/0"
            )
        return stem

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the patches (rows, columns) of a grid of ``size``.

        Raises:
            UsageError: the grid is smaller than the kernel.
        """
        rows, columns = size
        for layer in (*self.early, self):
            rows, columns = (
                (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
                for side in (rows, columns)
            )
            if rows < 1 or columns < 1:
                raise UsageError(
                    f"a grid of {size[0]}×{size[1]} is too small for the stem {self}; choose a "
                    "smaller one, such as 3/1/1"
                )
        return rows, columns

    def convolution(self, channels: int, dim: int) -> nn.Conv2d:
        """Build the last convolution (B, C, h, w) → (B, D, rows, columns).

        Weights start with variance 1 / fan-in, biases at 0.
        """
        conv = nn.Conv2d(channels, dim, self.kernel, self.stride, self.padding)
        return initialized(conv, fan_in=channels * self.kernel**2)

    def build(self, channels: int, dim: int) -> nn.Module:
        """Build the layers (B, C, h, w) → (B, D, rows, columns)."""
        layers = list[nn.Module]()
        for number, layer in enumerate(self.early):
            width = max(_FEWEST_CHANNELS, dim >> (len(self.early) - number))
            layers += [layer.convolution(channels, width), LayerNorm2d(width), nn.GELU()]
            channels = width
        last = self.convolution(channels, dim)
        if not layers:
            return last
        # LayerNorm2d normalizes over the last dim in memory: a third less time of such a stem.
        return nn.Sequential(*layers, last).to(memory_format=torch.channels_last)

    def __str__(self) -> str:
        return "+".join(f"{one.kernel}/{one.stride}/{one.padding}" for one in (*self.early, self))


def initialized(adaptor: Convolution, *, fan_in: int) -> Convolution:
    """Initialize an adaptor with weights of variance 1 / ``fan_in`` and biases of 0."""
    nn.init.trunc_normal_(adaptor.weight, std=fan_in**-0.5)
    assert adaptor.bias is not None
    nn.init.zeros_(adaptor.bias)
    return adaptor
