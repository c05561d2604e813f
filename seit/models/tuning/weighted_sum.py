"""Learned average of all hidden states, like SUPERB's featurizer (arXiv 2105.01051).

Legend: B batch, N tokens, D model dim, L blocks.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import UsageError
from seit.models.tuning.base import Addition, Tuning
from seit.tokenizers import SpeechNetwork

_WEIGHTS = "layer_weights"
_RATE_FACTORS = {_WEIGHTS: 10.0}
"""Learning rate as a multiple of the classifier's. The weights are exponents, so they have to move
by 1 to matter; at the rate of a classifier they stay where they started for thousands of steps."""


class WeightedSequential(nn.Sequential):
    """Blocks that return the average of the first block's input and every block's output.

    The weights are the softmax of ``layer_weights`` (L + 1,), initialized to 0: a plain mean.
    """

    layer_weights: nn.Parameter
    rate_factors = _RATE_FACTORS

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Return the average over depth (B, N, D) for tokens (B, N, D)."""
        shares = self.layer_weights.softmax(0)
        x, total = input, shares[0] * input
        for share, block in zip(shares[1:], self, strict=True):
            x = block(x)
            total = total + share * x
        return total.to(x.dtype)


class WeightedSpeechNetwork(SpeechNetwork):
    """Speech model whose frames are the average of the first block's input and all blocks' outputs.

    The last counts after the network's final norm. The weights are the softmax of ``layer_weights``
    (L + 1,), initialized to 0.
    """

    layer_weights: nn.Parameter
    rate_factors = _RATE_FACTORS

    @override
    def forward(self, waves: Tensor) -> Tensor:
        """Return the average over depth (B, F, D) of waveforms (B, T)."""
        shares = self.layer_weights.softmax(0)
        states: list[Tensor] = []

        def keep(value: Any) -> None:
            frames = value[0] if isinstance(value, tuple) else value
            states.append(shares[len(states)] * frames)

        first, *rest = self.blocks
        handles = [first.register_forward_pre_hook(lambda _, args: keep(args))]
        handles += [
            block.register_forward_hook(lambda *given: keep(given[-1]))
            for block in (first, *rest)[:-1]
        ]
        try:
            last = super().forward(waves)
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack([*states, shares[-1] * last]).sum(0)


class WeightedSum(Tuning):
    """Training of the average's weights only; the layers after the blocks receive the average."""

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        for name, network in model.named_modules():
            if type(network) is SpeechNetwork:
                made = nn.Parameter(torch.zeros(len(network.blocks) + 1))
                place = Addition(name, _WEIGHTS, kinds=(SpeechNetwork, WeightedSpeechNetwork))
                return [(place, _like(network, made))]
        blocks: Any = getattr(model, "blocks", None)
        if type(blocks) is not nn.Sequential or any(not hasattr(one, "attn") for one in blocks):
            raise UsageError(
                f"weighted-sum averages the states between a plain ViT's blocks, and those of a "
                f"{type(model).__name__} differ in width or resolution; choose --layer STAGE, "
                "a ViT or another method"
            )
        made = nn.Parameter(torch.zeros(len(blocks) + 1))
        place = Addition("blocks", _WEIGHTS, kinds=(nn.Sequential, WeightedSequential))
        return [(place, _like(blocks, made))]

    @override
    def layer_shares(self) -> dict[str, float]:
        average = next(one for one in self.model.modules() if isinstance(one, _AVERAGES))
        shares = average.layer_weights.detach().float().softmax(0).tolist()
        names = ("stem", *(f"blocks.{index}" for index in range(len(shares) - 1)))
        return dict(zip(names, shares, strict=True))


_AVERAGES = (WeightedSequential, WeightedSpeechNetwork)


def _like(module: nn.Module, made: nn.Parameter) -> nn.Parameter:
    """Return a parameter with the device and dtype of a module's first weight."""
    weight = next(module.parameters())
    return nn.Parameter(made.detach().to(weight.device, weight.dtype))
