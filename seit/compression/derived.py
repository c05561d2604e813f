"""Weights that a layer derives from its own: rounded or masked in each forward pass.

The layer's parameter keeps its name, and is what is optimized; reading ``layer.weight`` gives what
a submodule of the layer makes of it. So any code that uses the weight sees the derived one, and
copies, averages, optimizers and checkpoints treat the network like any other.
"""

from typing import Any

import torch
from torch import Tensor, nn

RULE = "rule"
"""Name of the submodule that derives the weight."""


class _Derived:
    @property
    def weight(self: Any) -> Tensor:
        derived: Tensor = self.get_submodule(RULE)(own_weight(self))
        return derived


_KINDS: dict[type, type] = {}
"""Classes of layers with a derived weight, by that of their own."""


def derive_weight(layer: nn.Module, rule: nn.Module) -> None:
    """Make ``rule``, a module of weights → weights, derive the weight of a layer."""
    layer.add_module(RULE, rule.to(own_weight(layer).device))
    kind = type(layer)
    _KINDS.setdefault(kind, type(kind.__name__, (_Derived, kind), {}))
    layer.__class__ = _KINDS[kind]


def own_weight(layer: nn.Module) -> nn.Parameter:
    """Return the parameter of a layer that its weight is derived from."""
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight


@torch.no_grad()
def settle_weights(model: nn.Module) -> None:
    """Replace the weights of layers by the derived ones, and remove the rules, in place."""
    for layer in list(model.modules()):
        if isinstance(layer, _Derived):
            assert isinstance(layer, nn.Module)
            own_weight(layer).copy_(layer.weight)
            layer.__class__ = type(layer).__bases__[1]
            delattr(layer, RULE)
