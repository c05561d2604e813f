"""Nearest samples by the histogram of their codes, exactly, among all splits.

Similarity is the overlap of two histograms: the share of positions whose codes both samples have,
0–1 (Swain and Ballard, "Color indexing", 1991). The nearest ones are also compared position by
position, as `seit duplicates` does, to find near-duplicates.

Legend: N samples of a block, H W grid, K codes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from seit.analysis.duplicates.similarity import scores
from seit.analysis.duplicates.vectors import Embedding
from seit.errors import DamagedError, UsageError
from seit.shards import Kind, Shard, Split, Store

MAX_COMPARED = 50_000
"""Most samples compared with one; of more, blocks evenly spaced over all splits are."""
_ENOUGH = 0.95


@dataclass(frozen=True)
class Neighbor:
    """Similar sample: its split and row, similarity 0–1, and score as a near-duplicate, ≤ 1."""

    split: str
    row: int
    similarity: float
    score: float | None = None


@dataclass(frozen=True)
class Neighborhood:
    """Nearest samples, the most similar first, and how many were compared of how many."""

    neighbors: Sequence[Neighbor]
    compared: int
    total: int


Search = Callable[[str, int], Neighborhood]
"""Function that finds the neighbors of a sample, given its split and row."""


def nearest_by_codes(store: Store, split: str, row: int, *, most: int = 12) -> Neighborhood:
    """Return the samples whose histograms of codes overlap most with that of one sample.

    Raises:
        DamagedError: the sample is in a damaged block.
    """
    tokens = store[split].read_tokens(np.array([row]))
    num_codes = store.card.layout.num_codes
    codes, counts = np.unique(tokens, return_counts=True)
    wanted = np.zeros(num_codes, dtype=np.int32)
    wanted[codes] = counts
    best: list[Neighbor] = []
    compared = 0
    for name, start, block_NHW in _blocks(store):
        compared += len(block_NHW)
        overlap = _overlap(block_NHW.reshape(len(block_NHW), -1), wanted, len(codes))
        if name == split and start <= row < start + len(block_NHW):
            overlap[row - start] = -1
        near = [
            Neighbor(name, start + place, float(overlap[place]) / tokens.size)
            for place in np.argsort(-overlap, kind="stable")[:most].tolist()
        ]
        best = sorted([*best, *near], key=lambda one: -one.similarity)[:most]
    best = [one for one in best if one.similarity >= 0]
    return Neighborhood(_scored(store, tokens, best), compared, store.card.samples)


def _overlap(
    tokens_NL: npt.NDArray[np.unsignedinteger], wanted_K: npt.NDArray[np.int32], num_used: int
) -> npt.NDArray[np.int64]:
    """Return Σ min(counts) of samples with one: int64 (N,), by the codes that one has."""
    place_K = np.full(len(wanted_K), num_used, dtype=np.int64)
    used = np.flatnonzero(wanted_K)
    place_K[used] = np.arange(len(used))
    places = place_K[tokens_NL] + (num_used + 1) * np.arange(len(tokens_NL))[:, None]
    counts = np.bincount(places.reshape(-1), minlength=len(tokens_NL) * (num_used + 1))
    counts = counts.reshape(len(tokens_NL), num_used + 1)[:, :num_used]
    found: npt.NDArray[np.int64] = np.minimum(counts, wanted_K[used]).sum(axis=1)
    return found


def _blocks(store: Store) -> Iterator[tuple[str, int, npt.NDArray[np.unsignedinteger]]]:
    """Yield split, first row and ids (N, H, W) of the blocks to compare; damaged ones are not."""
    stride = max(1, -(-store.card.samples // MAX_COMPARED))
    for name, split in store.items():
        for shard, block in _spaced(split, stride):
            try:
                tokens = shard.open_block(block, Kind.TOKENS)
            except DamagedError:
                continue
            yield name, shard.rows_of(block).start, tokens


def _spaced(split: Split, stride: int) -> Iterator[tuple[Shard, int]]:
    for number, place in enumerate(split.blocks()):
        if number % stride == 0:
            yield place


def _scored(
    store: Store, tokens_1HW: npt.NDArray[np.unsignedinteger], found: Sequence[Neighbor]
) -> list[Neighbor]:
    """Return the neighbors with their scores as near-duplicates, if the codebook allows them."""
    try:
        embedding = Embedding(store)
    except UsageError:
        return list(found)
    scored = []
    for one in found:
        other = store[one.split].read_tokens(np.array([one.row]))
        score = scores(
            tokens_1HW, other, embedding, mirrored=np.zeros(1, bool), zooms=True, enough=_ENOUGH
        )
        scored.append(replace(one, score=float(score[0])))
    return scored
