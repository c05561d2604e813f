"""Momentum teacher: a slowly updated copy of the student that produces the keys.

Legend: B batch, C codebook dim, h w token grid, E dim of projections.
"""

import copy
import math

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from typing_extensions import override

from seit.models import check_encoder, pooled

LEAST_MOMENTUM, MOST_MOMENTUM = 0.9, 0.996
"""Bounds of the initial momentum; the upper one is SiT's, for runs of 10⁵ steps and more."""
_SPANS = 40
"""Number of times that a teacher at its initial pace is replaced in a run."""


def start_momentum(steps: int) -> float:
    """Return the teacher's momentum in the first step of a run of this length.

    1 − 40 / steps, between 0.9 and 0.996, which is reached at 10,000 steps. With SiT's constant
    0.996, the final teacher after 800 steps would still be a fifth of its random start; with this
    rule it is exp(−20) or less.
    """
    return min(max(1 - _SPANS / steps, LEAST_MOMENTUM), MOST_MOMENTUM)


def teacher_momentum(start: float, progress: float) -> float:
    """Return the teacher's momentum, rising from ``start`` to 1 by a cosine.

    1 − (1 − start) · (1 + cos(π · progress)) / 2, as in BYOL (arXiv 2006.07733) and SiT;
    ``progress`` is the completed share of the run, 0–1.
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2


class Teacher(nn.Module):
    """Encoder and projection head, copied from the student and never trained.

    Its encoder drops nothing, even if the student does. Its batch norms use the batch's statistics
    when the student's do and keep their own running averages.
    """

    def __init__(self, encoder: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.encoder = check_encoder(copy.deepcopy(encoder))
        self.projection = copy.deepcopy(projection)
        for module in list(self.encoder.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, DropPath):
                    setattr(module, name, nn.Identity())
        self.requires_grad_(False)
        self.train(self.training)

    @override
    def train(self, mode: bool = True) -> "Teacher":
        """Set the mode; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    @override
    def forward(self, inputs_BChw: Tensor) -> Tensor:
        """Return keys (B, E) of inputs (B, C, h, w), without gradients."""
        keys: Tensor = self.projection(pooled(self.encoder, inputs_BChw))
        return keys

    @torch.no_grad()
    def follow(self, encoder: nn.Module, projection: nn.Module, *, momentum: float) -> None:
        """Update every weight to momentum · itself + (1 − momentum) · the student's."""
        mine: list[Tensor] = [*self.encoder.parameters(), *self.projection.parameters()]
        theirs: list[Tensor] = [*encoder.parameters(), *projection.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - momentum)
