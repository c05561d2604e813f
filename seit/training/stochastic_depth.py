"""Stochastic depth (Huang et al., arXiv 1603.09382) with one draw per sample.

timm draws from a global generator, so a sample's draw depends on its batch. Here it is a function
of (seed, epoch, position in the epoch), like every augmentation: the same for any number of ranks,
any split of the batch, and after a resume.

Legend: B batch, L layers with stochastic depth.
"""

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from typing_extensions import override

from seit.augment import Op, SampleRandom


class StochasticDepth(nn.Module):
    """Scale a residual branch (B, …) by 0 or 1 / (1 − p) in training; see `draw`."""

    scale: Tensor

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.register_buffer("scale", torch.ones(1), persistent=False)

    @override
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * self.scale.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)


class Depth:
    """Stochastic depth of a model: replaces timm's, and draws for a batch.

    Leaves branches that a network drops without timm's module, as in EfficientNet, unchanged.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers: list[StochasticDepth] = []
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, DropPath) and child.drop_prob:
                    layer = StochasticDepth(child.drop_prob)
                    setattr(module, name, layer)
                    self.layers.append(layer)

    def draw(self, random: SampleRandom) -> Tensor:
        """Return the scales (B, L) of a batch's samples."""
        uniform_BL = random.uniform(Op.DEPTH, (len(self.layers),))
        keep_L = torch.tensor([1 - layer.drop_prob for layer in self.layers])
        keep_L = keep_L.to(uniform_BL.device, non_blocking=True)
        return (uniform_BL < keep_L) / keep_L

    def set(self, scales_BL: Tensor) -> None:
        """Set the scales of the next samples."""
        for layer, scale_B in zip(self.layers, scales_BL.unbind(1), strict=True):
            if layer.scale.shape != scale_B.shape:
                layer.scale = torch.empty_like(scale_B)
            layer.scale.copy_(scale_B)
