"""Patch discriminator, which tells photographs from reconstructions.

Legend: B batch, P planes, Y X height and width.
"""

from torch import Tensor, nn
from typing_extensions import override

_LAYERS = 3
_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Four 4×4 convolutions; each output judges 46 × 46 pixels.

    After PatchGAN (Isola et al., "Image-to-Image Translation with Conditional Adversarial
    Networks", 2017), one layer shallower, and with group instead of batch norm, so that scores do
    not depend on the rest of the batch.
    """

    def __init__(self, planes: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in range(_LAYERS):
            channels = width << layer
            layers.append(nn.Conv2d(planes, channels, 4, stride=2, padding=1))
            if layer:
                layers.append(nn.GroupNorm(1, channels))
            layers.append(nn.LeakyReLU(_SLOPE))
            planes = channels
        self.layers = nn.Sequential(*layers, nn.Conv2d(planes, 1, 4, padding=1))

    @override
    def forward(self, planes: Tensor) -> Tensor:
        """Map planes (B, P, Y, X), −1…1, to scores (B, 1, Y/8 − 1, X/8 − 1), high for originals."""
        scores: Tensor = self.layers(planes)
        return scores
