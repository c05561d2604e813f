"""Layers whose weights can be stored in few bits."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from seit.models import is_of_head


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution of a network.

    Attributes:
        name: its name in the network.
        module: the layer.
        is_edge: whether it is the first layer or the classifier.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    is_edge: bool


def quantizable(model: nn.Module) -> Sequence[Layer]:
    """Return the linear layers and convolutions of a network, in the order of its modules."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    return [
        Layer(name, module, index == 0 or is_of_head(model, f"{name}.weight"))
        for index, (name, module) in enumerate(found)
    ]
