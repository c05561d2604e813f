"""Search for near-duplicates between splits, on tokens alone.

Exact duplicates are equal grids, found by a checksum. Near-duplicates pass two tests: the cosine of
their signatures (`signatures.py`), computed for every pair of samples, and, for the remaining
pairs, the mean distance of their codebook vectors, position by position (`similarity.py`). Time
grows with the product of the samples of two splits: 64 multiplications per pair. Memory is about
170 to 310 bytes per sample and a bounded number of pairs.

Views of one picture, and windows of one recording, are no duplicates of each other.

It misses crops of much more than a tenth, rotations, changed colors, and pictures within others. It
also reports pictures of one scene, and plain pictures of similar composition.

Legend: N samples, n pairs.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.analysis.duplicates.signatures import Layouts, similar_rows
from seit.analysis.duplicates.similarity import scores
from seit.analysis.duplicates.vectors import Embedding
from seit.errors import UsageError
from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import Kind, Split, Store, split_key

LEAST_COSINE = 0.88
"""Minimum cosine of two signatures for a closer look."""
DEFAULT_THRESHOLD = 0.8
"""Minimum score of a near-duplicate."""
MAX_CANDIDATES = 1_000_000
"""Limit on pairs that get a closer look, those with the greatest cosines."""
_DIGEST = np.dtype("S16")
_VERIFY_PAIRS = 1024


@dataclass(frozen=True)
class Place:
    """Sample of a store: its split and its key."""

    split: str
    key: str


@dataclass(frozen=True)
class DuplicatePair:
    """Two samples that are equal or nearly so.

    Attributes:
        kind: ``exact`` for equal grids, ``mirrored`` if the second is nearly the mirror image.
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
    """Outcome of a search.

    Attributes:
        exact: number of pairs with equal grids.
        near: number of other pairs with at least the threshold as score, including mirrored ones.
        pairs: exact ones first, then by falling score, up to the requested number.
        unchecked: number of pairs with similar layouts that exceeded the limit on closer looks.
    """

    exact: int
    near: int
    pairs: tuple[DuplicatePair, ...]
    unchecked: int


@dataclass(frozen=True)
class _Signed:
    """Split with the checksums of its samples, of the names of their files, and signatures."""

    split: Split
    digests: npt.NDArray[np.bytes_]
    files: npt.NDArray[np.bytes_]
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
        """Add pairs; beyond twice ``most``, keep only the greatest values."""
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
        """Keep each pair once, straight or mirrored, whichever has the greater value."""
        self.take(np.lexsort((-self.value, self.second, self.first)))
        is_first = np.ones(len(self.first), dtype=bool)
        is_first[1:] = (np.diff(self.first) != 0) | (np.diff(self.second) != 0)
        self.take(np.flatnonzero(is_first))

    def take(self, chosen: npt.NDArray[np.intp]) -> None:
        """Keep the pairs at these indices, in their order."""
        self.first, self.second = self.first[chosen], self.second[chosen]
        self.value, self.mirrored = self.value[chosen], self.mirrored[chosen]


def find_duplicates(
    store: Store,
    *,
    between: tuple[str, str] | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    most_pairs: int = 1000,
    max_candidates: int = MAX_CANDIDATES,
    progress: Count | None = None,
) -> Duplicates:
    """Find pairs of samples of two splits that are equal or nearly so.

    Args:
        store: an open store.
        between: two splits, or one twice; by default all pairs of splits, or the only split.
        threshold: minimum score of a near-duplicate, above 0, at most 1.
        most_pairs: number of pairs to list; the others are only counted.
        max_candidates: limit on pairs of two splits for a closer look, which take 50 bytes each.
        progress: callback for progress, first over signatures, then over pairs of splits.

    Raises:
        UsageError: a split does not exist, or the threshold is invalid.
        DamagedError: the store is damaged.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold is {threshold}; expected above 0, at most 1")
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
            _file_digests(split),
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
    progress: Count | None,
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
    """Return the checksum of each grid: bytes (N,)."""
    split.check_files(len(split) * _DIGEST.itemsize)
    columns = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.TOKENS))
    grids = (grid.tobytes() for tokens in columns for grid in tokens)
    return _digested(grids, len(split))


def _file_digests(split: Split) -> npt.NDArray[np.bytes_]:
    """Return the checksum of the name of each sample's file: bytes (N,)."""
    columns = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.KEYS))
    modality = split.store.card.tokenizer.modality
    names = (split_key(key, modality)[0].encode() for keys in columns for key in keys)
    return _digested(names, len(split))


def _digested(values: Iterable[bytes], count: int) -> npt.NDArray[np.bytes_]:
    found = (hashlib.blake2b(value, digest_size=_DIGEST.itemsize).digest() for value in values)
    return np.fromiter(found, dtype=_DIGEST, count=count)


def _exact_pairs(one: _Signed, other: _Signed, most: int) -> tuple[int, list[tuple[int, int]]]:
    """Count the pairs of equal grids; also return the first ``most`` of them."""
    order = np.argsort(other.digests, kind="stable")
    ordered = other.digests[order]
    starts = np.searchsorted(ordered, one.digests, side="left")
    counts = np.searchsorted(ordered, one.digests, side="right") - starts
    is_within = one is other
    total = _pairs_within(one) if is_within else int(counts.sum())
    listed: list[tuple[int, int]] = []
    for row in np.flatnonzero(counts > is_within).tolist():
        partners = order[starts[row] : starts[row] + counts[row]]
        if is_within:
            partners = partners[(partners > row) & (one.files[partners] != one.files[row])]
        listed += [(row, partner) for partner in partners[: most - len(listed)].tolist()]
        if len(listed) >= most:
            break
    return total, listed


def _pairs_within(one: _Signed) -> int:
    """Return the number of pairs of equal grids in one split, of different files."""
    grids_of_files = np.rec.fromarrays([one.digests, one.files])
    return _pairs_of_equal(one.digests) - _pairs_of_equal(grids_of_files)


def _pairs_of_equal(values: npt.NDArray[Any]) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1)).sum()) // 2


def _candidates(one: _Signed, other: _Signed, most: int) -> _Candidates:
    """Return pairs of similar layouts, without those of equal grids."""
    found = _Candidates(
        np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, bool)
    )
    for second, is_mirrored in ((other.plain, False), (other.mirrored, True)):
        if second is None:
            continue
        for rows, columns, cosines in similar_rows(one.plain, second, least=LEAST_COSINE):
            wanted = one.digests[rows] != other.digests[columns]
            if one is other:
                wanted &= (rows < columns) & (one.files[rows] != one.files[columns])
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
    progress: Count | None,
) -> npt.NDArray[np.bool_]:
    """Return a mask of near-duplicates, bool (n,); the pairs' values become their scores."""
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
    """Return the keys of some samples, reading each block once."""
    ends = np.cumsum(split.block_sizes)
    blocks = np.searchsorted(ends, rows, side="right")
    keys = [""] * len(rows)
    for number in np.unique(blocks).tolist():
        shard, block = split.block_at(number)
        column = shard.open_block(block, Kind.KEYS)
        for place in np.flatnonzero(blocks == number).tolist():
            keys[place] = column[int(rows[place]) - shard.rows_of(block).start]
    return keys
