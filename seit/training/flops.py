"""Floating-point operations of any network, counted by torch: two for a multiply-add.

Matrix products, convolutions and attention count; norms, activations and sums do not. Dense
hardware multiplies the zeros of unstructured masks as fast as anything else, so times are measured
and reported apart from these counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

TRAINING_FACTOR = 3
"""Passes that a training step costs: forward, and backward once for the gradients of weights and
once for those of inputs. The unneeded gradient of the pixels or tokens is counted with them."""


@dataclass(frozen=True)
class Flops:
    """Operations of one forward pass of one sample.

    Attributes:
        forward: the whole pass.
        by_module: the share of each module, its children included, by its name in the model.
    """

    forward: int
    by_module: Mapping[str, int]

    @property
    def training(self) -> int:
        """Operations of a training step, per sample: `TRAINING_FACTOR` forward passes."""
        return TRAINING_FACTOR * self.forward

    def sparse_forward(self, kept: Mapping[str, float]) -> int:
        """Operations of a pass that leaves masked weights out.

        Args:
            kept: share of the weights that each masked layer keeps, 0–1, by the layer's name.
        """
        masked = {name: self.by_module[name] for name in kept}
        return self.forward - sum(round((1 - kept[name]) * count) for name, count in masked.items())


@torch.no_grad()
def count_flops(model: nn.Module, shape: Sequence[int]) -> Flops:
    """Count the operations of a model in evaluation, without computing anything.

    Args:
        model: any network on any device; it stays as it is.
        shape: of one input without the batch, such as (3, 224, 224).
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    shells = {name: torch.empty_like(value, device="meta") for name, value in named}
    dtype = next((one.dtype for one in shells.values() if one.is_floating_point()), torch.float32)
    inputs = torch.empty(1, *shape, dtype=dtype, device="meta")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            functional_call(model, shells, (inputs,))
    finally:
        for module, mode in modes:
            module.training = mode
    prefix = f"{type(model).__name__}."
    by_module = {
        name.removeprefix(prefix): sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name.startswith(prefix)
    }
    return Flops(counter.get_total_flops(), by_module)
