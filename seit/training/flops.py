"""Floating-point operations of any network, counted by torch: two per multiply-add.

Counts matrix products, convolutions and attention, but not norms, activations and sums. Dense
hardware multiplies the zeros of unstructured masks as fast as other values, so times are measured
and reported apart from these counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

TRAINING_FACTOR = 3
"""Cost of a training step in passes: forward, and backward for weights and for inputs. It includes
the unneeded gradient of the pixels or tokens."""


@dataclass(frozen=True)
class Flops:
    """Operations of one forward pass of one sample.

    Attributes:
        forward: the whole pass.
        by_module: operations of each module, including its children, by its name in the model.
    """

    forward: int
    by_module: Mapping[str, int]

    @property
    def training(self) -> int:
        """Operations of a training step, per sample: `TRAINING_FACTOR` forward passes."""
        return TRAINING_FACTOR * self.forward

    def sparse_forward(self, kept: Mapping[str, float]) -> int:
        """Return the operations of a pass that skips masked weights.

        Args:
            kept: fraction of the weights that each masked layer keeps, 0–1, by the layer's name.
        """
        masked = {name: self.by_module[name] for name in kept}
        return self.forward - sum(round((1 - kept[name]) * count) for name, count in masked.items())


@torch.no_grad()
def count_flops(
    model: nn.Module, shape: Sequence[int], *, dtype: torch.dtype | None = None
) -> Flops:
    """Count the operations of a model in evaluation mode, without computing anything.

    Args:
        model: any network on any device; left unchanged.
        shape: shape of one input without the batch, such as (3, 224, 224).
        dtype: dtype of the input; that of the weights by default.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    shells = {name: torch.empty_like(value, device="meta") for name, value in named}
    if dtype is None:
        floats = (one.dtype for one in shells.values() if one.is_floating_point())
        dtype = next(floats, torch.float32)
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
