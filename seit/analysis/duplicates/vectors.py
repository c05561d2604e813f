"""Embedding of ids by codebook vectors along their main axes.

Legend: n samples, R rows of a stored grid, L levels, H = R / L, W columns, K codes, C codebook dim,
D reduced.
"""

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.shards import Store

MAX_DIMENSIONS = 16
"""Maximum number of main axes to which codebook vectors are reduced."""
_MAX_CODEBOOK_DIM = 4096


class Embedding:
    """Map from ids (n, R, W) to vectors float32 (n, H, W, D), D ≤ 16; levels are summed.

    Raises:
        UsageError: the codebook vectors have too many dimensions.
    """

    def __init__(self, store: Store) -> None:
        levels_LKC = store.codebook.reshape(-1, *store.codebook.shape[-2:])
        self.num_levels, self._num_codes, dim = levels_LKC.shape
        if dim > _MAX_CODEBOOK_DIM:
            raise UsageError(
                f"codebook vectors have {dim} dimensions; duplicates are looked for with up to "
                f"{_MAX_CODEBOOK_DIM}"
            )
        vectors = (levels_LKC - levels_LKC.mean(axis=1, keepdims=True)).reshape(-1, dim)
        if dim > MAX_DIMENSIONS:
            _, axes = np.linalg.eigh(vectors.T @ vectors)
            vectors = vectors @ axes[:, -MAX_DIMENSIONS:]
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        rows, columns = store.card.layout.grid
        self.shape = (rows // self.num_levels, columns, self._vectors.shape[1])
        """(H, W, D)."""

    def __call__(self, tokens_nRW: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.float32]:
        """Look ids up."""
        if self.num_levels == 1:
            return np.asarray(self._vectors[tokens_nRW])
        height, width, dim = self.shape
        total = np.zeros((len(tokens_nRW), height, width, dim), dtype=np.float32)
        for level in range(self.num_levels):
            ids = tokens_nRW[:, level * height : (level + 1) * height].astype(np.int64)
            total += self._vectors[ids + level * self._num_codes]
        return total
