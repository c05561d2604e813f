"""Select parts of a split: classes, and label fractions for training with few labels.

Legend: n samples chosen of N.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from seit.classes import listed, near_names
from seit.errors import UsageError
from seit.shards import Kind, LabelSets, Split, split_key
from seit.stream.order import sample_at

_CLASS_STREAM = 0x636C617373
_ROUNDING = 1e-9
"""Tolerance for rounding up: 0.1 of 100 samples are 10, although 100 × 0.1 > 10 in floats."""


def select(
    split: Split,
    *,
    classes: Sequence[str | int] | None = None,
    fraction: float = 1.0,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Return rows of a split, ascending: int64 (n,), for the ``subset`` of a loader.

    A fraction is taken of every class separately, rounded up, and of the samples without a label.
    With several labels per sample it is one of all samples, and one more of each class. With the
    same seed, a smaller fraction is a subset of a larger one. All windows of a recording, and all
    views of a picture, count as one sample: all or none of them are chosen.

    Args:
        split: split of a store.
        classes: names or numbers of classes; None for all samples.
        fraction: share of each class's files, above 0, at most 1: 0.01 and 0.1 are usual.
        seed: seed of the selection.

    Raises:
        UsageError: a class does not exist, or the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction is {fraction}; it must be above 0 and at most 1")
    labels = split.labels
    if classes is None:
        chosen = np.arange(len(labels))
    else:
        chosen = np.flatnonzero(_has_any(split, _numbers(split, classes)))
    if fraction == 1:
        return chosen.astype(np.int64)
    sets, files = split.label_sets, files_of(split)
    return share_of(labels, chosen, files=files, fraction=fraction, seed=seed, sets=sets)


def _has_any(split: Split, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which samples (N,) have one of the classes."""
    sets = split.label_sets
    if sets is None:
        return np.isin(split.labels, numbers)
    wanted = np.zeros(sets.num_classes, dtype=bool)
    wanted[numbers] = True
    return sets.any_of(wanted)


def share_of(
    labels: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.integer],
    *,
    files: npt.NDArray[np.integer],
    fraction: float,
    seed: int,
    sets: LabelSets | None = None,
) -> npt.NDArray[np.int64]:
    """Return the rows of a share of each class's files, ascending: int64 (n,); see `select`.

    Args:
        labels: labels (N,) of all samples; the first chosen one of a file decides its class.
        chosen: rows to take a share of, ascending.
        files: int (N,), equal for all samples of a file.
        fraction: the share, above 0, at most 1.
        seed: seed of the selection.
        sets: several labels of all samples, if they have them.
    """
    if fraction == 1:
        return chosen.astype(np.int64)
    rows = _of_each_class(
        labels,
        _first_of_files(chosen, files),
        lambda size: math.ceil(size * fraction - _ROUNDING),
        seed=seed,
    )
    if sets is not None:
        is_chosen = np.zeros(len(labels), dtype=bool)
        is_chosen[chosen] = True
        for number in range(sets.num_classes):
            own = sets.rows_of(number)
            own = _first_of_files(own[is_chosen[own]], files)
            if len(own):
                first = np.zeros(1, np.int64)
                order = sample_at(first, len(own), seed=seed ^ _CLASS_STREAM, epoch=number + 1)
                rows = np.append(rows, own[order])
    return chosen[np.isin(files[chosen], files[rows])].astype(np.int64)


def held_out(split: Split, *, share: float, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return rows of a split to judge on, ascending: int64 (n,); every class keeps others.

    The share of every class is rounded to the nearest number, but a class of two or more samples
    has at least one on both sides, and the sample of a class of one is not held out. With several
    labels per sample, the share is one of all samples, and every class keeps one of its own. All
    windows of a recording, and all views of a picture, are on one side, and count as one sample.

    Args:
        split: split of a store.
        share: share of the samples, above 0 and below 1.
        seed: seed of the selection.
    """
    labels, file_of = split.labels, files_of(split)
    rows = _of_each_class(
        labels,
        np.unique(file_of),
        lambda size: min(size - 1, max(1, math.floor(size * share + 0.5))),
        seed=seed,
    )
    is_held = np.isin(file_of, rows)
    sets = split.label_sets
    if sets is None:
        return np.flatnonzero(is_held)
    for number in range(sets.num_classes):
        own = sets.rows_of(number)
        if len(own) and is_held[own].all():
            is_held[file_of == file_of[own[0]]] = False
    return np.flatnonzero(is_held)


def files_of(split: Split) -> npt.NDArray[np.int64]:
    """Return the first row of each row's file: int64 (N,), ``arange(N)`` without windows or views.

    Reads the keys, block by block; if there are windows or views, twice.
    """
    modality = split.store.card.tokenizer.modality

    def files() -> Iterator[tuple[str, bool]]:
        for keys in split.read_blocks(lambda shard, block: shard.open_block(block, Kind.KEYS)):
            for key in keys:
                file = split_key(key, modality)[0]
                yield file, file != key

    parted = {file for file, is_part in files() if is_part}
    first_rows = np.arange(len(split) - split.skipped_samples, dtype=np.int64)
    if parted:
        row_of: dict[str, int] = {}
        for row, (file, _) in enumerate(files()):
            if file in parted:
                first_rows[row] = row_of.setdefault(file, row)
    return first_rows


def _first_of_files(
    rows: npt.NDArray[np.integer], files: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Return the first of the rows of each file, in the order of ``rows``."""
    first = np.unique(files[rows], return_index=True)[1]
    return rows[np.sort(first)].astype(np.int64)


def _of_each_class(
    labels: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.integer],
    count_of: Callable[[int], int],
    *,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return as many rows of each class as ``count_of`` says of its size, ascending."""
    if not len(chosen):
        return chosen.astype(np.int64)
    ordered = chosen[np.argsort(labels[chosen], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[ordered], prepend=-2))
    parts = []
    for rows in np.split(ordered, starts[1:]):
        ranks, epoch = np.arange(count_of(len(rows))), int(labels[rows[0]]) + 1
        order = sample_at(ranks, len(rows), seed=seed ^ _CLASS_STREAM, epoch=epoch)
        parts.append(rows[order])
    return np.sort(np.concatenate(parts))


def _numbers(split: Split, classes: Sequence[str | int]) -> npt.NDArray[np.int64]:
    numbers = []
    number_of = {name: number for number, name in reversed(list(enumerate(split.classes)))}
    for name in classes:
        number = number_of.get(name, -1) if isinstance(name, str) else name
        if not 0 <= number < len(split.classes):
            raise UsageError(_no_class(split, name))
        numbers.append(number)
    return np.unique(np.array(numbers, dtype=np.int64))


def _no_class(split: Split, name: str | int) -> str:
    """Return the error for a class that a store lacks."""
    known = split.classes
    if isinstance(name, int):
        return (
            f"there is no class {name} in {split.store.folder}, which has {len(known)}, from 0 on"
        )
    near = [*near_names([name], known).values(), *get_close_matches(name, known, n=1)][:1]
    hint = f"did you mean {near[0]!r}?" if near else f"it has {listed(known) or 'none'}"
    return f"there is no class {name!r} in {split.store.folder}; {hint}"
