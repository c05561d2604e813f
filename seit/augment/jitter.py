"""Color jitter for pixels.

Legend: B batch, H W image.
"""

import torch
from torch import Tensor

from seit.augment.philox import Op
from seit.augment.random import SampleRandom

_GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma (ITU-R BT.601)."""


def color_jitter(x: Tensor, random: SampleRandom, *, strength: float) -> Tensor:
    """Change brightness, contrast and saturation, in this order, by a factor each.

    The factors are uniform in 1 ± ``strength``. Torchvision's ColorJitter draws the order as well.

    Args:
        x: (B, 3, H, W) floating point, 0–255.
        random: the samples' draws.
        strength: 0–1.

    Returns:
        (B, 3, H, W), 0–255.
    """
    if strength == 0:
        return x
    factors = 1 + strength * (2 * random.uniform(Op.JITTER, (3,)) - 1)
    brightness, contrast, saturation = factors.to(x.dtype).view(-1, 3, 1, 1, 1).unbind(1)
    x = (x * brightness).clamp_(0, 255)
    x = _blend(x, _gray(x).mean((2, 3), keepdim=True), contrast)
    return _blend(x, _gray(x), saturation)


def _blend(x: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(x), x, weight.expand_as(x)).clamp_(0, 255)


def _gray(x: Tensor) -> Tensor:
    weights = torch.tensor(_GRAY, dtype=x.dtype, device=x.device).view(3, 1, 1)
    return (x * weights).sum(1, keepdim=True)
