"""The `context` decoder in plain numpy: all samples of a block in lockstep, turn by turn.

Slow and short, to be read alongside the specification and to test the fast one.

Legend: N samples, H W grid, K codes, R entries of a row.
"""

import numpy as np
import numpy.typing as npt

from seit.shards.context.tables import (
    LEFT,
    MAX_SCORE,
    NEIGHBOURS,
    PROBABILITY_BITS,
    UPPER,
    ContextTables,
)

_MASK = (1 << PROBABILITY_BITS) - 1


def decode(
    words: npt.NDArray[np.uint16],
    bounds: npt.NDArray[np.int64],
    grid: tuple[int, int],
    tables: ContextTables,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Decode the streams of N samples.

    Args:
        words: uint16, the concatenated streams.
        bounds: int64 (N, 2), start and end of each stream in ``words``; at least two words.
        grid: H, W.
        tables: tables of the store.

    Returns:
        Ids uint16 (N, H, W), K where a stream leads to an unused leaf; and bool (N,), whether the
        stream was consumed exactly.
    """
    height, width = grid
    words = np.append(words, np.uint16(0)).astype(np.int64)
    position, end = bounds[:, 0] + 2, bounds[:, 1]
    state = (words[bounds[:, 0]] << 16) | words[bounds[:, 0] + 1]
    bordered = np.full((len(bounds), height + 1, width + 2), tables.num_codes, dtype=np.uint16)
    for row in range(height):
        for column in range(width):
            left, upper, corner = (
                bordered[:, row + 1 + down, column + 1 + right] for down, right in NEIGHBOURS
            )
            scores = tables.folded[LEFT, left].astype(np.int64) + tables.folded[UPPER, upper]
            scores[:, : tables.shape.first_size] += tables.corner[corner]
            leaf = np.zeros(len(bounds), dtype=np.int64)
            for base, levels in zip(tables.shape.bases, tables.shape.levels, strict=True):
                start = base + (leaf << levels)
                slot = state & _MASK
                symbol, low, size = _find(scores, start, levels, slot, tables.squash)
                state = size * (state >> PROBABILITY_BITS) + slot - low
                hungry = (state < 1 << 16) & (position < end)
                state = np.where(hungry, (state << 16) | words[np.minimum(position, end)], state)
                position = position + hungry
                leaf = (leaf << levels) + symbol
            bordered[:, row + 1, column + 1] = tables.codes[leaf]
    return bordered[:, 1:, 1:-1], (state == 0) & (position == end)


def _find(
    scores_NR: npt.NDArray[np.int64],
    start_N: npt.NDArray[np.int64],
    levels: int,
    slot_N: npt.NDArray[np.int64],
    squash: npt.NDArray[np.uint16],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Descend a group tree to the branch whose interval holds the slot: (branch, low, size)."""
    rows = np.arange(len(scores_NR))
    entry = np.ones(len(scores_NR), dtype=np.int64)
    low = np.zeros_like(entry)
    size = np.full_like(entry, 1 << PROBABILITY_BITS)
    for leaves in (1 << level for level in range(levels, 0, -1)):
        score = np.clip(scores_NR[rows, start_N + entry], -MAX_SCORE, MAX_SCORE)
        probability = squash[score + MAX_SCORE].astype(np.int64)
        left = leaves // 2 + (((size - leaves) * probability) >> PROBABILITY_BITS)
        turn = slot_N >= low + left
        low = np.where(turn, low + left, low)
        size = np.where(turn, size - left, left)
        entry = 2 * entry + turn
    return entry - (1 << levels), low, size
