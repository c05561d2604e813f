"""Nearest samples by the histogram of their codes, exactly, among all splits.

Similarity is the overlap of two histograms: the share of positions whose codes both samples have,
0–1 (Swain and Ballard, "Color indexing", 1991). The nearest ones are also compared position by
position, as `seit duplicates` does, to find near-duplicates.

Legend: N samples of a block, H W grid, K codes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt

from seit.analysis.duplicates.similarity import scores
from seit.analysis.duplicates.vectors import Embedding
from seit.errors import DamagedError, UsageError
from seit.shards import Kind, Shard, Split, Store

MAX_COMPARED = 50_000
"""Most samples compared with one; of more, blocks evenly spaced over all splits are."""
MAX_KEPT_BYTES = 128 << 20
"""Most bytes of ids that are kept between searches."""
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


Ids = npt.NDArray[np.unsignedinteger]


class CodeSearch:
    """Search for the samples whose histograms of codes overlap most with that of one.

    The ids of the compared samples are decoded once and kept, if they take at most `MAX_KEPT_BYTES`
    (102 MB for 50,000 grids of 1,024 ids); else at each search.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: list[tuple[str, int, Ids]] | None = None
        self._lock = Lock()

    def nearest(self, split: str, row: int, *, most: int = 12) -> Neighborhood:
        """Return the nearest samples of one.

        Raises:
            DamagedError: the sample is in a damaged block.
        """
        tokens = self._store[split].read_tokens(np.array([row]))
        codes, counts = np.unique(self._codes_of(tokens), return_counts=True)
        levels = self._store.levels
        wanted = np.zeros(levels * self._store.card.layout.num_codes, dtype=np.int32)
        wanted[codes] = counts
        best: list[tuple[Neighbor, Ids]] = []
        compared = 0
        for name, start, block_NHW in self._blocks():
            compared += len(block_NHW)
            overlap = _overlap(self._codes_of(block_NHW), wanted, len(codes))
            if name == split and start <= row < start + len(block_NHW):
                overlap[row - start] = -1
            near = [
                (
                    Neighbor(name, start + place, float(overlap[place]) / tokens.size),
                    block_NHW[place : place + 1],
                )
                for place in np.argsort(-overlap, kind="stable")[:most].tolist()
            ]
            best = sorted([*best, *near], key=lambda one: -one[0].similarity)[:most]
        best = [one for one in best if one[0].similarity >= 0]
        return Neighborhood(self._scored(tokens, best), compared, self._store.card.samples)

    def _codes_of(self, tokens_NHW: Ids) -> npt.NDArray[np.int64]:
        """Return the codes of samples, int64 (N, H · W); each level has K of its own."""
        levels = self._store.levels
        by_level = tokens_NHW.reshape(len(tokens_NHW), levels, -1).astype(np.int64)
        by_level += np.arange(levels)[:, None] * self._store.card.layout.num_codes
        return by_level.reshape(len(tokens_NHW), -1)

    def _blocks(self) -> Iterable[tuple[str, int, Ids]]:
        """Return split, first row and ids (N, H, W) of the blocks to compare."""
        layout = self._store.card.layout
        compared = min(self._store.card.samples, MAX_COMPARED)
        if compared * layout.length * layout.dtype.itemsize > MAX_KEPT_BYTES:
            return _decoded(self._store)
        with self._lock:
            if self._kept is None:
                self._kept = list(_decoded(self._store))
            return self._kept

    def _scored(self, tokens_1HW: Ids, found: Sequence[tuple[Neighbor, Ids]]) -> list[Neighbor]:
        """Return neighbors with their scores as near-duplicates, if the codebook allows them."""
        embedding = self._embedding
        if embedding is None:
            return [one for one, _ in found]
        scored = []
        for one, other_1HW in found:
            score = scores(
                tokens_1HW,
                other_1HW,
                embedding,
                mirrored=np.zeros(1, bool),
                zooms=self._store.card.tokenizer.modality == "image",
                enough=_ENOUGH,
            )
            scored.append(replace(one, score=float(score[0])))
        return scored

    @cached_property
    def _embedding(self) -> Embedding | None:
        try:
            return Embedding(self._store)
        except UsageError:
            return None


def _overlap(
    tokens_NL: npt.NDArray[np.int64], wanted_K: npt.NDArray[np.int32], num_used: int
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


def _decoded(store: Store) -> Iterator[tuple[str, int, Ids]]:
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
