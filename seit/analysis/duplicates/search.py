"""Near-duplicates between splits, found on tokens alone.

Exact duplicates are equal grids, found by a checksum. Near-duplicates pass two tests: the cosine
of their signatures (`signatures.py`), computed for every pair of samples, and, for the pairs that
remain, the mean distance of their codebook vectors, place by place (`similarity.py`). Time
grows with the product of the samples of two splits: 64 multiplications a pair. Memory is about
150 to 280 bytes a sample and a bounded number of pairs.

What it cannot see: crops of much more than a tenth, rotations, changed colors, and pictures within
others. What it shows too: pictures of one scene, and plain pictures of one make-up.

Shape letters: N samples, n pairs.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from seit.analysis.duplicates.signatures import Layouts, similar_rows
from seit.analysis.duplicates.similarity import scores
from seit.analysis.duplicates.vectors import Embedding
from seit.errors import UsageError
from seit.outcomes import Outcome
from seit.shards import Kind, Split, Store

LEAST_COSINE = 0.88
"""Of two signatures, for a pair to be looked at more closely."""
DEFAULT_THRESHOLD = 0.8
"""Score of a near-duplicate."""
MAX_CANDIDATES = 1_000_000
"""Pairs that are looked at more closely; beyond, those of the greatest cosines."""
_DIGEST = np.dtype("S16")
_VERIFY_PAIRS = 1024
Progress = Callable[[int, int], None]
"""Called with (samples or pairs done, how many there are)."""


@dataclass(frozen=True)
class Place:
    """A sample of a store: its split and its key."""

    split: str
    key: str


@dataclass(frozen=True)
class DuplicatePair:
    """Two samples that are the same or nearly so.

    Attributes:
        kind: ``exact`` for equal grids, ``mirrored`` where the second is nearly the mirror image.
        score: 1 for equal grids; at least the threshold.
        first: a sample.
        second: another one.
    """

    kind: Literal["exact", "near", "mirrored"]
    score: float
    first: Place
    second: Place


@dataclass(frozen=True, repr=False)
class Duplicates(Outcome):
    """Result of a search.

    Attributes:
        exact: pairs of equal grids.
        near: other pairs whose score is at least the threshold, mirrored ones included.
        pairs: exact ones first, then by falling score; no more than were asked for.
        unchecked: pairs of like layouts that were not looked at, being too many.
    """

    exact: int
    near: int
    pairs: tuple[DuplicatePair, ...]
    unchecked: int


@dataclass(frozen=True)
class _Signed:
    """A split with the checksums and signatures of its samples."""

    split: Split
    digests: npt.NDArray[np.bytes_]
    plain: npt.NDArray[np.float16]
    mirrored: npt.NDArray[np.float16] | None


@dataclass
class _Candidates:
    """Pairs of rows: int64 (n,) twice, float32 (n,), bool (n,)."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.bool_]
    dropped: int = 0

    def add(
        self,
        first: npt.NDArray[np.int64],
        second: npt.NDArray[np.int64],
        value: npt.NDArray[np.float32],
        *,
        mirrored: bool,
        most: int,
    ) -> None:
        """Add pairs; of more than twice ``most`` only the greatest values are kept."""
        self.first = np.concatenate([self.first, first])
        self.second = np.concatenate([self.second, second])
        self.value = np.concatenate([self.value, value])
        self.mirrored = np.concatenate([self.mirrored, np.full(len(first), mirrored)])
        if len(self.first) > 2 * most:
            self.keep_greatest(most)

    def keep_greatest(self, most: int) -> None:
        """Keep the ``most`` greatest values."""
        if len(self.first) > most:
            self.dropped += len(self.first) - most
            self.take(np.sort(np.argsort(-self.value, kind="stable")[:most]))

    def unite(self) -> None:
        """Have each pair once, straight or mirrored, as its value is greater."""
        self.take(np.lexsort((-self.value, self.second, self.first)))
        is_first = np.ones(len(self.first), dtype=bool)
        is_first[1:] = (np.diff(self.first) != 0) | (np.diff(self.second) != 0)
        self.take(np.flatnonzero(is_first))

    def take(self, chosen: npt.NDArray[np.intp]) -> None:
        """Keep the pairs of these numbers, in their order."""
        self.first, self.second = self.first[chosen], self.second[chosen]
        self.value, self.mirrored = self.value[chosen], self.mirrored[chosen]


def find_duplicates(
    store: Store,
    *,
    between: tuple[str, str] | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    most_pairs: int = 1000,
    max_candidates: int = MAX_CANDIDATES,
    progress: Progress | None = None,
) -> Duplicates:
    """Find pairs of samples of two splits that are the same or nearly so.

    Args:
        store: an open store.
        between: two splits, or one twice for pairs within it; else all pairs of different
            splits, or the only split.
        threshold: score from which on a pair is a near-duplicate, above 0, at most 1.
        most_pairs: how many pairs are listed; the others are only counted.
        max_candidates: pairs of two splits that are looked at more closely, which take 50 bytes
            each.
        progress: called now and then, for signatures first and pairs of splits then.

    Raises:
        UsageError: there is no such split, or the threshold is none.
        DamagedError: the store is damaged.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold is {threshold}; it goes from above 0 to 1")
    if most_pairs < 0 or max_candidates < 1:
        raise UsageError(f"{most_pairs} pairs of {max_candidates} candidates cannot be listed")
    names = [between] if between else list(combinations(store, 2)) or [(n, n) for n in store]
    splits = {name: store[name] for pair in names for name in pair}
    if not any(map(len, splits.values())):
        return Duplicates(exact=0, near=0, pairs=(), unchecked=0)
    embedding = Embedding(store)
    is_image = store.card.tokenizer.modality == "image"
    layouts = Layouts(store, embedding)
    signed = {}
    for number, (name, split) in enumerate(splits.items()):
        signed[name] = _Signed(
            split,
            _digests(split),
            layouts.signatures(split, mirrored=False),
            layouts.signatures(split, mirrored=True) if is_image else None,
        )
        if progress:
            progress(number + 1, len(splits))
    found = [
        _compare(
            signed[one],
            signed[other],
            embedding,
            threshold=threshold,
            most_pairs=most_pairs,
            max_candidates=max_candidates,
            zooms=is_image,
            progress=progress,
        )
        for one, other in names
    ]
    pairs = sorted(
        (pair for result in found for pair in result.pairs),
        key=lambda pair: (pair.kind != "exact", -pair.score),
    )
    return Duplicates(
        exact=sum(result.exact for result in found),
        near=sum(result.near for result in found),
        pairs=tuple(pairs[:most_pairs]),
        unchecked=sum(result.unchecked for result in found),
    )


def _compare(
    one: _Signed,
    other: _Signed,
    embedding: Embedding,
    *,
    threshold: float,
    most_pairs: int,
    max_candidates: int,
    zooms: bool,
    progress: Progress | None,
) -> Duplicates:
    exact, listed = _exact_pairs(one, other, most_pairs)
    candidates = _candidates(one, other, max_candidates)
    is_near = _verify(candidates, one.split, other.split, embedding, threshold, zooms, progress)
    candidates.take(np.flatnonzero(is_near))
    near = len(candidates.first)
    candidates.take(np.argsort(-candidates.value, kind="stable")[:most_pairs])
    rows = np.array(listed, dtype=np.int64).reshape(-1, 2)
    first_keys = _keys_at(one.split, np.concatenate([rows[:, 0], candidates.first]))
    second_keys = _keys_at(other.split, np.concatenate([rows[:, 1], candidates.second]))
    kinds: list[Literal["exact", "near", "mirrored"]] = ["exact"] * len(rows)
    kinds += ["mirrored" if flipped else "near" for flipped in candidates.mirrored.tolist()]
    values = [1.0] * len(rows) + [round(value, 4) for value in candidates.value.tolist()]
    pairs = tuple(
        DuplicatePair(kind, value, Place(one.split.name, first), Place(other.split.name, second))
        for kind, value, first, second in zip(kinds, values, first_keys, second_keys, strict=True)
    )
    return Duplicates(exact=exact, near=near, pairs=pairs, unchecked=candidates.dropped)


def _digests(split: Split) -> npt.NDArray[np.bytes_]:
    """The checksum of each grid: bytes (N,)."""
    split.check_files(len(split) * _DIGEST.itemsize)
    columns = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.TOKENS))
    found = (
        hashlib.blake2b(grid.tobytes(), digest_size=_DIGEST.itemsize).digest()
        for tokens in columns
        for grid in tokens
    )
    return np.fromiter(found, dtype=_DIGEST, count=len(split))


def _exact_pairs(one: _Signed, other: _Signed, most: int) -> tuple[int, list[tuple[int, int]]]:
    """Count the pairs of equal grids; returns also the first of them."""
    order = np.argsort(other.digests, kind="stable")
    ordered = other.digests[order]
    starts = np.searchsorted(ordered, one.digests, side="left")
    counts = np.searchsorted(ordered, one.digests, side="right") - starts
    is_within = one is other
    total = int(counts.sum() - len(counts)) // 2 if is_within else int(counts.sum())
    listed: list[tuple[int, int]] = []
    for row in np.flatnonzero(counts > is_within).tolist():
        partners = order[starts[row] : starts[row] + counts[row]]
        if is_within:
            partners = partners[partners > row]
        listed += [(row, partner) for partner in partners[: most - len(listed)].tolist()]
        if len(listed) >= most:
            break
    return total, listed


def _candidates(one: _Signed, other: _Signed, most: int) -> _Candidates:
    """Pairs of like layouts, those of equal grids left out."""
    found = _Candidates(
        np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, bool)
    )
    for second, is_mirrored in ((other.plain, False), (other.mirrored, True)):
        if second is None:
            continue
        for rows, columns, cosines in similar_rows(one.plain, second, least=LEAST_COSINE):
            wanted = one.digests[rows] != other.digests[columns]
            if one is other:
                wanted &= rows < columns
            found.add(
                rows[wanted], columns[wanted], cosines[wanted], mirrored=is_mirrored, most=most
            )
    found.unite()
    found.keep_greatest(most)
    return found


def _verify(
    candidates: _Candidates,
    one: Split,
    other: Split,
    embedding: Embedding,
    threshold: float,
    zooms: bool,
    progress: Progress | None,
) -> npt.NDArray[np.bool_]:
    """Which pairs are near-duplicates: bool (n,); their value becomes their score."""
    total = len(candidates.first)
    for start in range(0, total, _VERIFY_PAIRS):
        rows = slice(start, start + _VERIFY_PAIRS)
        candidates.value[rows] = scores(
            one.read_tokens(candidates.first[rows]),
            other.read_tokens(candidates.second[rows]),
            embedding,
            mirrored=candidates.mirrored[rows],
            zooms=zooms,
            enough=threshold,
        )
        if progress:
            progress(min(start + _VERIFY_PAIRS, total), total)
    return candidates.value >= threshold


def _keys_at(split: Split, rows: npt.NDArray[np.int64]) -> list[str]:
    """The keys of some samples, each block being read once."""
    ends = np.cumsum(split.block_sizes)
    blocks = np.searchsorted(ends, rows, side="right")
    keys = [""] * len(rows)
    for number in np.unique(blocks).tolist():
        shard, block = split.block_at(number)
        column = shard.open_block(block, Kind.KEYS)
        for place in np.flatnonzero(blocks == number).tolist():
            keys[place] = column[int(rows[place]) - shard.rows_of(block).start]
    return keys
