"""Patches of a token grid, and predictions of their codes.

Legend: B batch, h w token grid, L patches, n some of them, s cells along a patch's side, C codebook
dim, K codes, D model dim.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.errors import UsageError
from seit.models import Stem, standardised


def patch_side(stem: Stem) -> int:
    """Return the cells along a side of a stem's patches; raise UsageError if they overlap."""
    if stem.early or stem.kernel != stem.stride or stem.padding:
        side = stem.side
        raise UsageError(
            f"the stem is {stem}, whose patches overlap, so masked ones leak into their "
            f"neighbors; for pretraining use {side}/{side}/0, or another single layer with kernel "
            "= stride and no padding, also in the run to start from"
        )
    return stem.stride


def patchify(cells_Bhw: Tensor, side: int) -> Tensor:
    """Split cells (B, h, w) into patches (B, L, s²), both row by row; the remainder is cut off."""
    rows, columns = (size // side for size in cells_Bhw.shape[1:])
    x = cells_Bhw[:, : rows * side, : columns * side]
    x = x.reshape(-1, rows, side, columns, side).permute(0, 1, 3, 2, 4)
    return x.reshape(-1, rows * columns, side * side)


def unpatchify(patches_BLs: Tensor, size: tuple[int, int], *, fill: Tensor) -> Tensor:
    """Invert :func:`patchify`: (B, L, s²) → (B, h, w), taking cells of no patch from ``fill``."""
    side = round(patches_BLs.shape[2] ** 0.5)
    rows, columns = (length // side for length in size)
    x = patches_BLs.reshape(-1, rows, columns, side, side).permute(0, 1, 3, 2, 4)
    whole = fill.clone()
    whole[:, : rows * side, : columns * side] = x.reshape(-1, rows * side, columns * side)
    return whole


class CodeHead(nn.Module):
    """Features of patches → logits of their cells' codes, tied to the codebook.

    A linear layer maps to C numbers per cell, followed by GELU and a layer norm; a logit is the dot
    product with the code's vector plus a bias per code (SeiT++ and MAGE, following BERT). The
    vectors are the store's, standardized, and frozen: the target must not adapt to the prediction.
    The norm's gain starts at 1/√C, so that logits vary by about 1 and the initial loss is near log
    K.
    """

    codes: Tensor

    def __init__(self, dim: int, codebook_KC: Tensor, *, side: int) -> None:
        super().__init__()
        K, C = codebook_KC.shape
        self.cells = side * side
        self.register_buffer("codes", standardised(codebook_KC), persistent=False)
        self.lift = nn.Linear(dim, self.cells * C)
        self.norm = nn.LayerNorm(C, eps=1e-6)
        nn.init.constant_(self.norm.weight, C**-0.5)
        self.bias = nn.Parameter(torch.zeros(K))

    def vectors(self, features_BnD: Tensor) -> Tensor:
        """Return predicted vectors (B, n, s², C), before the product with the codes."""
        lifted: Tensor = self.lift(features_BnD).unflatten(-1, (self.cells, -1))
        normed: Tensor = self.norm(F.gelu(lifted))
        return normed

    @override
    def forward(self, features_BnD: Tensor) -> Tensor:
        """Return logits (B, n, s², K)."""
        return self.vectors(features_BnD) @ self.codes.T.to(features_BnD.dtype) + self.bias


class Reconstruction(NamedTuple):
    """Reconstruction of masked cells by a network.

    Attributes:
        predicted: int64 (B, h, w), most likely codes of the masked cells, the ids elsewhere.
        masked: bool (B, h, w).
        loss: float32 (B,), mean cross-entropy over a sample's masked cells, in nats.
    """

    predicted: Tensor
    masked: Tensor
    loss: Tensor
