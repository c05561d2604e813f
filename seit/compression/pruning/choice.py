"""Choice of the weights to keep, by their scores.

Legend: O output channels, I inputs.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

GROUP, KEPT = 4, 2
"""Neighboring inputs of a group of the pattern 2:4, and those that are kept."""
Scope = Literal["network", "layer", "row"]


def cubic_share(share: float, done: int, steps: int) -> float:
    """Return the share of zeros after ``done`` of ``steps`` steps: s · (1 − (1 − t/T)³).

    Zhu and Gupta, To prune, or not to prune (arXiv 1710.01878), from zero.
    """
    left = 1 - min(done, steps) / steps
    return share * (1 - left**3)


def keep_highest(scores: Mapping[str, Tensor], share: float, *, scope: Scope) -> dict[str, Tensor]:
    """Keep the highest scores but for a share.

    Args:
        scores: (O, …) of each weight, by name.
        share: share to remove, 0–1.
        scope: what scores are compared within: all weights, a weight, or an output channel.

    Returns:
        Masks, bool, True for kept; round((1 − share) · n) of n in each scope.
    """
    if scope == "network":
        flat = torch.cat([one.flatten() for one in scores.values()])
        parts = _keep_in_rows(flat[None], share)[0].split([one.numel() for one in scores.values()])
        return {
            name: part.reshape(one.shape)
            for part, (name, one) in zip(parts, scores.items(), strict=True)
        }
    rows = {
        name: one.flatten(1) if scope == "row" else one.flatten()[None]
        for name, one in scores.items()
    }
    return {
        name: _keep_in_rows(one, share).reshape(scores[name].shape) for name, one in rows.items()
    }


def _keep_in_rows(scores: Tensor, share: float) -> Tensor:
    count = round((1 - share) * scores.shape[1])
    index = scores.topk(count, dim=1, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, index, True)


def keep_two_of_four(scores: Tensor, share: float) -> Tensor:
    """Keep the two highest of every four neighboring inputs, in some of the groups.

    Args:
        scores: (O, I, …), I a multiple of 4; inputs of a convolution are its input channels.
        share: share to remove, 0–½: 2 · ``share`` of the groups lose two, those that lose least.

    Returns:
        Mask, bool, True for kept.
    """
    moved = scores.movedim(1, -1)
    groups = moved.reshape(-1, GROUP)
    lowest = groups.topk(GROUP - KEPT, dim=1, largest=False)
    count = round(share * GROUP / (GROUP - KEPT) * len(groups))
    losing = lowest.values.sum(1).topk(count, largest=False, sorted=False).indices
    mask = torch.ones_like(groups, dtype=torch.bool)
    mask[losing] = mask[losing].scatter(1, lowest.indices[losing], False)
    return mask.reshape(moved.shape).movedim(-1, 1)


def takes_two_of_four(weight: Tensor) -> bool:
    """Return whether the inputs of a weight (O, I, …) fall into groups of four."""
    return weight.shape[1] % GROUP == 0
