"""Adapters: small networks parallel to attention, after the MLP, or parallel to residual blocks.

Legend: B batch, N tokens, D model dim, F hidden dim of an MLP, H W size of a feature map.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.errors import UsageError
from seit.models.tuning.base import Addition, Tuning, like
from seit.models.tuning.blocks import (
    dim_of_attention,
    dims_of_mlp,
    first_blocks,
    map_dim,
    residual_blocks,
    transformer_blocks,
)


class Bottleneck(nn.Module):
    """Up(GELU(Down(x))), optionally times a learned scale: (…, D) → (…, D), initially 0.

    Args:
        dim: D.
        hidden_dim: width of the bottleneck.
        learn_scale: whether to multiply the result by a learned number that starts at 1.
        over_maps: whether to take (B, D, H, W) instead, with 1×1 convolutions.
        zero_start: False to initialize both layers as any others.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        learn_scale: bool = False,
        over_maps: bool = False,
        zero_start: bool = True,
    ) -> None:
        super().__init__()
        self.down: nn.Linear | nn.Conv2d
        self.up: nn.Linear | nn.Conv2d
        if over_maps:
            self.down, self.up = nn.Conv2d(dim, hidden_dim, 1), nn.Conv2d(hidden_dim, dim, 1)
        else:
            self.down, self.up = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
        self.scale = nn.Parameter(torch.ones(())) if learn_scale else None
        if not zero_start:
            return
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        assert self.down.bias is not None
        assert self.up.bias is not None
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return a term to add to features of the same shape."""
        added: Tensor = self.up(F.gelu(self.down(x)))
        return added if self.scale is None else added * self.scale


def add_adapter(module: Any, args: Any, output: Tensor) -> Tensor:
    """Add the adapter's output for a module's input; a forward hook."""
    added: Tensor = module.adapter(args[0])
    return output + added.to(output.dtype)


def add_houlsby(module: Any, args: Any, output: Tensor) -> Tensor:
    """Add the adapter's output for a module's output; a forward hook."""
    del args
    added: Tensor = module.houlsby(output)
    return output + added.to(output.dtype)


class Adapter(Tuning):
    """Bottleneck parallel to attention: attn(x) + s · Up(GELU(Down(x))), x after the norm.

    As in LAE (arXiv 2303.10070). In convolutional networks it consists of 1×1 convolutions,
    parallel to each whole residual block that keeps the shape of its features.
    """

    size_setting = "hidden_dim"

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        config = self.config
        places: list[tuple[str, nn.Module, int]]
        attends = bool(blocks := transformer_blocks(model))
        if attends:
            chosen = first_blocks(blocks, config.num_blocks, model)
            places = [
                (f"{one.name}.{one.attention}", one.module, dim_of_attention(one)) for one in chosen
            ]
        else:
            convolutions = residual_blocks(model)
            if not convolutions:
                raise UsageError(
                    f"this {type(model).__name__} has neither attention nor a residual block that "
                    "keeps the shape of its features, to which adapter would be parallel; choose a "
                    "network of more blocks, such as resnet18, or bitfit, linear or full"
                )
            kept = first_blocks(convolutions, config.num_blocks, model)
            places = [(name, module, map_dim(module)) for name, module in kept]
        planned: list[tuple[Addition, nn.Module | nn.Parameter]] = []
        for owner, module, dim in places:
            made = Bottleneck(
                dim, config.hidden_dim, learn_scale=config.learn_scale, over_maps=not attends
            )
            planned.append((Addition(owner, "adapter", add_adapter), like(module, made)))
        return planned


class Houlsby(Tuning):
    """Bottleneck after the MLP, in the residual branch: y + Up(GELU(Down(y))), y the MLP's output.

    One per block, as in the study on speech (arXiv 2210.06175), whose code initializes Up as any
    linear layer; here it starts at 0. Houlsby et al. (arXiv 1902.00751) have a second one after
    attention.
    """

    size_setting = "hidden_dim"

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        planned: list[tuple[Addition, nn.Module | nn.Parameter]] = []
        for block in first_blocks(transformer_blocks(model), self.config.num_blocks, model):
            dim, config = dims_of_mlp(block)[2], self.config
            made = Bottleneck(dim, config.hidden_dim, zero_start=config.zero_start)
            place = Addition(f"{block.name}.{block.mlp}", "houlsby", add_houlsby)
            planned.append((place, like(block.module, made)))
        return planned
