"""Assembly of drafts into a corpus: assign splits and labels, and warn of oddities."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from seit.ingest.sources.corpus import Corpus, Draft, Kind, shuffle_rank
from seit.ingest.sources.instance_table import DraftTable, InstanceTable
from seit.ingest.sources.label_sets import labels_in
from seit.ingest.sources.labels import compare_splits, label_remarks
from seit.ingest.sources.splits import HashSplit
from seit.shards import LABELS_KEY, check_split_names

KEEPS_ORDER: tuple[Kind, ...] = ("webdataset", "parquet")
"""Kinds of sources whose instances are read fastest in sequence."""

_FIRST_SPLITS = ("train", "val", "test")
_SEVERAL = json.dumps(LABELS_KEY).encode()
"""Part of the metadata of instances that have several labels."""


def assemble(
    source: str,
    kind: Kind,
    drafts: Sequence[Draft],
    *,
    classes: Sequence[str],
    warnings: Sequence[str],
    hash_split: HashSplit,
    label_places: str,
) -> Corpus:
    """Split, order and number the drafts, whose keys must be unique.

    ``label_places`` ends the sentence on where labels were looked for, shown if nothing is labeled.

    Raises:
        UsageError: a split has a name that a store cannot use.
    """
    table = drafts if isinstance(drafts, DraftTable) else DraftTable(drafts)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = table.classes_of(numbers)
    chosen, split_remarks = hash_split.divide(table.heads)
    names = tuple(sorted(set(chosen), key=_split_rank))
    number_of = {name: number for number, name in enumerate(names)}
    splits = np.fromiter((number_of[name] for name in chosen), np.int32, len(chosen))
    counts = _count(labels, splits, names)
    for row, several in _label_sets(table, labels):
        found = counts[chosen[row]]
        found[-1] -= 1
        for name in several:
            if name in numbers:
                found[numbers[name]] = found.get(numbers[name], 0) + 1
    notes = list(warnings)
    unlabelled = sum(found.get(-1, 0) for found in counts.values())
    if not classes:
        notes.append(f"none of {len(table):,} instances has a label: {label_places}")
    elif unlabelled:
        notes.append(f"{unlabelled} of {len(table)} instances have no label")
    learned = [classes[label] for label in sorted(counts.get("train", {})) if label >= 0]
    notes += label_remarks(classes, learned or classes, is_folder=kind == "folder")
    notes += split_remarks
    notes += compare_splits(classes, counts)
    check_split_names(names)
    rows = _ordered(table, splits, shuffles=kind not in KEEPS_ORDER)
    instances = InstanceTable(table, rows, labels, splits, names)
    return Corpus(
        source=source,
        kind=kind,
        instances=instances,
        classes=tuple(classes),
        warnings=tuple(notes),
        fingerprint=_fingerprint(kind, classes, table, rows, labels, [names[n] for n in splits]),
        is_hash_split=hash_split.val_fraction > 0 and table.has_unsplit,
    )


def _split_rank(name: str) -> tuple[int, str]:
    first = _FIRST_SPLITS.index(name) if name in _FIRST_SPLITS else len(_FIRST_SPLITS)
    return first, name


def _count(
    labels: npt.NDArray[np.int32], splits: npt.NDArray[np.int32], names: Sequence[str]
) -> dict[str, dict[int, int]]:
    """Return split → label → instances."""
    counts = {}
    for number, name in enumerate(names):
        found, num_found = np.unique(labels[splits == number], return_counts=True)
        counts[name] = dict(zip(found.tolist(), num_found.tolist(), strict=True))
    return counts


def _label_sets(
    table: DraftTable, labels: npt.NDArray[np.int32]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that have several labels, with the names of these."""
    for row in np.flatnonzero(labels < 0).tolist():
        if _SEVERAL in table.metadata_json(row):
            several = labels_in(table.metadata(row))
            if several is not None:
                yield row, several


def _ordered(
    table: DraftTable, splits: npt.NDArray[np.int32], *, shuffles: bool
) -> npt.NDArray[np.int64]:
    """Return the rows split by split, in the order of a hash of their keys if ``shuffles``."""
    if not shuffles:
        return np.argsort(splits, kind="stable")
    ranks = np.fromiter(
        (shuffle_rank(table.key_bytes(row)) for row in range(len(table))), np.uint64, len(table)
    )
    rows = np.lexsort((ranks, splits))
    equal = np.flatnonzero((np.diff(ranks[rows]) == 0) & (np.diff(splits[rows]) == 0))
    for start, end in _runs(equal):  # keys decide between equal hashes
        rows[start:end] = sorted(rows[start:end].tolist(), key=table.key_text)
    return rows


def _runs(places: npt.NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of runs of rows, of which ``places`` equal their next."""
    for group in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        if len(group):
            yield int(group[0]), int(group[-1]) + 2


def _fingerprint(
    kind: Kind,
    classes: Sequence[str],
    table: DraftTable,
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    splits: Sequence[str],
) -> str:
    digest = hashlib.sha256(json.dumps([kind, list(classes)]).encode())
    for row in rows.tolist():
        key, extra = table.key_bytes(row), table.metadata_json(row)
        sizes = f"{labels[row]} {table.num_bytes(row)} {splits[row]} {len(key)} {len(extra)} "
        digest.update(sizes.encode() + key + extra)
    return digest.hexdigest()
