"""The compiled `context` coder: tables in the layout of the compiled loops.

Legend: N samples, L = H·W tokens, K codes, R entries of a row.
"""

import numpy as np
import numpy.typing as npt

from seit.shards.context import kernels
from seit.shards.context.tables import MAX_SCORE, ContextTables


class Coder:
    """Tables in the layout of the compiled functions; thread-safe."""

    def __init__(self, tables: ContextTables) -> None:
        shape = tables.shape
        self._num_codes = tables.num_codes
        self._paths = tables.paths
        self._codes = tables.codes
        self._levels = np.array(shape.levels, dtype=np.uint64)
        self._bases = np.array(shape.bases, dtype=np.uint64)
        self._weights = np.concatenate([tables.folded.reshape(-1), tables.corner.reshape(-1)])
        scores = np.clip(np.arange(-3 * 128, 3 * 127 + 1), -MAX_SCORE, MAX_SCORE)
        self._squash = tables.squash[scores + MAX_SCORE]
        self._row_size = shape.row_size

    def encode(
        self, tokens_NL: npt.NDArray[np.uint16], grid: tuple[int, int]
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
        """Encode ids uint16 (N, L): the streams' words, uint16, and their lengths, int64 (N,)."""
        count, length = tokens_NL.shape
        symbols = length * len(self._levels)
        words = np.empty(count * (symbols + 2), dtype=np.uint16)
        sizes = np.empty(count, dtype=np.int64)
        total = kernels.encode(
            tokens_NL,
            grid[1],
            self._paths,
            self._weights,
            self._squash,
            self._levels,
            self._bases,
            self._num_codes,
            self._row_size,
            words,
            sizes,
        )
        return words[:total], sizes

    def decode(
        self,
        words: npt.NDArray[np.uint16],
        bounds: npt.NDArray[np.int64],
        grid: tuple[int, int],
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
        """Decode as :func:`seit.shards.context.reference.decode`."""
        count = len(bounds)
        lanes = -(-count // kernels.LANES) * kernels.LANES
        padded = np.zeros((lanes, 2), dtype=np.uint64)
        padded[:count] = bounds
        padded[count:] = bounds[:1]
        ids = np.empty((lanes, grid[0] * grid[1]), dtype=np.uint16)
        whole = np.empty(lanes, dtype=np.bool_)
        kernels.decode(
            np.append(words, np.uint16(0)),
            padded,
            grid[1],
            self._codes,
            self._weights,
            self._squash,
            self._levels,
            self._bases,
            self._num_codes,
            self._row_size,
            ids,
            whole,
        )
        return ids[:count].reshape(count, *grid), whole[:count]
