"""Checks of named tensors, wherever they come from."""

from collections.abc import Mapping

import torch
from torch import Tensor


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinity; waits for their device once."""
    named = {key: one for key, one in tensors.items() if one.is_floating_point() and one.numel()}
    if not named:
        return None
    flags = torch.stack([one.isfinite().all() for one in named.values()])
    return next((key for key, fine in zip(named, flags.tolist(), strict=True) if not fine), None)
