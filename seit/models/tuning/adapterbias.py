"""AdapterBias: one vector per block, added to the MLP's output with a weight per token.

Legend: B batch, N tokens, D model dim, F hidden dim of an MLP.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.models.tuning.base import Addition, Tuning, like
from seit.models.tuning.blocks import dims_of_mlp, first_blocks, transformer_blocks


class WeighedVector(nn.Module):
    """Weighted vector v · α(h): (…, inputs) → (…, D), initially 0.

    AdapterBias (arXiv 2205.00305) initializes α as any linear layer; here its weights start at 0,
    and v at 1 as there, so that a tuned model starts as the pretrained one.

    Args:
        inputs: dim of h.
        dim: D.
        zero_start: False to initialize α as any linear layer.
    """

    def __init__(self, inputs: int, dim: int, *, zero_start: bool = True) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.ones(dim))
        self.alpha = nn.Linear(inputs, 1)
        if zero_start:
            nn.init.zeros_(self.alpha.weight)
            nn.init.zeros_(self.alpha.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Return the vector weighted per token, (…, D), for features (…, inputs)."""
        share: Tensor = self.alpha(h)
        return self.vector * share


def add_bias_of_output(module: Any, args: Any, output: Tensor) -> Tensor:
    """Add the vector, weighted by a module's output; a forward hook."""
    del args
    added: Tensor = module.adapterbias(output)
    return output + added.to(output.dtype)


def add_bias_of_input(module: Any, args: Any, output: Tensor) -> Tensor:
    """Add the vector, weighted by a module's input; a forward hook."""
    added: Tensor = module.adapterbias(args[0])
    return output + added.to(output.dtype)


class AdapterBias(Tuning):
    """Vector added to the MLP's output with a weight per token (arXiv 2205.00305)."""

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        planned: list[tuple[Addition, nn.Module | nn.Parameter]] = []
        for block in first_blocks(transformer_blocks(model), self.config.num_blocks, model):
            last, hidden, dim = dims_of_mlp(block)
            if self.config.adapterbias_input == "hidden":
                place = Addition(last, "adapterbias", add_bias_of_input)
            else:
                hidden, place = (
                    dim,
                    Addition(f"{block.name}.{block.mlp}", "adapterbias", add_bias_of_output),
                )
            made = WeighedVector(hidden, dim, zero_start=self.config.zero_start)
            planned.append((place, like(block.module, made)))
        return planned
