"""Stored grids as inputs, for networks that crop and embed them by themselves."""

from torch import Tensor
from typing_extensions import override

from seit.augment.config import AugmentConfig
from seit.augment.pipeline import TokenAugment


class StoredTokens(TokenAugment):
    """Token grids as they are stored, for evaluation by a network that includes crop and look-up.

    Args:
        codebook: (K, C), or (L, K, C), floating point.
        grid: (H, W), or (L·H, W), of the stored grids.
    """

    def __init__(self, codebook: Tensor, grid: tuple[int, int]) -> None:
        super().__init__(codebook, grid, AugmentConfig(synonym_prob=0))

    @override
    def evaluate(self, tokens: Tensor) -> Tensor:
        """Return the ids (B, L·H, W) themselves.

        Raises:
            UsageError: tokens have another grid.
        """
        self.check_batch(tokens, self.stored_grid)
        return tokens
