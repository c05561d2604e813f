"""Weights with many zeros: a bitmap of the places of the others, and their values."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from seit.errors import DamagedError

_PLACES, _VALUES = "places", "values"


@dataclass(frozen=True)
class SparseWeight:
    """Weight as a bitmap and its nonzero values.

    Attributes:
        shape: shape of the weight.
        places: uint8 (⌈n / 8⌉,), a bit for each of the n elements in row-major order, 1 for a
            stored one, the first in the highest bit of a byte.
        values: float32, the stored elements in this order.
    """

    shape: tuple[int, ...]
    places: Tensor
    values: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Self:
        """Store the nonzero elements of a weight."""
        flat = weight.detach().cpu().float().flatten()
        places = torch.from_numpy(np.packbits((flat != 0).numpy()))
        return cls(tuple(weight.shape), places, flat[flat != 0])

    def dense(self) -> Tensor:
        """Return the values, float32 of the weight's shape."""
        count = math.prod(self.shape)
        flat = torch.zeros(count)
        flat[_bits(self.places, count)] = self.values
        return flat.reshape(self.shape)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return what a file keeps of the weight called ``name``."""
        return {f"{name}.{_PLACES}": self.places, f"{name}.{_VALUES}": self.values}

    @classmethod
    def take(
        cls, name: str, shape: tuple[int, ...], tensors: dict[str, Tensor], *, origin: str
    ) -> Self:
        """Take the weight called ``name`` out of the tensors of a file.

        Raises:
            DamagedError: the tensors are not those of such a weight.
        """
        places, values = (tensors.pop(f"{name}.{key}", None) for key in (_PLACES, _VALUES))
        count = math.prod(shape) if shape and all(size > 0 for size in shape) else 0
        fits = (
            count > 0
            and places is not None
            and values is not None
            and places.dtype == torch.uint8
            and tuple(places.shape) == (-(-count // 8),)
            and values.dtype == torch.float32
            and tuple(values.shape) == (int(_bits(places, count).sum()),)
        )
        if not fits:
            raise DamagedError(
                f"{origin} holds no bitmap and values of {name}, a sparse weight of shape "
                f"{list(shape)}; restore it from a copy"
            )
        assert places is not None
        assert values is not None
        return cls(shape, places, values)


def is_worth_it(weight: Tensor) -> bool:
    """Return whether bitmap and nonzero values take fewer bytes than the weight as it is."""
    size = weight.element_size()
    return weight.numel() / 8 + size * int(weight.count_nonzero()) < size * weight.numel()


def _bits(places: Tensor, count: int) -> Tensor:
    """Return the first ``count`` bits of a bitmap, bool (count,)."""
    return torch.from_numpy(np.unpackbits(places.numpy(), count=count).astype(np.bool_))
