"""Samples of each class of a store, counted once.

The card has no counts: a file of counts that it listed would be copied unchanged by versions that
do not know it, when they delete, filter or merge. But the card's seal stands for every byte of the
store. So counts that took long are kept under the seal in the cache folder of the user, where a
changed store is not found.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seit.documents import read_json
from seit.errors import DamagedError, SeitError
from seit.files import write_atomically
from seit.progress import Count
from seit.shards import Kind, Split, Store, read_label_set_blocks

_WORTH_SECONDS = 1.0
"""Least time of a count that is kept."""
_REVISION = 2
"""Revision of the counts, in the names of their files; in the first, several labels were none."""
_KEPT = 64
"""Most stores whose counts are kept."""
_MAX_BYTES = 1 << 26
_Counts = dict[str, tuple[int, ...]]


def count_classes(store: Store, progress: Count | None = None) -> _Counts:
    """Count the samples of each class per split, in O(classes) memory, or recall the counts.

    A sample of several labels counts for each of them.

    Args:
        store: an open store.
        progress: called with (samples counted, total).

    Raises:
        DamagedError: a block of labels is damaged.
    """
    path = None if store.skips_damage else _place_of(store)
    found = None if path is None else _recall(path, store)
    if found is None:
        started = time.monotonic()
        found = _count(store, progress)
        if path is not None and time.monotonic() - started >= _WORTH_SECONDS:
            _keep(path, found)
    elif progress:
        progress(store.card.samples, store.card.samples)
    return found


def _count(store: Store, progress: Count | None) -> _Counts:
    done, found = 0, {}
    for name, split in store.items():
        num_samples = np.zeros(len(store.classes), dtype=np.int64)
        for size, counts in _counts_of_blocks(split):
            num_samples += counts
            done += size
            if progress:
                progress(done, store.card.samples)
        found[name] = tuple(num_samples.tolist())
    return found


def _counts_of_blocks(split: Split) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield the samples of each block, and those of each class among them: int64 (classes,)."""
    if split.has_label_sets:
        for sets in read_label_set_blocks(split):
            yield len(sets), sets.counts
        return
    for labels in split.read_blocks(lambda shard, block: shard.open_block(block, Kind.LABELS)):
        _check_range(int(labels.min(initial=-1)), int(labels.max(initial=-1)), split)
        yield len(labels), np.bincount(labels[labels >= 0], minlength=len(split.classes))


def _check_range(low: int, high: int, split: Split) -> None:
    if low < -1 or high >= len(split.classes):
        raise DamagedError(
            f"split {split.name!r} holds labels from {low} to {high} where the card names "
            f"{len(split.classes)} classes; `seit verify` lists all damage"
        )


def _place_of(store: Store) -> Path | None:
    """Return the file of a store's counts; None for a user without a home."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:
        return None
    return cache / "seit" / "counts" / f"{store.card.seal}-{_REVISION}.json"


def _recall(path: Path, store: Store) -> _Counts | None:
    """Return the kept counts if there are any that fit the store."""
    if not path.is_file():
        return None
    try:
        found = read_json(path, dict[str, list[int]], max_bytes=_MAX_BYTES)
    except SeitError:
        return None
    fits = found.keys() == store.keys() and all(
        len(counts) == len(store.classes)
        and min(counts, default=0) >= 0
        and _is_possible(counts, store[name])
        for name, counts in found.items()
    )
    return {name: tuple(found[name]) for name in store} if fits else None


def _is_possible(counts: Sequence[int], split: Split) -> bool:
    """Return whether a split may have so many samples of each class."""
    samples = split.store.card.samples_of(split.name)
    return sum(counts) <= samples or (max(counts) <= samples and split.has_label_sets)


def _keep(path: Path, counts: _Counts) -> None:
    """Write counts and remove the oldest; without a place to write to, do nothing."""
    with suppress(OSError, SeitError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(counts).encode())
        kept = sorted(path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime_ns)
        for old in kept[:-_KEPT]:
            old.unlink(missing_ok=True)
