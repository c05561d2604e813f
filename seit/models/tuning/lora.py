"""LoRA: low-rank deltas of linear layers (Hu et al., arXiv 2106.09685).

Legend: B batch, N tokens, I inputs and O outputs of a layer or of a third of it, R rank.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.models.tuning.base import Addition, Tuning, like
from seit.models.tuning.blocks import find_linear, first_blocks, transformer_blocks
from seit.models.tuning.config import SLICES, TuningConfig


class LowRank(nn.Module):
    """Delta s · B A of a weight, initially 0: A Kaiming uniform (He et al.), B zero.

    Args:
        inputs: I.
        outputs: O.
        rank: R.
        scale: s; None for a learned one that starts at 1.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, scale: float | None) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = nn.Parameter(torch.ones(())) if scale is None else None
        self.fixed_scale = scale
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return the change of the layer's outputs (…, O) for its inputs (…, I)."""
        return F.linear(F.linear(x, self.a), self.b) * self._scale

    def delta(self) -> Tensor:
        """Return the change (O, I) of the weight."""
        return self.b @ self.a * self._scale

    @property
    def rank(self) -> int:
        """Rank R."""
        return len(self.a)

    @property
    def _scale(self) -> Tensor | float:
        if self.scale is not None:
            return self.scale
        assert self.fixed_scale is not None
        return self.fixed_scale


def add_delta(module: Any, args: Any, output: Tensor) -> Tensor:
    """Add the low-rank delta of a linear layer, the only one of ``module.lora``; a forward hook."""
    (delta,) = module.lora.values()
    added: Tensor = delta(args[0])
    return output + added.to(output.dtype)


def add_to_thirds(module: Any, args: Any, output: Tensor) -> Tensor:
    """Add the low-rank deltas of thirds of a linear layer, by target; a forward hook."""
    thirds = list(output.chunk(len(SLICES), dim=-1))
    for target, delta in module.lora.items():
        number = SLICES.index(target)
        thirds[number] = thirds[number] + delta(args[0]).to(output.dtype)
    return torch.cat(thirds, dim=-1)


class DeltaLinear(nn.Linear):
    """Linear layer whose ``weight`` includes the low-rank delta of ``lora``.

    It serves networks that multiply by the weight instead of calling the layer, such as WavLM. The
    parameter keeps its name and its value.
    """

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Weight (O, I) with the delta."""
        lora: Any = self.lora
        (delta,) = lora.values()
        own = self._parameters["weight"]
        assert own is not None
        added: Tensor = delta.delta()
        return own + added.to(own.dtype)


class Lora(Tuning):
    """Low-rank deltas of the weights of attention and MLP, all of one rank."""

    mergeable = True
    size_setting = "rank"

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        by_layer: dict[str, tuple[Addition, nn.Linear, dict[str, nn.Module]]] = {}
        for block in first_blocks(transformer_blocks(model), self.config.num_blocks, model):
            for target in self.config.targets:
                name, linear = find_linear(block, target)
                is_third = block.is_fused and target in SLICES
                outputs = linear.out_features // (len(SLICES) if is_third else 1)
                made = self.make_delta(linear.in_features, outputs, self.config)
                place = Addition(name, "lora", add_to_thirds if is_third else add_delta)
                if block.multiplies_weights:
                    place = Addition(name, "lora", kinds=(nn.Linear, DeltaLinear))
                by_layer.setdefault(name, (place, linear, {}))[2][target] = made
        return [
            (place, like(linear, nn.ModuleDict(deltas)))
            for place, linear, deltas in by_layer.values()
        ]

    def make_delta(self, inputs: int, outputs: int, config: TuningConfig) -> nn.Module:
        """Return a new delta of a layer, or of a third of one."""
        scale = None if config.learn_scale else (config.alpha or config.rank) / config.rank
        return LowRank(inputs, outputs, config.rank, scale=scale)

    def deltas(self) -> Iterator[tuple[str, str, Any]]:
        """Yield each delta as (name of its layer, target, delta)."""
        for addition in self._additions:
            held: Any = self.model.get_submodule(addition.name)
            for target, delta in held.items():
                yield addition.owner, target, delta

    @override
    def fold(self) -> None:
        thirds = {one.owner for one in self._additions if one.hook is add_to_thirds}
        for name, target, delta in self.deltas():
            weight = self.model.get_submodule(name)._parameters["weight"]
            assert weight is not None
            part = weight.chunk(len(SLICES))[SLICES.index(target)] if name in thirds else weight
            part += delta.delta()

    @override
    def ranks(self) -> dict[str, int]:
        return {_rank_name(name, target): delta.rank for name, target, delta in self.deltas()}


def _rank_name(layer: str, target: str) -> str:
    """Return a name such as ``blocks.0.attn.q``, a third of ``blocks.0.attn.qkv``."""
    return f"{layer.rpartition('.')[0]}.{target}"
