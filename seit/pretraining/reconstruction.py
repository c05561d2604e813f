"""Head that restores codes or vectors of corrupted cells, and its loss.

Legend: B batch, h w token grid, L patches, s cells along a patch's side, C codebook dim, K codes, D
model dim.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.models import standardised
from seit.pretraining.patches import patchify

Target = Literal["codes", "vectors"]


class ReconstructionHead(nn.Module):
    """Features of patches → vectors of their cells, each in the space of the codebook.

    Two linear layers with GELU between them. SiT (arXiv 2104.03602) compares pixels by L1. For
    codes the loss is either the cross-entropy, with logits v · code + bias, or the L1 distance to
    the true code's vector, with logits of the nearest code: v · code − |code|² / 2. Codes are the
    store's, standardized and frozen.
    """

    codes: Tensor
    bias: Tensor

    def __init__(self, dim: int, codebook_KC: Tensor, *, side: int, target: Target) -> None:
        super().__init__()
        self.side = side
        self.target = target
        codes_KC = standardised(codebook_KC)
        self.register_buffer("codes", codes_KC, persistent=False)
        self.lift = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, side * side * codes_KC.shape[1])
        )
        if target == "codes":
            self.bias = nn.Parameter(torch.zeros(len(codes_KC)))
        else:
            self.register_buffer("bias", -codes_KC.square().sum(dim=1) / 2, persistent=False)

    @override
    def forward(self, features_BLD: Tensor) -> Tensor:
        """Return predicted vectors (B, L, s², C)."""
        vectors: Tensor = self.lift(features_BLD).unflatten(-1, (self.side**2, -1))
        return vectors

    def logits(self, features_BLD: Tensor) -> Tensor:
        """Return logits (B, L, s², K) of all cells."""
        vectors = self(features_BLD)
        logits: Tensor = vectors @ self.codes.T.to(vectors.dtype) + self.bias.to(vectors.dtype)
        return logits

    def loss(self, features_BLD: Tensor, ids_Bhw: Tensor, changed_Bhw: Tensor) -> Tensor:
        """Return the mean over samples (scalar, float32) of the mean loss over changed cells.

        Samples weigh equally, whatever their number of changed cells. All cells pass through the
        head, B · h · w · K logits, as the number of changed ones is known on the device only. Cells
        outside any patch do not count.

        Args:
            features_BLD: (B, L, D).
            ids_Bhw: (B, h, w) int64, 0 to K − 1: the true ids.
            changed_Bhw: (B, h, w) bool.
        """
        targets_BLs = patchify(ids_Bhw, self.side)
        if self.target == "codes":
            logits = self.logits(features_BLD).flatten(0, 2).float()
            loss = F.cross_entropy(logits, targets_BLs.flatten(), reduction="none")
            loss_BLs = loss.view_as(targets_BLs)
        else:
            truth = F.embedding(targets_BLs, self.codes)
            loss_BLs = (self(features_BLD).float() - truth).abs().mean(dim=-1)
        return mean_where(loss_BLs, patchify(changed_Bhw, self.side)).mean()


def mean_where(values_BLs: Tensor, chosen_BLs: Tensor) -> Tensor:
    """Return the mean (B,) of each sample's chosen values; 0 if none is chosen."""
    chosen = chosen_BLs.flatten(1).to(values_BLs.dtype)
    return (values_BLs.flatten(1) * chosen).sum(dim=1) / chosen.sum(dim=1).clamp(min=1)
