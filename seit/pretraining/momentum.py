"""The momentum teacher: a copy of the student that follows it slowly and makes the keys.

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
"""Bounds of the first step's momentum; the second is SiT's own, for runs of 10⁵ steps and more."""
_SPANS = 40
"""Times that the teacher, at the pace of its first step, replaces itself within a run."""


def start_momentum(steps: int) -> float:
    """Return how much of itself the teacher keeps in the first step of a run of so many steps.

    1 − 40 / steps, at least 0.9 and at most 0.996, which runs of 10,000 steps reach. With SiT's
    0.996 throughout, the last teacher of 800 steps would still be a fifth of its random start; so
    it is exp(−20) of it, or less.

    Args:
        steps: of the whole run, at least 1.

    Returns:
        0.9–0.996.
    """
    return min(max(1 - _SPANS / steps, LEAST_MOMENTUM), MOST_MOMENTUM)


def teacher_momentum(start: float, progress: float) -> float:
    """Return the share of itself that the teacher keeps: from ``start`` to 1 by a cosine.

    1 − (1 − start) · (1 + cos(π · progress)) / 2, as BYOL (arXiv 2006.07733) and SiT have it.

    Args:
        start: 0–1.
        progress: share of the run that is over, 0–1.
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2


class Teacher(nn.Module):
    """An encoder and a projection head, copied at first and never trained.

    Nothing is dropped in its encoder, whatever the student drops. Its batch norms take the batch's
    statistics where the student's do and keep running averages of their own.

    Args:
        encoder: the student's.
        projection: the student's.
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
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    @override
    def forward(self, inputs_BChw: Tensor) -> Tensor:
        """Keys (B, E) of inputs (B, C, h, w), without gradients."""
        keys: Tensor = self.projection(pooled(self.encoder, inputs_BChw))
        return keys

    @torch.no_grad()
    def follow(self, encoder: nn.Module, projection: nn.Module, *, momentum: float) -> None:
        """Every weight becomes momentum · itself + (1 − momentum) · the student's."""
        mine: list[Tensor] = [*self.encoder.parameters(), *self.projection.parameters()]
        theirs: list[Tensor] = [*encoder.parameters(), *projection.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - momentum)
