"""Weights of few bits, packed: integer codes with a scale for each group of inputs.

Legend: O output channels, I inputs of one (for convolutions times the kernel), G groups of inputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from seit.bit_planes import pack, sample_bytes, unpack_reference
from seit.errors import DamagedError

MAX_BITS = 8
LEAST_SCALE = 2.0**-24
"""Smallest float16 above 0, hence the smallest scale."""
_CODES, _SCALES, _ZEROS = "codes", "scales", "zeros"


@dataclass(frozen=True, kw_only=True)
class WeightGrid:
    """Layout of a packed weight.

    Attributes:
        bits: bits of a code, 1–8.
        group: inputs that share a scale; 0 for all inputs of an output channel.
        shape: shape of the weight, (O, …).
    """

    bits: int
    group: int = 0
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of output channels, O."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Number of inputs of an output channel, I."""
        return math.prod(self.shape[1:])

    @property
    def num_groups(self) -> int:
        """Groups of an output channel, G; the last may be shorter."""
        return math.ceil(self.columns / self.group) if self.group else 1

    def check(self, name: str, origin: str) -> None:
        """Check a layout read from a file.

        Raises:
            DamagedError: no weight has it.
        """
        fits = (
            1 <= self.bits <= MAX_BITS
            and self.group >= 0
            and len(self.shape) >= 2
            and all(size > 0 for size in self.shape)
        )
        if not fits:
            raise DamagedError(
                f"{origin} holds {name} in {self.bits} bits, groups of {self.group} and shape "
                f"{list(self.shape)}, which no weight has; restore it from a copy"
            )


@dataclass(frozen=True)
class PackedWeight:
    """Weight as integer codes q, whose values are scale · (q − zero).

    Attributes:
        grid: its layout.
        codes: uint8 (O, I), each below 2**bits.
        scales: float16 (O, G).
        zeros: uint8 (O, G), the code of the value 0.
    """

    grid: WeightGrid
    codes: Tensor
    scales: Tensor
    zeros: Tensor

    def dense(self) -> Tensor:
        """Return the values, float32 of the weight's shape."""
        columns = torch.arange(self.grid.columns)
        group = columns // self.grid.group if self.grid.group else torch.zeros_like(columns)
        scales, zeros = (one.float()[:, group] for one in (self.scales, self.zeros))
        return (scales * (self.codes.float() - zeros)).reshape(self.grid.shape)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return what a file keeps of the weight called ``name``."""
        codes = self.codes.reshape(1, -1).numpy()
        packed = torch.from_numpy(pack(codes, self.grid.bits)[0])
        values = {_CODES: packed, _SCALES: self.scales, _ZEROS: self.zeros}
        return {f"{name}.{key}": one for key, one in values.items()}

    @classmethod
    def take(cls, name: str, grid: WeightGrid, tensors: dict[str, Tensor], *, origin: str) -> Self:
        """Take the weight called ``name`` out of the tensors of a file.

        Raises:
            DamagedError: the tensors are not those of such a weight.
        """
        grid.check(name, origin)
        count = grid.rows * grid.columns
        expected = {
            _CODES: (torch.uint8, (sample_bytes(count, grid.bits),)),
            _SCALES: (torch.float16, (grid.rows, grid.num_groups)),
            _ZEROS: (torch.uint8, (grid.rows, grid.num_groups)),
        }
        found: dict[str, Tensor] = {}
        for key, (dtype, shape) in expected.items():
            one = tensors.pop(f"{name}.{key}", None)
            if one is None or one.dtype != dtype or tuple(one.shape) != shape:
                kind = "none" if one is None else f"{one.dtype} {tuple(one.shape)}"
                raise DamagedError(
                    f"{origin} holds {kind} as {name}.{key} where {dtype} {shape} is expected; "
                    "restore it from a copy"
                )
            found[key] = one
        codes = unpack_reference(
            found[_CODES][None].numpy(), length=count, num_codes=1 << grid.bits
        )
        shaped = torch.from_numpy(codes.astype(np.uint8)).reshape(grid.rows, grid.columns)
        return cls(grid, shaped, found[_SCALES], found[_ZEROS])


def pack_weights(
    weights: Mapping[str, Tensor], packed: Mapping[str, PackedWeight]
) -> dict[str, Tensor]:
    """Return the tensors of a file: all weights by name, some of them packed."""
    tensors = {name: one for name, one in weights.items() if name not in packed}
    for name, weight in packed.items():
        tensors |= weight.tensors(name)
    return tensors
