"""Learned average of all hidden states, like SUPERB's featurizer (arXiv 2105.01051).

Legend: B batch, N tokens, D model dim, L blocks.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import UsageError
from seit.models.tuning.base import Addition, Tuning

_WEIGHTS = "layer_weights"


class WeightedSequential(nn.Sequential):
    """Blocks that return the average of the first block's input and every block's output.

    The weights are the softmax of ``layer_weights`` (L + 1,), initialized to 0: a plain mean.
    """

    layer_weights: nn.Parameter

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Return the average over depth (B, N, D) for tokens (B, N, D)."""
        shares = self.layer_weights.softmax(0)
        x, total = input, shares[0] * input
        for share, block in zip(shares[1:], self, strict=True):
            x = block(x)
            total = total + share * x
        return total.to(x.dtype)


class WeightedSum(Tuning):
    """Training of the average's weights only; the layers after the blocks receive the average."""

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        blocks: Any = getattr(model, "blocks", None)
        if type(blocks) is not nn.Sequential or any(not hasattr(one, "attn") for one in blocks):
            raise UsageError(
                f"weighted-sum averages the states between a plain ViT's blocks, and a "
                f"{type(model).__name__} has no such row of them; choose a ViT or another method"
            )
        zeros = torch.zeros(len(blocks) + 1)
        weight = next(blocks.parameters())
        made = nn.Parameter(zeros.to(weight.device, weight.dtype))
        return [(Addition("blocks", _WEIGHTS, kinds=(nn.Sequential, WeightedSequential)), made)]

    @override
    def layer_shares(self) -> dict[str, float]:
        blocks: Any = self.model.get_submodule("blocks")
        names = ("stem", *(f"blocks.{index}" for index in range(len(blocks))))
        shares = blocks.layer_weights.detach().float().softmax(0).tolist()
        return dict(zip(names, shares, strict=True))
