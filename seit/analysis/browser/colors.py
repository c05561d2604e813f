"""Pictures of ids without a tokenizer: similar codes have similar colors.

Legend: n samples, R rows of a stored grid, L levels, H = R / L, W columns, K codes, C codebook dim.
"""

import numpy as np
import numpy.typing as npt

from seit.shards import Store

_CELL = 8
"""Pixels of a token."""
_MAX_DIM = 4096


class ColorMap:
    """Map from ids to colors, by the three main axes of the codebook's vectors.

    Levels of a residual tokenizer are drawn with the colors of the first.
    """

    def __init__(self, store: Store) -> None:
        levels_LKC = store.codebook.reshape(-1, *store.codebook.shape[-2:])
        self._levels = len(levels_LKC)
        self._colors_K3 = _colors(levels_LKC[0])
        self.colors = [" ".join(map(str, color)) for color in self._colors_K3.tolist()]
        """Color of each code, as the three numbers of CSS."""

    def __call__(self, tokens_nRW: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
        """Draw the first level of ids (n, R, W): uint8 (n, 8·H, 8·W, 3)."""
        rows = tokens_nRW.shape[1] // self._levels
        colors: npt.NDArray[np.uint8] = self._colors_K3[tokens_nRW[:, :rows]]
        return colors.repeat(_CELL, axis=1).repeat(_CELL, axis=2)


def _colors(codes_KC: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return a color for each code, uint8 (K, 3): its rank along each of three axes."""
    K, C = codes_KC.shape
    centered = np.nan_to_num(codes_KC[:, :_MAX_DIM].astype(np.float64))
    centered -= centered.mean(axis=0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    ranks = np.zeros((K, 3))
    for channel in range(min(3, C)):
        order = np.argsort(centered @ axes[:, -1 - channel], kind="stable")
        ranks[order, channel] = np.linspace(0.1, 0.95, K)
    if C == 1:
        ranks[:] = ranks[:, :1]
    colors: npt.NDArray[np.uint8] = np.rint(255 * ranks).astype(np.uint8)
    return colors
