"""The binary tree over the codes: similar codes share a branch, and a token is a path.

Every code is a leaf at depth b = ceil(log2 K). A token is coded as its b turns from the root, each
with its own probability, in groups of up to five levels; each group is one symbol of the entropy
coder. A *group tree* is the subtree below one node that one symbol decides; its inner nodes are
adjacent in memory.

Legend: K codes, C codebook dimension, R entries of a row (one for each inner node).
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from seit.shards.packed import token_bits

GROUP_LEVELS = 5
"""Most levels that one symbol of the entropy coder decides: 32 branches."""


class TreeShape:
    """Positions of the inner nodes of the tree for K codes in a row of R entries.

    Group g holds ``levels[g]`` levels. Below the prefix p of the turns before it, its group tree
    takes the ``2**levels[g]`` entries from ``bases[g] + (p << levels[g])`` on: entry 1 is its root,
    and the children of entry h are 2h and 2h + 1 (turns 0 and 1); entry 0 is unused.
    """

    def __init__(self, num_codes: int) -> None:
        self.num_codes = num_codes
        self.depth = token_bits(num_codes)
        whole, rest = divmod(self.depth, GROUP_LEVELS)
        self.levels = (GROUP_LEVELS,) * whole + ((rest,) if rest else ())

    @property
    def num_leaves(self) -> int:
        """Number of leaves, used or not: 2**b."""
        return 1 << self.depth

    @cached_property
    def bases(self) -> tuple[int, ...]:
        """Start of each group in a row."""
        return tuple(self._starts[:-1])

    @property
    def row_size(self) -> int:
        """R, number of entries in a row."""
        return self._starts[-1]

    @property
    def first_size(self) -> int:
        """R0, number of entries of the first group, which begins a row."""
        return 1 << self.levels[0]

    @cached_property
    def _starts(self) -> list[int]:
        starts, depth = [0], 0
        for levels in self.levels:
            depth += levels
            starts.append(starts[-1] + (1 << depth))
        return starts


def grow_tree(
    codebook_KC: npt.NDArray[np.floating], counts_K: npt.NDArray[np.integer]
) -> npt.NDArray[np.uint16]:
    """Assign codes to leaves so that neighbors in the codebook share branches: uint16 (K,).

    Codes are split recursively along the principal axis of their vectors, weighted by frequency,
    so that both halves occur equally often, as far as the numbers of leaves allow.
    """
    num_codes = len(codebook_KC)
    vectors_KC = np.nan_to_num(codebook_KC.astype(np.float64))
    weights_K = counts_K.astype(np.float64) + 1
    paths_K = np.zeros(num_codes, dtype=np.uint16)
    todo = [(np.arange(num_codes), 0, token_bits(num_codes))]
    while todo:
        codes, path, levels = todo.pop()
        if levels == 0:
            paths_K[codes] = path
        elif len(codes) == 1:
            todo.append((codes, 2 * path, levels - 1))
        else:
            left, right = _split(codes, vectors_KC[codes], weights_K[codes], 1 << (levels - 1))
            todo += [(left, 2 * path, levels - 1), (right, 2 * path + 1, levels - 1)]
    return paths_K


def _split(
    codes: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    room: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    centred = vectors - np.average(vectors, axis=0, weights=weights)
    _, axes = np.linalg.eigh((centred * weights[:, None]).T @ centred)
    ordered = np.argsort(centred @ axes[:, -1], kind="stable")
    mass = np.cumsum(weights[ordered])
    half = int(np.searchsorted(mass, mass[-1] / 2)) + 1
    cut = min(max(half, len(codes) - room, 1), room, len(codes) - 1)
    return codes[ordered[:cut]], codes[ordered[cut:]]
