"""Weights of few bits in a tokenizer's file: their part of its card, and how they are read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from seit.documents import as_record
from seit.packed_weights import PackedWeight, WeightGrid
from seit.tokenizers.base import Tokenizer

_KEY = "packed"


@dataclass(frozen=True, kw_only=True)
class _Entry(WeightGrid):
    """Layout of a packed weight, and its type once it is unpacked."""

    dtype: Literal["float16", "float32"]


def packed_entry(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the entry of a file's card for the weights of few bits; none if there are none."""
    if not tokenizer.packed:
        return {}
    dtypes = {name: str(one.dtype) for name, one in tokenizer.tensors().items()}
    entries = {
        name: {**asdict(one.grid), "dtype": dtypes[name].removeprefix("torch.")}
        for name, one in tokenizer.packed.items()
    }
    return {_KEY: entries}


def take_packed(
    card: Mapping[str, Any], tensors: dict[str, Tensor], *, origin: str
) -> dict[str, PackedWeight]:
    """Replace packed weights among the tensors of a file by their values, and return them.

    Memory is bounded by the file: a byte gives at most eight values.

    Args:
        card: the card of the file.
        tensors: its tensors by name; changed in place.
        origin: name of the file, for messages.

    Raises:
        DamagedError: tensors and card do not fit together.
    """
    entries = as_record(card.get(_KEY, {}), dict[str, _Entry], origin=origin)
    packed = {}
    for name, one in entries.items():
        grid = WeightGrid(bits=one.bits, group=one.group, shape=one.shape)
        packed[name] = PackedWeight.take(name, grid, tensors, origin=origin)
        tensors[name] = packed[name].dense().to(getattr(torch, one.dtype))
    return packed
