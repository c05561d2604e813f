"""Test-time augmentation: the mean probability over views of a grid.

Legend: B batch, C channels, h w cropped grid, V views, N classes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.augment import GridViews, PixelAugment, StoredTokens, TokenAugment
from seit.errors import UsageError
from seit.shards import Store


class MeanOfViews(nn.Module):
    """Network over views (V, B, C, h, w) that returns logits (B, N) of their mean probabilities.

    Args:
        model: inputs (B, C, h, w) → logits (B, N).
        has_label_sets: True for a probability of each class instead of a distribution over them.
    """

    def __init__(self, model: nn.Module, *, has_label_sets: bool) -> None:
        super().__init__()
        self.model = model
        self._has_sets = has_label_sets

    @override
    def forward(self, views: Tensor) -> Tensor:
        logits = torch.stack([self.model(view).float() for view in views])
        if not self._has_sets:
            return logits.log_softmax(-1).logsumexp(0) - math.log(len(views))
        present, absent = (F.logsigmoid(sign * logits).logsumexp(0) for sign in (1, -1))
        return present - absent


def views_of(store: Store, augment: TokenAugment | PixelAugment) -> GridViews:
    """Return the views of a store's grids for a run's network.

    Raises:
        UsageError: the run takes pixels, is deployed as a file that crops by itself, or there is
            only one view.
    """
    if isinstance(augment, PixelAugment):
        raise UsageError("--tta takes views of tokens, and the run takes pixels; leave it out")
    if isinstance(augment, StoredTokens):
        raise UsageError(
            "--tta takes views of tokens, and this compressed run is a file that crops them by "
            "itself; evaluate the run that it was made from"
        )
    tokenizer = store.card.tokenizer
    is_sound = tokenizer.modality == "audio"
    return GridViews(augment, flips=tokenizer.flip_equivariant, is_sound=is_sound)
